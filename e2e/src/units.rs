//! Sizes and rates as they are written on a command line.
//!
//! State: none. Invariants: neither is zero. Absent on purpose: decimal sizes and bytes a second: blobs are counted in powers of two,
//! links in bits.

use std::fmt;
use std::str::FromStr;

/// Bytes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

/// Bytes a second, at least one; written in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const RATES: [(&str, u64); 3] = [("gbit", 125_000_000), ("mbit", 125_000), ("kbit", 125)];

impl Size {
    /// How many bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In so many parts that differ by a byte at most; none is empty, so there may be fewer.
    #[must_use]
    pub fn split(self, parts: u32) -> Vec<u64> {
        let parts = u64::from(parts).clamp(1, self.0);
        (0..parts).map(|part| self.0 / parts + u64::from(part < self.0 % parts)).collect()
    }
}

impl Rate {
    /// Bytes a second.
    #[must_use]
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, &SIZES).map(Self).ok_or("write a size above zero with B, KiB, MiB or GiB, as in 256MiB")
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(&text.to_ascii_lowercase(), &RATES)
            .map(Self)
            .ok_or("write a rate above zero with kbit, mbit or gbit, as in 200mbit")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &SIZES)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(125) { print(f, self.0, &RATES) } else { write!(f, "{}bit", self.0 * 8) }
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    // `parse` alone would take a sign.
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| number.parse::<u64>().ok()).flatten()?.checked_mul(factor)?;
    (value > 0).then_some(value)
}

fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let whole = units.iter().find(|(_, factor)| value.is_multiple_of(*factor));
    let (unit, factor) = whole.copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_are_written_as_they_are_read() {
        for (text, bytes) in [("256MiB", 256 << 20), ("1GiB", 1 << 30), ("1B", 1), ("3KiB", 3 << 10)] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), &*size.to_string()), (bytes, text));
        }
        for (text, bytes) in [("200mbit", 25_000_000), ("1gbit", 125_000_000), ("8kbit", 1000)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bytes_per_second(), &*rate.to_string()), (bytes, text));
        }
        assert_eq!("200Mbit".parse::<Rate>(), "200mbit".parse());
        for text in ["", "MiB", "0MiB", "-1MiB", "+1MiB", "1.5MiB", "256", "256MB", "99999999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["", "0mbit", "200", "200MiB"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_add_up_and_none_is_empty() {
        for (bytes, parts, expected) in
            [(10, 3, vec![4, 3, 3]), (8, 4, vec![2; 4]), (2, 4, vec![1; 2]), (5, 0, vec![5])]
        {
            assert_eq!(Size(bytes).split(parts), expected);
        }
    }
}

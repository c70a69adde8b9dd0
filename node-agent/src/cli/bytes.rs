//! Bytes a second and shares of a disk as people write them.
//!
//! State: none. Invariant: a rate is at least one byte a second. Absent on purpose: "Mb", which means two things.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use shoal_store::Percent;

/// A limit in bytes a second: `200Mbit`, `25MB`, `25MiB`, `26214400`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(NonZeroU64);

impl ByteRate {
    /// Bytes a second.
    #[must_use]
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get()
    }
}

/// Units in lower case, with what they count: bits, and how many of them make one.
const UNITS: [(&str, u64); 13] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("", 8),
    ("B", 8),
    ("kB", 8_000),
    ("KB", 8_000),
    ("MB", 8_000_000),
    ("GB", 8_000_000_000),
    ("KiB", 8 << 10),
    ("MiB", 8 << 20),
    ("GiB", 8 << 30),
];

impl FromStr for ByteRate {
    type Err = ByteRateError;

    fn from_str(text: &str) -> Result<Self, ByteRateError> {
        let text = text.strip_suffix("/s").unwrap_or(text);
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let number: u64 = number.parse().map_err(|_| ByteRateError)?;
        let is = |name: &str| name == unit || (name.ends_with("bit") && unit.eq_ignore_ascii_case(name));
        let (_, bits) = UNITS.into_iter().find(|(name, _)| is(name)).ok_or(ByteRateError)?;
        // A rate above 2^61 bytes isn't one.
        let bytes = number.checked_mul(bits).ok_or(ByteRateError)? / 8;
        NonZeroU64::new(bytes).map(Self).ok_or(ByteRateError)
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

/// Not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write bits a second as 200Mbit (bit, kbit, Mbit, Gbit) or bytes a second as 25MB (B, kB, MB, GB, KiB, MiB, GiB)"
)]
pub struct ByteRateError;

/// A percentage.
pub(super) fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.and_then(Percent::new).ok_or_else(|| "write a percentage from 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let cases = [
            ("200Mbit", Some(25_000_000)),
            ("200mbit", Some(25_000_000)),
            ("1Gbit/s", Some(125_000_000)),
            ("25MB", Some(25_000_000)),
            ("1MiB/s", Some(1 << 20)),
            ("4096", Some(4_096)),
            ("8bit", Some(1)),
            ("7bit", None),
            ("0", None),
            ("25Mb", None),
            ("25mb", None),
            ("-1", None),
            ("fast", None),
            ("", None),
            ("99999999999999999999", None),
            ("9999999999999GB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse().ok().map(ByteRate::bytes_per_second), bytes, "{text}");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!(percent("25%"), Ok(Percent::new(25).unwrap()));
        assert!(percent("101").is_err() && percent("a quarter").is_err());
    }
}

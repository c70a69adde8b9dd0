//! Quantities as they are written on a command line, and how they are printed: sizes, times, rates, shares.
//!
//! State: none. Invariants: what is printed parses to the same value; a size and a rate are more than zero.
//! Absent on purpose: decimal sizes (MB). Blobs and chunks are counted in powers of two here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, f64); 4] = [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("s", 1.0)];
/// Bytes a second; networks count in decimal bits.
const RATES: [(&str, f64); 3] = [("Gbit", 1.25e8), ("Mbit", 1.25e5), ("kbit", 1.25e2)];

/// Bytes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u64);

impl Size {
    pub(crate) const fn new(bytes: u64) -> Option<Self> {
        if bytes == 0 { None } else { Some(Self(bytes)) }
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text, SIZES);
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit.unwrap_or(1)));
        bytes.and_then(Self::new).ok_or_else(|| {
            format!("a size is a number above zero with B, KiB, MiB, GiB or TiB behind it, like 32MiB, not '{text}'")
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES.iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (name, unit) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// A part of something: a number of it or a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Share {
    Count(usize),
    Fraction(f64),
}

impl Share {
    pub(crate) const NONE: Self = Self::Count(0);

    /// How many of `all` that is. A fraction that isn't zero is at least one.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a fraction of a number of nodes, far below 2^53"
    )]
    pub(crate) fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Fraction(fraction) if fraction > 0.0 => ((all as f64 * fraction).round() as usize).max(1),
            Self::Fraction(_) => 0,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with('%') {
            return percent(text).map(Self::Fraction);
        }
        text.parse()
            .map(Self::Count)
            .map_err(|_| format!("expected a number of nodes or a share like 10%, not '{text}'"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Fraction(fraction) => write!(f, "{}%", fraction * 100.0),
        }
    }
}

/// 0 % to 100 % as a fraction.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("expected a share from 0% to 100%, not '{text}'"))
}

/// A span of time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text, TIMES);
    let seconds = number.parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("expected a time like 500us, 3ms or 1.5s, not '{text}'"))
}

/// Bytes a second of a link.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text, RATES);
    let rate = number.parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
    rate.filter(|rate| (1.0..=1e15).contains(rate))
        .ok_or_else(|| format!("expected a rate like 10Gbit or 500Mbit, not '{text}'"))
}

/// The number and what the unit behind it stands for.
fn split<'a, T: Copy, const N: usize>(text: &'a str, units: [(&str, T); N]) -> (&'a str, Option<T>) {
    let found = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, Some(*unit))));
    found.unwrap_or((text, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_as_they_parse() {
        for (text, bytes) in
            [("1GiB", 1 << 30), ("32MiB", 32 << 20), ("100KiB", 100 << 10), ("77B", 77), ("2TiB", 2 << 40)]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        assert_eq!("1048576".parse::<Size>().unwrap().to_string(), "1MiB");
        for text in ["0", "0GiB", "", "GiB", "1.5GiB", "-1MiB", "1 MiB", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_count_or_a_fraction() {
        let of = |text: &str, all| text.parse::<Share>().map(|share| share.of(all));
        assert_eq!(of("7", 100), Ok(7));
        assert_eq!(of("10%", 1_000), Ok(100));
        assert_eq!(of("10%", 3), Ok(1), "some are some");
        assert_eq!(of("0%", 100), Ok(0));
        for text in ["", "-1", "ten", "101%", "-1%", "NaN%"] {
            assert!(of(text, 10).is_err(), "{text}");
        }
    }

    #[test]
    fn times_and_rates_have_units() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(rate("10Gbit"), Ok(1.25e9));
        assert_eq!(rate("2500Mbit"), rate("2.5Gbit"));
        for text in ["", "5", "-1s", "s", "NaNs", "infs"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "5", "0Gbit", "-1Gbit", "infGbit", "NaNGbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}

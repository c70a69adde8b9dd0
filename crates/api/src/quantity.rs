//! Bytes as Kubernetes writes them: `8Gi`, `1500M`, `0.5Ti`.
//!
//! State: none. Absent on purpose: signs, milli and exponents, which no number of bytes needs.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity(u64);

impl Quantity {
    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Suffixes and their factors; the binary ones first and largest first, as a quantity is printed with the first that divides it.
const UNITS: [(&str, u64); 13] = [
    ("Ei", 1 << 60),
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

/// More digits than any number of bytes needs would overflow the arithmetic below.
const MAX_FRACTION_DIGITS: usize = 9;

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(unit_at);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == suffix).ok_or(QuantityError::Syntax)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.is_empty() || fraction.len() > MAX_FRACTION_DIGITS || fraction.contains('.') {
            return Err(QuantityError::Syntax);
        }
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| QuantityError::Syntax)?);
        let fraction: u128 = fraction.parse().map_err(|_| QuantityError::Syntax)?;
        if whole.is_empty() {
            return Err(QuantityError::Syntax);
        }
        // u64::MAX * 10^9 and 2^60 more factors fit a u128 only because a whole number above u64 is refused here.
        let whole: u64 = whole.parse().map_err(|_| QuantityError::TooLarge)?;
        let whole = u128::from(whole) * u128::from(factor);
        // A fraction of a byte is rounded up, as Kubernetes does.
        let part = (fraction * u128::from(factor)).div_ceil(scale);
        u64::try_from(whole + part).map(Self).map_err(|_| QuantityError::TooLarge)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Zero is divided by everything.
        let divides = |factor: u64| self.0 != 0 && self.0.is_multiple_of(factor);
        let (suffix, factor) = UNITS.into_iter().find(|(_, factor)| divides(*factor)).unwrap_or(("", 1));
        write!(f, "{}{suffix}", self.0 / factor)
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]{1,9})?([KMGTPE]i|[kMGTPE])?$",
        })
    }
}

/// Why a text is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number and a suffix.
    #[error("bytes are written as a number and one of Ki, Mi, Gi, Ti, Pi, Ei, k, M, G, T, P, E or nothing, as in 8Gi")]
    Syntax,
    /// More than a `u64` counts.
    #[error("more than 16Ei")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_and_bytes() {
        let cases = [
            ("0", Ok(0)),
            ("8Gi", Ok(8 << 30)),
            ("1500M", Ok(1_500_000_000)),
            ("0.5Ki", Ok(512)),
            ("0.001Ki", Ok(2)),
            ("1k", Ok(1000)),
            ("15Ei", Ok(15 << 60)),
            ("16Ei", Err(QuantityError::TooLarge)),
            ("99999999999999999999", Err(QuantityError::TooLarge)),
            ("", Err(QuantityError::Syntax)),
            ("Gi", Err(QuantityError::Syntax)),
            ("-1", Err(QuantityError::Syntax)),
            ("1.", Err(QuantityError::Syntax)),
            (".5", Err(QuantityError::Syntax)),
            ("1.2.3", Err(QuantityError::Syntax)),
            ("1K", Err(QuantityError::Syntax)),
            ("8 Gi", Err(QuantityError::Syntax)),
            ("8gb", Err(QuantityError::Syntax)),
            ("1e3", Err(QuantityError::Syntax)),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<Quantity>().map(Quantity::bytes), bytes, "{text}");
        }
        assert_eq!(Quantity::from_bytes(8 << 30).to_string(), "8Gi");
        assert_eq!(Quantity::from_bytes(1_500_000_000).to_string(), "1500M");
        assert_eq!(Quantity::default().to_string(), "0");
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(bytes: u64) {
            prop_assert_eq!(Quantity::from_bytes(bytes).to_string().parse(), Ok(Quantity::from_bytes(bytes)));
        }

        #[test]
        fn no_text_panics(text in "[0-9.KMGi]{0,40}") {
            let _ = text.parse::<Quantity>();
        }
    }
}

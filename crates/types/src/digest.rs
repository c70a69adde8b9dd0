//! OCI digests: `sha256:<64 hex>` and `sha512:<128 hex>`.

use std::fmt;
use std::str::FromStr;

/// A hash algorithm whose chain Shoal can build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the default of every registry.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The digest's length in bytes.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The name in front of the colon.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// The digest of a blob's content: its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest.
    Sha512([u8; 64]),
}

impl Digest {
    /// The algorithm that made it.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Its bytes, 32 or 64.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// A position in the 128-bit space in which nodes and digests are compared by XOR.
    #[must_use]
    pub fn position(&self) -> u128 {
        let bytes = self.as_bytes();
        let mut head = [0_u8; 16];
        head.copy_from_slice(&bytes[..16]);
        u128::from_be_bytes(head)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm().name())?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon.
    #[error("a digest is written algorithm:hex, as in sha256:9f86…")]
    NoAlgorithm,
    /// An algorithm without a chain.
    #[error("unknown digest algorithm (known: sha256, sha512)")]
    UnknownAlgorithm,
    /// Not as long as the algorithm says.
    #[error("a {} digest has {expected} hex digits, this one has {found}", algorithm.name())]
    Length {
        /// The algorithm.
        algorithm: Algorithm,
        /// How many hex digits it has.
        expected: usize,
        /// How many were found.
        found: usize,
    },
    /// Something else than 0-9a-f. Upper case is refused as the OCI specification does.
    #[error("a digest's hex digits are 0-9 and a-f")]
    NotHex,
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::UnknownAlgorithm),
        };
        let expected = algorithm.digest_bytes() * 2;
        if hex.len() != expected {
            return Err(DigestError::Length { algorithm, expected, found: hex.len() });
        }
        Ok(match algorithm {
            Algorithm::Sha256 => Self::Sha256(parse_hex(hex)?),
            Algorithm::Sha512 => Self::Sha512(parse_hex(hex)?),
        })
    }
}

fn parse_hex<const N: usize>(hex: &str) -> Result<[u8; N], DigestError> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::NotHex),
    };
    let mut bytes = [0_u8; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_is_printed_parses_back() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
        let long = format!("sha512:{}", "0f".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
    }

    #[test]
    fn malformed_digests_are_refused_with_the_reason() {
        let cases = [
            ("", DigestError::NoAlgorithm),
            ("e3b0c442", DigestError::NoAlgorithm),
            ("md5:00", DigestError::UnknownAlgorithm),
            ("sha256:00", DigestError::Length { algorithm: Algorithm::Sha256, expected: 64, found: 2 }),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
        assert_eq!(EMPTY.to_uppercase().replace("SHA", "sha").parse::<Digest>(), Err(DigestError::NotHex));
        assert_eq!(format!("sha256:{}é", "0".repeat(62)).parse::<Digest>(), Err(DigestError::NotHex));
    }
}

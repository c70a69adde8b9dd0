//! The `Range` and `Content-Range` headers.
//!
//! State: none.
//! Invariants: a resolved range is not empty and lies within the blob.
//! Absent on purpose: answers with several parts (no runtime asks for them and a registry needn't give them), units other than bytes.

use std::ops::Range;

/// A longer header is no honest range: the longest single one has two numbers of 20 digits.
const MAX_HEADER_BYTES: usize = 1024;

/// What a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: there is no header, or its unit is unknown, which a server must ignore.
    Whole,
    /// One range.
    One(Span),
    /// Several.
    Several,
}

/// One range, before the blob's size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// `first-last`, both included.
    Between {
        /// The first byte.
        first: u64,
        /// The last byte; beyond the end means the end.
        last: u64,
    },
    /// `first-`.
    From {
        /// The first byte.
        first: u64,
    },
    /// `-len`: the last `len` bytes.
    Last {
        /// How many.
        len: u64,
    },
}

impl Wanted {
    /// Reads the header, if there is one.
    ///
    /// # Errors
    /// If its unit is bytes and it isn't a range.
    pub fn parse(header: Option<&[u8]>) -> Result<Self, RangeError> {
        let Some(header) = header else { return Ok(Self::Whole) };
        let text = std::str::from_utf8(header).map_err(|_| RangeError::Malformed)?;
        if text.len() > MAX_HEADER_BYTES {
            return Err(RangeError::Malformed);
        }
        let (unit, set) = text.split_once('=').ok_or(RangeError::Malformed)?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Ok(Self::Whole);
        }
        // RFC 9110 allows empty elements in a list.
        let mut spans = set.split(',').map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty());
        let first = parse_span(spans.next().ok_or(RangeError::Malformed)?)?;
        let mut several = false;
        for span in spans {
            parse_span(span)?;
            several = true;
        }
        Ok(if several { Self::Several } else { Self::One(first) })
    }

    /// The bytes of a blob of `size` that are meant; none means all of them, answered with 200.
    ///
    /// # Errors
    /// If there are several ranges, or no byte of the blob is in it.
    pub fn within(self, size: u64) -> Result<Option<Range<u64>>, RangeError> {
        match self {
            Self::Whole => Ok(None),
            Self::One(span) => span.within(size).map(Some),
            Self::Several => Err(RangeError::Several),
        }
    }
}

impl Span {
    /// The bytes of a blob of `size`.
    ///
    /// # Errors
    /// If there are none.
    pub fn within(self, size: u64) -> Result<Range<u64>, RangeError> {
        let range = match self {
            Self::Between { first, last } => first..last.saturating_add(1).min(size),
            Self::From { first } => first..size,
            Self::Last { len } => size.saturating_sub(len)..size,
        };
        if range.is_empty() { Err(RangeError::Unsatisfiable { size }) } else { Ok(range) }
    }
}

fn parse_span(text: &str) -> Result<Span, RangeError> {
    let (first, last) = text.split_once('-').ok_or(RangeError::Malformed)?;
    match (parse_number(first)?, parse_number(last)?) {
        (Some(first), Some(last)) if first > last => Err(RangeError::Malformed),
        (Some(first), Some(last)) => Ok(Span::Between { first, last }),
        (Some(first), None) => Ok(Span::From { first }),
        (None, Some(len)) => Ok(Span::Last { len }),
        (None, None) => Err(RangeError::Malformed),
    }
}

/// A number of any length: beyond 64 bits every blob has ended.
fn parse_number(text: &str) -> Result<Option<u64>, RangeError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

/// The `Content-Range` of an answer.
#[must_use]
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// The `Content-Range` of an answer that says 416.
#[must_use]
pub fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

/// Reads the `Content-Range` of a 206: the bytes, and the whole's size if the server says it.
#[must_use]
pub fn parse_content_range(header: &[u8]) -> Option<(Range<u64>, Option<u64>)> {
    let number = |text: &str| parse_number(text).ok().flatten();
    let text = std::str::from_utf8(header).ok()?;
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let size = if size == "*" { None } else { Some(number(size)?) };
    let range = first..last.checked_add(1)?;
    (!range.is_empty() && size.is_none_or(|size| range.end <= size)).then_some((range, size))
}

/// Why a range can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not a range.
    #[error("a range is written bytes=first-last, bytes=first- or bytes=-length")]
    Malformed,
    /// No byte of the blob is in it.
    #[error("the range has no byte of a blob of {size} bytes")]
    Unsatisfiable {
        /// The blob's size.
        size: u64,
    },
    /// Several ranges at once.
    #[error("several ranges in one request aren't served")]
    Several,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_100(header: &str) -> Result<Option<Range<u64>>, RangeError> {
        Wanted::parse(Some(header.as_bytes()))?.within(100)
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let huge = "9".repeat(40);
        let cases = [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=99-99", Ok(Some(99..100))),
            ("bytes=10-", Ok(Some(10..100))),
            ("bytes=-7", Ok(Some(93..100))),
            ("bytes=-1000", Ok(Some(0..100))),
            ("bytes=50-1000", Ok(Some(50..100))),
            ("Bytes= 5-6 ,", Ok(Some(5..7))),
            ("bytes=100-", Err(RangeError::Unsatisfiable { size: 100 })),
            ("bytes=-0", Err(RangeError::Unsatisfiable { size: 100 })),
            ("bytes=0-1,5-6", Err(RangeError::Several)),
            ("bytes=0-1,5-6,-1", Err(RangeError::Several)),
            ("bytes=5-4", Err(RangeError::Malformed)),
            ("bytes=-", Err(RangeError::Malformed)),
            ("bytes=", Err(RangeError::Malformed)),
            ("bytes=a-b", Err(RangeError::Malformed)),
            ("bytes=+1-2", Err(RangeError::Malformed)),
            ("bytes=--1", Err(RangeError::Malformed)),
            ("bytes=1-2-3", Err(RangeError::Malformed)),
            ("bytes=0-1,x", Err(RangeError::Malformed)),
            ("0-1", Err(RangeError::Malformed)),
            ("pages=1-2", Ok(None)),
        ];
        for (header, expected) in cases {
            assert_eq!(of_100(header), expected, "{header}");
        }
        assert_eq!(of_100(&format!("bytes=0-{huge}")), Ok(Some(0..100)));
        assert_eq!(of_100(&format!("bytes={huge}-")), Err(RangeError::Unsatisfiable { size: 100 }));
        assert_eq!(of_100(&format!("bytes={}", "0-1,".repeat(1000))), Err(RangeError::Malformed));
        assert_eq!(Wanted::parse(None), Ok(Wanted::Whole));
        assert_eq!(Wanted::parse(Some(b"bytes=0-")).unwrap().within(0), Err(RangeError::Unsatisfiable { size: 0 }));
    }

    proptest! {
        #[test]
        fn a_range_lies_within_its_blob(header in "(bytes=)?[0-9, -]{0,24}", size in any::<u64>()) {
            if let Ok(Some(range)) = Wanted::parse(Some(header.as_bytes())).and_then(|wanted| wanted.within(size)) {
                prop_assert!(range.start < range.end && range.end <= size);
                prop_assert_eq!(parse_content_range(content_range(&range, size).as_bytes()), Some((range, Some(size))));
            }
        }

        #[test]
        fn a_server_can_say_anything(header in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some((range, Some(size))) = parse_content_range(&header) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }

    #[test]
    fn content_ranges_that_contradict_themselves_are_refused() {
        assert_eq!(parse_content_range(b"bytes 0-9/*"), Some((0..10, None)));
        for bad in
            ["bytes 0-9/5", "bytes 9-0/10", "bytes */10", "items 0-1/2", "bytes 0-18446744073709551615/*", "bytes 0-1"]
        {
            assert_eq!(parse_content_range(bad.as_bytes()), None, "{bad}");
        }
    }
}

//! Reading and writing of numbers, options and lists.
//!
//! State: what of a body is left to read.
//! Invariants: a reader never reads beyond the body, and a list's memory is asked for only when its items can be there.
//! Absent on purpose: what the bytes mean (`values`, `messages`).

use bytes::{BufMut, BytesMut};

/// Why a body can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Truncated,
    Invalid(&'static str),
    /// A tag from a later release: the message is skipped.
    UnknownTag,
}

/// A value that has a place in a body.
pub(super) trait Value: Sized {
    /// The fewest bytes that it takes.
    const MIN_BYTES: usize;

    fn put(&self, out: &mut BytesMut);

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault>;
}

/// What of a body hasn't been read.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn take<T: Value>(&mut self) -> Result<T, Fault> {
        T::take(self)
    }

    /// A list's length, if so many items can follow.
    pub(super) fn count(&mut self, item_min_bytes: usize) -> Result<usize, Fault> {
        let count = u32::take(self)? as usize;
        if count > self.0.len() / item_min_bytes { Err(Fault::Truncated) } else { Ok(count) }
    }

    /// So many bytes as the u32 in front of them says.
    pub(super) fn counted_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let count = self.count(1)?;
        self.bytes(count)
    }

    /// A text of at most 255 bytes.
    pub(super) fn short_text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        let count = u8::take(self)?;
        std::str::from_utf8(self.bytes(count.into())?).map_err(|_| Fault::Invalid(field))
    }
}

/// A list's length or a number of bytes. More than a u32 holds is far beyond every limit, and is refused as too long later.
pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

pub(super) fn put_counted_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

pub(super) fn put_list<T: Value>(out: &mut BytesMut, items: &[T]) {
    put_count(out, items.len());
    items.iter().for_each(|item| item.put(out));
}

/// A text that its type bounds to 255 bytes.
pub(super) fn put_short_text(out: &mut BytesMut, text: &str) {
    out.put_u8(u8::try_from(text.len()).expect("names, zones and refusals are shorter than 256 bytes"));
    out.put_slice(text.as_bytes());
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            const MIN_BYTES: usize = size_of::<$number>();

            fn put(&self, out: &mut BytesMut) {
                out.put_slice(&self.to_be_bytes());
            }

            fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
                body.array().map(Self::from_be_bytes)
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, u128);

impl Value for bool {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8((*self).into());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        match u8::take(body)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::Invalid("flag")),
        }
    }
}

impl<T: Value> Value for Option<T> {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        if bool::take(body)? { T::take(body).map(Some) } else { Ok(None) }
    }
}

impl<T: Value> Value for Vec<T> {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut BytesMut) {
        put_list(out, self);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let count = body.count(T::MIN_BYTES)?;
        let mut items = Self::with_capacity(count);
        for _ in 0..count {
            items.push(T::take(body)?);
        }
        Ok(items)
    }
}

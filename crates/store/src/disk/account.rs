//! The account of a store's own bytes, against its limits.
//!
//! State: the bytes held, the bytes about to be written, and how far the last look at the file system still holds.
//! Invariants: bytes held and reserved never exceed the quota; a reservation ends with its value, whatever came of the write.
//! Absent on purpose: which blob has which bytes.

use std::io;
use std::sync::Mutex;

use super::lock;
use crate::limits::Space;
use crate::{Limits, Shortage, StoreError};

/// Bytes written between two looks at the file system, at most. It takes microseconds to look; 16 MiB are 0.02 % of an 80 GiB disk.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Account {
    limits: Limits,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    held: u64,
    reserved: u64,
    /// Bytes that may be reserved before the next look.
    until_look: u64,
}

impl Account {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, books: Mutex::default() }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn held(&self) -> u64 {
        lock(&self.books).held
    }

    /// A blob's bytes have become others.
    pub(super) fn change(&self, before: u64, after: u64) {
        let mut books = lock(&self.books);
        books.held = (books.held + after).saturating_sub(before);
    }

    /// Room for bytes that are about to be written. `look` at the file system is taken when it is time.
    pub(super) fn reserve(
        &self,
        bytes: u64,
        look: impl FnOnce() -> io::Result<Space>,
    ) -> Result<Reservation<'_>, StoreError> {
        let mut books = lock(&self.books);
        let space = if books.until_look >= bytes {
            None
        } else {
            Some(look().map_err(StoreError::io("see how full its disk is"))?)
        };
        if let Some((shortage, lacking_bytes)) = self.excess(&books, space, bytes) {
            return Err(StoreError::Full { shortage, lacking_bytes });
        }
        if let Some(space) = space {
            let floor = self.limits.keep_free.of(space.total_bytes);
            let above = space.available_bytes.saturating_sub(floor.saturating_add(books.reserved));
            // Half of what is left: the closer the floor, the more often, because others write to the disk as well.
            books.until_look = bytes.max(LOOK_EVERY_BYTES.min(above / 2));
        }
        books.until_look -= bytes;
        books.reserved += bytes;
        Ok(Reservation { account: self, bytes })
    }

    /// What hinders `bytes` more, and how many have to go before they fit.
    pub(super) fn lacking(&self, bytes: u64, space: Space) -> Option<(Shortage, u64)> {
        self.excess(&lock(&self.books), Some(space), bytes)
    }

    fn excess(&self, books: &Books, space: Option<Space>, bytes: u64) -> Option<(Shortage, u64)> {
        self.limits.shortage(books.held, space, books.reserved.saturating_add(bytes))
    }
}

/// Room that is kept until the bytes are written and counted, or have failed.
#[derive(Debug)]
#[must_use = "the room is given back when this is dropped"]
pub(super) struct Reservation<'a> {
    account: &'a Account,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        lock(&self.account.books).reserved -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Percent;

    const MIB: u64 = 1 << 20;

    fn space(available_bytes: u64) -> io::Result<Space> {
        Ok(Space { total_bytes: 1000 * MIB, available_bytes })
    }

    #[test]
    fn what_is_reserved_counts_until_it_is_given_back() {
        let account = Account::new(Limits { keep_free: Percent::ZERO, ..Limits::new(100) });
        let first = account.reserve(60, || space(MIB)).unwrap();
        let refused = account.reserve(60, || space(MIB)).unwrap_err();
        assert!(matches!(refused, StoreError::Full { shortage: Shortage::Quota, lacking_bytes: 20 }));
        drop(first);
        account.change(0, 50);
        let _second = account.reserve(50, || space(MIB)).unwrap();
        account.change(50, 0);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn the_file_system_is_looked_at_more_often_the_fuller_it_is() {
        let looks = |available: u64| {
            let account = Account::new(Limits::new(u64::MAX));
            let looks = std::cell::Cell::new(0_u32);
            for _ in 0..32 {
                let look = || {
                    looks.set(looks.get() + 1);
                    space(available)
                };
                drop(account.reserve(MIB, look).unwrap());
            }
            looks.get()
        };
        assert_eq!(looks(900 * MIB), 2);
        assert_eq!(looks(258 * MIB), 8);
        assert_eq!(looks(252 * MIB), 32);
        let account = Account::new(Limits::new(u64::MAX));
        let refused = account.reserve(MIB, || space(250 * MIB)).unwrap_err();
        assert!(matches!(refused, StoreError::Full { shortage: Shortage::KeepFree, lacking_bytes: MIB }));
    }
}

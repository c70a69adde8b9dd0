//! How much a store may hold.
//!
//! State: none.
//! Invariants: what [`Limits::shortage`] allows breaks neither the quota nor the file system's free part.
//! Absent on purpose: what to evict; see `eviction`.

use crate::Shortage;

/// How much a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Its own bytes: allocated ones, with the journals.
    pub quota_bytes: u64,
    /// How much of the file system stays free, whoever fills it.
    pub keep_free: Percent,
    /// How many blobs it keeps track of.
    pub max_blobs: usize,
}

impl Limits {
    /// The kubelet collects images from 85 % used on, down to 80 % (RUNTIMES.md 23): at 75 % others still have a twentieth of the disk
    /// before it deletes on our account.
    pub const KEEP_FREE: Percent = Percent(25);
    /// A blob of 2,048 chunks costs 1 KiB of memory, and two inodes: 16 MiB for all.
    pub const MAX_BLOBS: usize = 16 << 10;

    /// The usual limits with this quota.
    #[must_use]
    pub const fn new(quota_bytes: u64) -> Self {
        Self { quota_bytes, keep_free: Self::KEEP_FREE, max_blobs: Self::MAX_BLOBS }
    }

    /// What hinders `wanted` more bytes, and by how many bytes; none if they fit. Without a `space`, there is only the quota.
    pub(crate) fn shortage(&self, used: u64, space: Option<Space>, wanted: u64) -> Option<(Shortage, u64)> {
        let over_quota = used.saturating_add(wanted).saturating_sub(self.quota_bytes);
        let over_free = space.map_or(0, |space| {
            let floor = self.keep_free.of(space.total_bytes);
            wanted.saturating_add(floor).saturating_sub(space.available_bytes)
        });
        match (over_quota, over_free) {
            (0, 0) => None,
            (over, free) if over >= free => Some((Shortage::Quota, over)),
            (_, free) => Some((Shortage::KeepFree, free)),
        }
    }
}

/// A file system's size, and what is left of it for this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
}

/// A part of a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many parts of a hundred; none if more than 100.
    #[must_use]
    pub const fn new(percent: u8) -> Option<Self> {
        if percent <= 100 { Some(Self(percent)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    pub(crate) const fn of(self, whole: u64) -> u64 {
        // Divided first, so that no file system's size overflows; 99 bytes too few.
        whole / 100 * self.0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_what_lacks_most() {
        let limits = Limits { keep_free: Percent::new(25).unwrap(), ..Limits::new(1_000) };
        let space = |total_bytes, available_bytes| Some(Space { total_bytes, available_bytes });
        let cases = [
            (0, None, 1_000, None),
            (900, None, 100, None),
            (900, None, 101, Some((Shortage::Quota, 1))),
            (0, None, u64::MAX, Some((Shortage::Quota, u64::MAX - 1_000))),
            (0, space(10_000, 2_600), 100, None),
            (0, space(10_000, 2_599), 100, Some((Shortage::KeepFree, 1))),
            (0, space(10_000, 0), 0, Some((Shortage::KeepFree, 2_500))),
            (950, space(10_000, 2_500), 100, Some((Shortage::KeepFree, 100))),
            (1_000, space(10_000, 2_599), 100, Some((Shortage::Quota, 100))),
        ];
        for (used, space, wanted, expected) in cases {
            assert_eq!(limits.shortage(used, space, wanted), expected, "{used} used, {space:?}, {wanted} wanted");
        }
    }

    #[test]
    fn a_percentage_is_at_most_a_hundred() {
        assert_eq!(Percent::new(101), None);
        assert_eq!(Percent::new(100).unwrap().of(12_345), 12_300);
        assert_eq!(Percent::new(100).unwrap().of(u64::MAX), u64::MAX / 100 * 100);
    }
}

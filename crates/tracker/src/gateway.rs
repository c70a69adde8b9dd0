//! One gateway per zone and blob: the member through which a zone gets a blob that comes from another zone.
//!
//! State: the zone that the blob comes from, and each other zone's gateway with the last progress that it showed.
//! Invariants: the home zone has no gateway; a gateway is a live member of its zone.
//! Absent on purpose: choosing among members and telling them (`zones.rs`); when a zone's other members go around a gateway that
//! is slow (that is the engine's: it knows within milliseconds).

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_types::Time;

use crate::pool::ZoneIx;
use crate::slab::Slot;

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) member: Slot,
    progressed_at: Time,
    /// When it was last found to be no slower than the others.
    excused_at: Time,
    mark: u64,
}

impl Gateway {
    fn due_at(&self, silence: Duration) -> Time {
        self.progressed_at.max(self.excused_at) + silence
    }
}

#[derive(Debug, Default)]
pub(crate) struct Gateways {
    pub(crate) home: Option<ZoneIx>,
    by_zone: BTreeMap<ZoneIx, Gateway>,
}

impl Gateways {
    pub(crate) fn of(&self, zone: ZoneIx) -> Option<Slot> {
        Some(self.by_zone.get(&zone)?.member)
    }

    pub(crate) fn name(&mut self, now: Time, zone: ZoneIx, member: Slot, mark: u64) {
        self.by_zone.insert(zone, Gateway { member, progressed_at: now, excused_at: now, mark });
    }

    pub(crate) fn remove(&mut self, zone: ZoneIx) {
        self.by_zone.remove(&zone);
    }

    pub(crate) fn zones(&self) -> impl Iterator<Item = ZoneIx> + '_ {
        self.by_zone.keys().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ZoneIx, &Gateway)> + '_ {
        self.by_zone.iter().map(|(zone, gateway)| (*zone, gateway))
    }

    /// A member of the zone has announced how much it has got: if it is the gateway, that may be progress.
    pub(crate) fn note(&mut self, now: Time, zone: ZoneIx, member: Slot, mark: u64) {
        if let Some(gateway) = self.by_zone.get_mut(&zone).filter(|gateway| gateway.member == member)
            && mark > gateway.mark
        {
            gateway.mark = mark;
            gateway.progressed_at = now;
        }
    }

    /// When a gateway may have stalled next; [`Time::MAX`] if there is none.
    pub(crate) fn deadline(&self, silence: Duration) -> Time {
        self.by_zone.values().map(|gateway| gateway.due_at(silence)).min().unwrap_or(Time::MAX)
    }

    /// Gateways that have got nothing for a while, though others have meanwhile. The rest of those that are due are excused:
    /// nobody gets anything, so another one wouldn't either.
    pub(crate) fn stalled(&mut self, now: Time, others_progressed_at: Time, silence: Duration) -> Vec<(ZoneIx, Slot)> {
        let mut stalled = Vec::new();
        for (zone, gateway) in self.by_zone.iter_mut().filter(|(_, gateway)| gateway.due_at(silence) <= now) {
            if others_progressed_at > gateway.progressed_at + silence / 2 {
                stalled.push((*zone, gateway.member));
            }
            gateway.excused_at = now;
        }
        stalled
    }
}

//! Choosing the gateways: one member per zone and blob through which the zone gets what comes from another one.
//!
//! State: none of its own; it keeps each blob's [`crate::gateway::Gateways`] right.
//! Invariants: after [`Tracker::settle_gateways`] each zone with live members has a gateway, except the home zone and zones with a
//! whole copy of their own; all of a zone's live members have been told, or are told by the reply that is being made.
//! Absent on purpose: trust. A gateway that gets nothing is replaced, and its zone goes around it meanwhile.

use shoal_types::Time;
use shoal_wire::Directive;

use crate::lease::Lead;
use crate::pool::{Draw, ZoneIx};
use crate::slab::{BlobIx, Slot};
use crate::tracker::Tracker;

impl Tracker {
    /// Names gateways where they are missing and drops those that are not needed. `asker` hears of it by the reply to its announce.
    pub(crate) fn settle_gateways(&mut self, now: Time, blob: BlobIx, asker: Option<Slot>) {
        let quorum = self.config.quorum;
        let entry = &mut self.blobs[blob];
        entry.gateways.home = match &entry.leases.lead {
            Lead::Held(lease) => Some(entry.members[lease.holder].zone),
            // Between two leads the blob stays at home where it was, as long as anybody is there.
            _ => entry
                .gateways
                .home
                .filter(|home| entry.live.len_in(*home) > 0)
                .or_else(|| entry.first_zone_with_claims()),
        };
        let home = entry.gateways.home;
        let needs_one = |zone: ZoneIx| home.is_some_and(|home| home != zone) && entry.live.len_in(zone) > 0;
        let needs_one = |zone: ZoneIx| needs_one(zone) && !entry.zone_has_whole_copy(zone, quorum);
        let superfluous: Vec<ZoneIx> = entry.gateways.zones().filter(|zone| !needs_one(*zone)).collect();
        let zones = entry.live.zones();
        let missing: Vec<ZoneIx> =
            zones.filter(|zone| needs_one(*zone) && entry.gateways.of(*zone).is_none()).collect();
        superfluous.into_iter().for_each(|zone| entry.gateways.remove(zone));
        for zone in missing {
            let asking = asker.filter(|slot| self.blobs[blob].members[*slot].zone == zone);
            if let Some(gateway) = asking.or_else(|| self.choose_gateway(blob, zone, None)) {
                self.name_gateway(now, blob, zone, gateway, asker);
            }
        }
    }

    /// Replaces the gateways that get nothing while others do.
    pub(crate) fn replace_stalled_gateways(&mut self, now: Time, blob: BlobIx) {
        let silence = self.config.membership.gateway_silence;
        let entry = &mut self.blobs[blob];
        let progressed_at = entry.progressed_at;
        let stalled = entry.gateways.stalled(now, progressed_at, silence);
        for (zone, old) in stalled {
            // One that claims to have everything gets no further.
            if !self.blobs[blob].members[old].claims()
                && let Some(gateway) = self.choose_gateway(blob, zone, Some(old))
            {
                self.name_gateway(now, blob, zone, gateway, None);
            }
        }
    }

    fn name_gateway(&mut self, now: Time, blob: BlobIx, zone: ZoneIx, gateway: Slot, asker: Option<Slot>) {
        let entry = &mut self.blobs[blob];
        let named = &entry.members[gateway];
        entry.gateways.name(now, zone, gateway, named.progress());
        let directive = Directive::Gateway { key: entry.info.key(), node: named.id };
        for slot in entry.live.items_in(zone).iter().filter(|slot| Some(**slot) != asker) {
            self.outbox.push(entry.members[*slot].id, directive.clone());
        }
        self.arm_blob(now, blob);
    }

    /// The member that has most of some drawn at random. One that claims to have everything is the last choice: if that is true, the
    /// gateway finds it in its own zone.
    fn choose_gateway(&mut self, blob: BlobIx, zone: ZoneIx, except: Option<Slot>) -> Option<Slot> {
        let entry = &mut self.blobs[blob];
        let want = self.config.lease.successors_sampled.min(entry.live.len_in(zone));
        let drawn = entry.live.draw(&mut self.rng, Draw { home: zone, want, others: 0, except });
        let candidates = drawn.into_iter().filter(|slot| entry.members[*slot].zone == zone);
        candidates.max_by_key(|slot| (!entry.members[*slot].claims(), entry.members[*slot].chunks()))
    }
}

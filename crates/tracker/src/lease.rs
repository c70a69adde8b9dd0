//! The lease to fetch a blob from its origin: who holds it, and why nobody does.
//!
//! A blob's lead is in exactly one state:
//!
//! ```text
//!            an announcer is willing, and nothing speaks for waiting
//!   Vacant ─────────────────────────────────────────────────────────> Held
//!    │  ^                                                             │ │ │
//!    │  └── completed; lost, and nobody is there to succeed ──────────┘ │ └─ lost: a successor ──> Held
//!    │                                                                  │
//!    ├── someone may show up ──> Waiting <── lost in vain, repeatedly ──┤
//!    │                              └─ time over: a successor ──> Held  │
//!    └── time over ── Refused <── the origin says when to come again ───┘
//! ```
//!
//! State: the lead's lease or the reason why there is none; leases out of impatience; the last epoch; what the origin said; who has had
//! wrong chunks from the last lead.
//! Invariants: one lead at most; epochs only grow, by one with each grant; a list of former holders and of denials is bounded.
//! Absent on purpose: choosing who gets it (that takes the members: `leasing.rs`).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use shoal_types::{NodeId, Time};
use shoal_wire::OriginFailure;

use crate::config::LeaseConfig;
use crate::slab::Slot;

/// Former holders remembered, so that what they sent before they heard of it isn't taken for an attack. One that takes longer than
/// so many successions to hear of it has been away.
const MAX_FORMER: usize = 16;

/// An epoch that a holder from before this tracker's time may claim: high enough for any driver, low enough to count on from.
const MAX_CLAIMED_EPOCH: u64 = 1 << 62;

/// A lead gives nothing if less than an eighth of what came to it has reached anybody: leads say the same of themselves.
const UNSPREAD_SHARE: u32 = 8;

/// Where all uplinks are slow beside the origin, a lead that gives hardly anything may be as good as any. Less than this share is nothing.
const HARDLY_ANY: u32 = 32;

/// Who leads.
#[derive(Debug)]
pub(crate) enum Lead {
    /// Nobody: no need, or nobody willing has been found. The next willing announcer gets it.
    Vacant,
    /// Nobody, until this time is over.
    Waiting { until: Time, why: Wait },
    /// The origin refuses.
    Refused { failure: OriginFailure, until: Time },
    /// This one.
    Held(Lease),
}

/// Why nobody is named for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Who asked leads another blob: someone else may want it too.
    Spread,
    /// The blob is from before this tracker's time: its lead may announce itself.
    Settle,
    /// Somebody claims to have all of it.
    Claims,
    /// Leases ended in vain.
    BackOff,
}

/// A lease in force.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) holder: Slot,
    pub(crate) epoch: u64,
    /// Where its holder was told to go on.
    pub(crate) frontier: u32,
    heard_at: Time,
    progressed_at: Time,
    progressed: bool,
    mark: Mark,
    backlog: u32,
    growth: u32,
    /// When the backlog was first seen to grow, and the frontier and the backlog before that.
    grows_since: Time,
    grows_from: (u32, u32),
    /// How long it may say nothing, and get nothing: fixed when it is granted, so that a lease's deadline only moves on.
    silence: Duration,
    stall: Duration,
}

/// How far a holder says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) frontier: u32,
    pub(crate) chunks: u32,
    pub(crate) bytes: u64,
}

impl Lease {
    /// Whether its holder says nothing any more.
    pub(crate) fn is_silent(&self, now: Time) -> bool {
        self.heard_at + self.silence <= now
    }

    /// Whether its holder reports and gets nowhere. One that has reached the end waits for what others have.
    pub(crate) fn is_stalled(&self, now: Time, chunks: u32) -> bool {
        self.mark.frontier < chunks && self.progressed_at + self.stall <= now
    }

    fn deadline(&self, chunks: u32) -> Time {
        let silent = self.heard_at + self.silence;
        if self.mark.frontier < chunks { silent.min(self.progressed_at + self.stall) } else { silent }
    }

    /// The holder has announced something, whatever it was.
    pub(crate) fn hear(&mut self, now: Time, chunks: u32, bytes: u64) {
        self.heard_at = now;
        self.reach(now, Mark { frontier: self.mark.frontier, chunks, bytes });
    }

    /// The holder reports how it gets on.
    pub(crate) fn report(&mut self, now: Time, frontier: u32, backlog: u32) {
        self.reach(now, Mark { frontier, ..self.mark });
        if backlog > self.backlog {
            if self.growth == 0 {
                self.grows_since = now;
            }
            self.growth += 1;
        } else {
            (self.growth, self.grows_from) = (0, (self.mark.frontier, backlog));
        }
        self.backlog = backlog;
    }

    fn reach(&mut self, now: Time, mark: Mark) {
        let further =
            mark.frontier > self.mark.frontier || mark.chunks > self.mark.chunks || mark.bytes > self.mark.bytes;
        if further {
            self.progressed_at = now;
            self.progressed = true;
        }
        self.mark = Mark {
            frontier: mark.frontier.max(self.mark.frontier),
            chunks: mark.chunks.max(self.mark.chunks),
            bytes: mark.bytes.max(self.mark.bytes),
        };
    }
}

/// Who gets a lease, and from where on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grantee {
    pub(crate) holder: Slot,
    pub(crate) node: NodeId,
    pub(crate) frontier: u32,
    pub(crate) mark: Mark,
}

/// How a lease comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its holder has the whole blob.
    Completed,
    /// Its holder left, or is banned.
    Left,
    /// Its holder said nothing any more.
    Silent,
    /// Its holder got nothing any more.
    Stalled,
    /// Its holder's chunks pile up.
    Backlog,
    /// Its holder gave it back.
    Yielded,
    /// The origin refused.
    Failed(OriginFailure),
    /// Its links are no longer believed.
    Distrusted,
}

impl End {
    /// The name for counters: one of a closed set.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Backlog => "backlog",
            Self::Yielded => "yielded",
            Self::Failed(_) => "failed",
            Self::Distrusted => "distrusted",
        }
    }

    /// Whether the holder was at fault, or unlucky: others go first for a while.
    pub(crate) const fn passes_holder(self) -> bool {
        matches!(self, Self::Stalled | Self::Backlog | Self::Yielded | Self::Failed(_) | Self::Distrusted)
    }

    /// Whether the holder has to be told.
    pub(crate) const fn is_news_to_holder(self) -> bool {
        matches!(self, Self::Silent | Self::Stalled | Self::Backlog | Self::Distrusted)
    }
}

/// Everything about a blob's leases.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    pub(crate) lead: Lead,
    pub(crate) impatient: Vec<Lease>,
    last_epoch: u64,
    /// Epochs that this tracker may have granted for this blob before it forgot it: after the first number, up to the second.
    own_epochs: (u64, u64),
    /// Whether this tracker has ever named or accepted a lead of this blob.
    used: bool,
    /// Whether others' claims of completion are no reason to wait any more: a lead was lost, or they were waited for in vain.
    pub(crate) doubts_claims: bool,
    former: VecDeque<(NodeId, u64)>,
    /// The last lead, even if its lease is over, and who has got a chunk from it that doesn't fit the links that it signed.
    last_lead: Option<(NodeId, u64)>,
    witnesses: BTreeSet<NodeId>,
    /// Leases in a row that ended without any progress.
    in_vain: u32,
    /// Leases that ended in a stall since the last one that completed: perhaps the origin is that slow.
    stalls: u32,
    /// Leads that were too slow, by the tracker's word or their own: the first one makes the next one harder to take away, and after the
    /// second it isn't their uplinks, it is all of them, but where next to nothing gets around.
    too_slow: u32,
    /// Leads that met a 401 or 404.
    denied: Vec<NodeId>,
}

impl LeaseBook {
    /// The tracker's epochs start after `first`, and this blob's after `last`.
    pub(crate) const fn new(first: u64, last: u64) -> Self {
        Self {
            lead: Lead::Vacant,
            impatient: Vec::new(),
            last_epoch: last,
            own_epochs: (first, last),
            used: false,
            doubts_claims: false,
            former: VecDeque::new(),
            last_lead: None,
            witnesses: BTreeSet::new(),
            in_vain: 0,
            stalls: 0,
            too_slow: 0,
            denied: Vec::new(),
        }
    }

    pub(crate) const fn last_epoch(&self) -> u64 {
        self.last_epoch
    }

    pub(crate) const fn is_used(&self) -> bool {
        self.used
    }

    pub(crate) const fn held(&self) -> Option<&Lease> {
        match &self.lead {
            Lead::Held(lease) => Some(lease),
            _ => None,
        }
    }

    pub(crate) const fn waits_for_claims(&self) -> bool {
        matches!(self.lead, Lead::Waiting { why: Wait::Claims, .. })
    }

    /// The lead's lease, if this member holds it.
    pub(crate) fn held_by(&mut self, member: Slot) -> Option<&mut Lease> {
        match &mut self.lead {
            Lead::Held(lease) if lease.holder == member => Some(lease),
            _ => None,
        }
    }

    pub(crate) fn impatient_of(&mut self, member: Slot) -> Option<&mut Lease> {
        self.impatient.iter_mut().find(|lease| lease.holder == member)
    }

    /// Names a lead. The caller has seen to it that there is none.
    pub(crate) fn grant(&mut self, now: Time, to: Grantee, config: &LeaseConfig) {
        let lease = self.next_lease(now, to, config);
        self.lead_with(to.node, lease);
    }

    pub(crate) fn grant_impatient(&mut self, now: Time, to: Grantee, config: &LeaseConfig) {
        let lease = self.next_lease(now, to, config);
        self.impatient.push(lease);
    }

    /// Whether a node that says it holds a lease may be believed: it comes from before this tracker's time.
    pub(crate) const fn may_adopt(&self, epoch: u64) -> bool {
        let vacant = matches!(self.lead, Lead::Vacant | Lead::Waiting { .. });
        let foreign = epoch <= self.own_epochs.0 || epoch > self.own_epochs.1;
        // No tracker has ever granted epoch 0.
        !self.used && vacant && foreign && epoch > 0 && epoch <= MAX_CLAIMED_EPOCH
    }

    pub(crate) fn adopt(&mut self, now: Time, to: Grantee, epoch: u64, config: &LeaseConfig) {
        debug_assert!(self.may_adopt(epoch), "the caller has asked");
        self.last_epoch = self.last_epoch.max(epoch);
        let lease = self.lease(now, to, epoch, config);
        self.lead_with(to.node, lease);
    }

    fn lead_with(&mut self, holder: NodeId, lease: Lease) {
        self.last_lead = Some((holder, lease.epoch));
        self.witnesses.clear();
        self.lead = Lead::Held(lease);
    }

    /// Counts a witness against the lead of this epoch. Gives the lead and how many there are; nothing if another one has led since, or nobody
    /// but itself says so.
    pub(crate) fn testify(&mut self, witness: NodeId, epoch: u64) -> Option<(NodeId, usize)> {
        let (lead, _) = self.last_lead.filter(|(lead, led)| *led == epoch && *lead != witness)?;
        self.witnesses.insert(witness);
        Some((lead, self.witnesses.len()))
    }

    /// Ends the lead's lease and says what is next: a successor at once (Vacant), later, or none.
    pub(crate) fn end(&mut self, now: Time, node: NodeId, end: End, config: &LeaseConfig) -> Lease {
        let Lead::Held(lease) = std::mem::replace(&mut self.lead, Lead::Vacant) else {
            panic!("a lease ends while it is held");
        };
        if lease.progressed {
            self.in_vain = 0;
            self.denied.clear(); // The origin has delivered: what it refused earlier is history.
        }
        self.doubts_claims = end != End::Completed;
        match end {
            End::Completed => self.stalls = 0,
            End::Left | End::Distrusted => {}
            End::Backlog => self.too_slow += 1,
            End::Silent => self.back_off(now, &lease, config),
            End::Yielded => {
                self.too_slow += 1;
                self.back_off(now, &lease, config);
            }
            End::Stalled => {
                self.stalls += 1;
                self.back_off(now, &lease, config);
            }
            End::Failed(failure) => {
                self.back_off(now, &lease, config);
                self.note_failure(now, node, failure, config);
            }
        }
        lease
    }

    fn back_off(&mut self, now: Time, lease: &Lease, config: &LeaseConfig) {
        self.in_vain = if lease.progressed { 0 } else { self.in_vain.saturating_add(1) };
        if let Some(doublings) = self.in_vain.checked_sub(2) {
            let until = now + doubled(config.backoff_min, doublings, config.backoff_max);
            self.lead = Lead::Waiting { until, why: Wait::BackOff };
        }
    }

    fn note_failure(&mut self, now: Time, node: NodeId, failure: OriginFailure, config: &LeaseConfig) {
        match failure {
            OriginFailure::Unreachable => {}
            OriginFailure::Busy { retry_after } => {
                self.lead = Lead::Refused { failure, until: now + retry_after.min(config.max_retry_after) };
            }
            OriginFailure::Unauthorized | OriginFailure::NotFound => {
                if !self.denied.contains(&node) {
                    self.denied.push(node);
                }
                if self.denied.len() >= 2 {
                    self.denied.clear();
                    self.lead = Lead::Refused { failure, until: now + config.refusal_for };
                }
            }
        }
    }

    /// Whether a node held the lease of this epoch.
    pub(crate) fn was_held(&self, node: NodeId, epoch: u64) -> bool {
        self.former.contains(&(node, epoch))
    }

    pub(crate) fn is_too_slow(&self, now: Time, lease: &Lease, config: &LeaseConfig) -> bool {
        let (frontier, backlog) = lease.grows_from;
        let (came, stayed) = (lease.mark.frontier.saturating_sub(frontier), lease.backlog.saturating_sub(backlog));
        // Another one may be as slow; but from one that gives nothing nothing spreads.
        let reports = match self.too_slow {
            1 if gives(came, stayed) => config.backlog_reports * 2,
            0 | 1 => config.backlog_reports,
            _ if stayed >= came - came / HARDLY_ANY => config.backlog_reports,
            _ => return false,
        };
        // Less is noise, or an uplink that others' aren't faster than: a change costs the connection's pace.
        let for_long = lease.growth >= reports && now.since(lease.grows_since) >= config.backlog_for;
        for_long && stayed >= config.backlog_chunks && stayed.saturating_mul(2) > came
    }

    /// When to look again at a blob of so many chunks; [`Time::MAX`] if nothing is due.
    pub(crate) fn deadline(&self, chunks: u32) -> Time {
        let lead = match &self.lead {
            Lead::Vacant => Time::MAX,
            Lead::Waiting { until, .. } | Lead::Refused { until, .. } => *until,
            Lead::Held(lease) => lease.deadline(chunks),
        };
        self.impatient.iter().map(|lease| lease.deadline(chunks)).fold(lead, Time::min)
    }

    fn next_lease(&mut self, now: Time, to: Grantee, config: &LeaseConfig) -> Lease {
        self.last_epoch += 1;
        self.lease(now, to, self.last_epoch, config)
    }

    fn lease(&mut self, now: Time, to: Grantee, epoch: u64, config: &LeaseConfig) -> Lease {
        self.used = true;
        self.former.push_back((to.node, epoch));
        if self.former.len() > MAX_FORMER {
            self.former.pop_front();
        }
        Lease {
            holder: to.holder,
            epoch,
            frontier: to.frontier,
            heard_at: now,
            progressed_at: now,
            progressed: false,
            mark: to.mark,
            backlog: 0,
            growth: 0,
            grows_since: now,
            grows_from: (to.mark.frontier.max(to.frontier), 0),
            silence: config.silence,
            stall: doubled(config.stall, self.stalls, config.max_stall),
        }
    }

    pub(crate) fn check_invariants(&self, config: &LeaseConfig) {
        assert!(self.impatient.len() <= config.max_impatient, "impatience is bounded");
        assert!(self.former.len() <= MAX_FORMER && self.denied.len() < 2, "memories are bounded");
        for lease in self.held().into_iter().chain(&self.impatient) {
            assert!(lease.epoch <= self.last_epoch, "an epoch that was granted");
        }
    }
}

fn doubled(base: Duration, times: u32, limit: Duration) -> Duration {
    base.saturating_mul(1 << times.min(20)).min(limit)
}

/// Whether a lead gives anything: of so many chunks that came to it so many have reached nobody.
pub(crate) const fn gives(came: u32, stayed: u32) -> bool {
    stayed == 0 || stayed < came - came / UNSPREAD_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Key as _;

    const NODE: NodeId = NodeId::new(7);

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn grantee(node: NodeId) -> Grantee {
        Grantee { holder: Slot::new(0), node, frontier: 0, mark: Mark::default() }
    }

    fn hold(book: &mut LeaseBook, now: Time, node: NodeId) -> u64 {
        book.grant(now, grantee(node), &LeaseConfig::default());
        book.last_epoch()
    }

    #[test]
    fn leases_in_vain_make_the_next_one_wait_and_progress_forgives() {
        let config = LeaseConfig::default();
        let mut book = LeaseBook::new(0, 0);
        let mut waits = Vec::new();
        for round in 0..10 {
            let now = at(round * 10_000);
            assert_eq!(hold(&mut book, now, NODE), round + 1);
            book.end(now, NODE, End::Failed(OriginFailure::Unreachable), &config);
            waits.push(match book.lead {
                Lead::Waiting { until, why: Wait::BackOff } => until.since(now).as_millis(),
                _ => 0,
            });
        }
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        hold(&mut book, at(0), NODE);
        book.held_by(Slot::new(0)).unwrap().report(at(1), 1, 0);
        book.end(at(2), NODE, End::Silent, &config);
        assert!(matches!(book.lead, Lead::Vacant));
    }

    #[test]
    fn one_denial_is_a_holders_word_and_two_are_the_origins() {
        let config = LeaseConfig::default();
        let mut book = LeaseBook::new(0, 0);
        let denial = End::Failed(OriginFailure::NotFound);
        for node in [NODE, NODE] {
            hold(&mut book, at(0), node);
            book.end(at(0), node, denial, &config);
            assert!(!matches!(book.lead, Lead::Refused { .. }));
        }
        hold(&mut book, at(5), NodeId::new(8));
        book.end(at(5), NodeId::new(8), denial, &config);
        assert!(matches!(book.lead, Lead::Refused { until, .. } if until == at(5) + config.refusal_for));
    }

    #[test]
    fn retry_after_is_remembered_at_once_and_capped() {
        let config = LeaseConfig::default();
        for (said, kept) in [(2, 2), (100_000, 300)] {
            let mut book = LeaseBook::new(0, 0);
            hold(&mut book, at(0), NODE);
            let retry_after = Duration::from_secs(said);
            book.end(at(0), NODE, End::Failed(OriginFailure::Busy { retry_after }), &config);
            assert!(matches!(book.lead, Lead::Refused { until, .. } if until == at(kept * 1_000)));
        }
    }

    #[test]
    fn a_slow_origin_is_no_stall_and_a_stall_is_judged_more_patiently_each_time() {
        let config = LeaseConfig::default();
        let mut book = LeaseBook::new(0, 0);
        hold(&mut book, at(0), NODE);
        for step in 1..20 {
            let lease = book.held_by(Slot::new(0)).unwrap();
            lease.hear(at(step * 700), 0, step);
            let lease = book.held().unwrap();
            assert!(!lease.is_stalled(at(step * 700 + 700), 10));
        }
        let lease = book.held().unwrap();
        assert!(lease.is_stalled(at(19 * 700 + 1_500), 10) && !lease.is_stalled(at(99_999), 0));
        let mut limits = Vec::new();
        for _ in 0..7 {
            limits.push(book.held().unwrap().stall.as_millis());
            book.end(at(0), NODE, End::Stalled, &config);
            hold(&mut book, at(0), NODE);
        }
        assert_eq!(limits, [1_500, 3_000, 6_000, 12_000, 12_000, 12_000, 12_000]);
    }

    #[test]
    fn a_backlog_that_keeps_growing_by_most_of_what_comes_is_told_from_others() {
        let config = LeaseConfig::default();
        let cases: [(&[(u32, u32)], bool); 7] = [
            (&[(50, 40), (60, 40), (70, 40), (80, 40), (90, 40)], false),
            (&[(12, 10), (24, 20), (36, 30), (48, 40)], true),
            (&[(20, 10), (40, 20), (60, 30), (80, 40)], false),
            (&[(10, 1), (11, 2), (12, 3), (13, 4), (14, 5)], false),
            // Long from before, and a little noise.
            (&[(90, 50), (100, 40), (102, 42), (104, 44), (106, 46), (108, 48)], false),
            (&[(12, 10), (24, 20), (36, 30), (48, 29), (60, 40), (72, 50)], false),
            // From when it began to grow, not from the beginning.
            (&[(500, 1), (500, 0), (512, 10), (524, 20), (536, 30), (548, 40)], true),
        ];
        for (reports, too_slow) in cases {
            let mut book = LeaseBook::new(0, 0);
            hold(&mut book, at(0), NODE);
            for (frontier, backlog) in reports {
                book.held_by(Slot::new(0)).unwrap().report(at(1), *frontier, *backlog);
            }
            let judged = |now| book.is_too_slow(now, book.held().unwrap(), &config);
            assert_eq!(judged(at(1) + config.backlog_for), too_slow, "{reports:?}");
            assert!(
                !judged(at(1)),
                "the links of a fast origin's chunks are told many times before any chunk has got far"
            );
        }
    }

    #[test]
    fn leads_that_give_something_are_changed_twice_and_one_that_gives_nothing_always() {
        let config = LeaseConfig::default();
        let (slow, yields) = (End::Backlog, End::Yielded);
        let cases: [(&[End], u32, u32, bool); 7] = [
            (&[], 4, 4, true),
            (&[slow], 4, 0, true),
            (&[slow], 4, 4, false),
            (&[yields], 7, 4, false),
            (&[slow], 8, 4, true),
            (&[slow, yields], 50, 1, false),
            (&[slow, slow, slow], 4, 0, true),
        ];
        for (before, reports, spreads, too_slow) in cases {
            let mut book = LeaseBook::new(0, 0);
            hold(&mut book, at(0), NODE);
            for end in before {
                book.end(at(0), NODE, *end, &config);
                hold(&mut book, at(0), NODE);
            }
            for report in 1..=reports {
                book.held_by(Slot::new(0)).unwrap().report(at(1), 20 * report, (20 - spreads) * report);
            }
            let judged = book.is_too_slow(at(1) + config.backlog_for, book.held().unwrap(), &config);
            assert_eq!(judged, too_slow, "after {before:?}, {reports} reports, {spreads} of 20 spread");
        }
    }

    #[test]
    fn a_lead_from_before_is_adopted_once() {
        let mut book = LeaseBook::new(3, 5);
        assert!(!book.may_adopt(u64::MAX));
        // Up to 3 is from before this tracker; 4 and 5 it may have granted itself.
        assert_eq!([3, 4, 5, 6].map(|epoch| book.may_adopt(epoch)), [true, false, false, true]);
        assert!(book.may_adopt(9));
        book.adopt(at(0), grantee(NODE), 9, &LeaseConfig::default());
        assert!(book.was_held(NODE, 9) && !book.was_held(NODE, 8));
        book.end(at(0), NODE, End::Left, &LeaseConfig::default());
        assert!(!book.may_adopt(10));
        assert_eq!(hold(&mut book, at(0), NODE), 10);
    }
}

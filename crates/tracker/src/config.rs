//! What can be set about a tracker, with the reason of each default.
//!
//! State: none.
//! Invariants: [`Config::check`] passes for what a tracker runs with.
//! Absent on purpose: anything about transports, and policies of the exchange (those are the engine's).

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A tracker's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Announces and peer selection.
    pub membership: MembershipConfig,
    /// How many have to say something before it counts.
    pub quorum: Quorum,
    /// The lead's lease.
    pub lease: LeaseConfig,
    /// Accusations and bans.
    pub ban: BanConfig,
    /// Bounds of tables and messages.
    pub limits: Limits,
    /// The first grant of a blob has the epoch after this one. A driver passes something that grows from one incarnation of the
    /// tracker to the next, such as its start in milliseconds, so that what a restarted or a stand-in tracker grants outranks
    /// what was granted before.
    pub first_epoch: u64,
}

/// Announces and peer selection.
#[derive(Clone, Debug, PartialEq)]
pub struct MembershipConfig {
    /// A leech announces so often.
    pub interval: Duration,
    /// A seed announces so often: nothing about it changes.
    pub seed_interval: Duration,
    /// All announces together: beyond that the intervals grow with the number of members. 20,000 is a tenth of what one core handles.
    pub announces_per_second: u32,
    /// A member that has been silent for so many of its intervals is gone.
    pub expiry_intervals: u32,
    /// A member whose connection closed is forgotten after this time. Until then it is not handed out and its chunks don't count.
    pub disconnect_grace: Duration,
    /// The most peers in a reply. Each agent keeps about 40 neighbours; some of 50 are gone or full.
    pub max_peers: u16,
    /// One in so many peers of a reply is of another zone, where there are any.
    pub other_zones_one_in: u16,
    /// A gateway without progress for so long is replaced, if others made some.
    pub gateway_silence: Duration,
    /// A blob's popularity halves in this time.
    pub popularity_half_life: Duration,
    /// A blob without members is remembered for so long: its refusals, its popularity.
    pub blob_linger: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            interval: ms(1_000),
            seed_interval: ms(10_000),
            announces_per_second: 20_000,
            expiry_intervals: 3,
            disconnect_grace: ms(5_000),
            max_peers: 50,
            other_zones_one_in: 5,
            gateway_silence: ms(1_500),
            popularity_half_life: ms(600_000),
            blob_linger: ms(600_000),
        }
    }
}

/// How many of a group have to say something before it moves anything cluster-wide.
///
/// A tenth of all nodes may lie together, so a fixed number is never enough: of 100 nodes 10 could claim completion, or call a right
/// chain false. A quarter of the group is well beyond a tenth, and within reach of the nine tenths that are honest. Where a quarter
/// is fewer than 3, it takes 3, or everybody where there are fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// At least so many …
    pub floor: u32,
    /// … and one in so many.
    pub one_in: u32,
}

impl Default for Quorum {
    fn default() -> Self {
        Self { floor: 3, one_in: 4 }
    }
}

impl Quorum {
    /// How many of a group of `size`. At least 1, so that nobody can't be a quorum.
    #[must_use]
    pub fn of(self, size: usize) -> usize {
        (self.floor as usize).max(size.div_ceil(self.one_in as usize)).min(size).max(1)
    }
}

/// The lead's lease.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseConfig {
    /// A holder that says nothing for so long loses the lease.
    pub silence: Duration,
    /// A holder that announces no progress for so long loses it too. A chunk from the origin is progress: 4 MiB in this time are
    /// 22 Mbit/s. A slower origin, or one that takes longer to answer, is a stall a few times: the limit doubles with each one …
    pub stall: Duration,
    /// … up to this.
    pub max_stall: Duration,
    /// How many members are looked at for a successor: of a random 64 the best is among the best 5 % with a probability of 96 %.
    pub successors_sampled: usize,
    /// A lead whose backlog has grown in so many reports in a row, by more than half of what came meanwhile, is too slow …
    pub backlog_reports: u32,
    /// … if that are so many chunks at least …
    pub backlog_chunks: u32,
    /// … and it has grown for so long: until then it is the pipeline's filling, however often the lead reports.
    pub backlog_for: Duration,
    /// Leases out of impatience, a blob, at a time.
    pub max_impatient: usize,
    /// Holes named in a grant. With more than this, the frontier is moved back to the first one that isn't named.
    pub max_holes: usize,
    /// A node that leads another blob already gets the lease only if nobody else wants it within this time: layers of one image
    /// have leads on different nodes. Agents that pull at the same time announce within a round trip or two.
    pub spread: Duration,
    /// When a blob comes back from before this tracker's time, its lead gets so long to announce itself, before another one is
    /// named: some intervals of a lead's reports.
    pub settle: Duration,
    /// When somebody claims to have the whole blob, but not enough of them to be believed, the others get so long to receive
    /// something from them before a lead is named. A seed in the same data centre delivers within tens of milliseconds.
    pub claims_patience: Duration,
    /// Once those who claim have delivered, a pause of theirs may be so long.
    pub seed_silence: Duration,
    /// Who yielded, failed or stalled isn't named again for so long, where there is somebody else.
    pub passed_for: Duration,
    /// Two leases in vain in a row: the third waits so long, each further one twice as long …
    pub backoff_min: Duration,
    /// … up to this.
    pub backoff_max: Duration,
    /// 401 and 404 are remembered for so long.
    pub refusal_for: Duration,
    /// A Retry-After is believed up to this.
    pub max_retry_after: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            silence: ms(750),
            stall: ms(1_500),
            max_stall: ms(12_000),
            successors_sampled: 64,
            backlog_reports: 4,
            backlog_chunks: 32,
            backlog_for: ms(50),
            max_impatient: 1,
            max_holes: 4_096,
            spread: ms(5),
            settle: ms(300),
            claims_patience: ms(150),
            seed_silence: ms(1_000),
            passed_for: ms(30_000),
            backoff_min: ms(100),
            backoff_max: ms(5_000),
            refusal_for: ms(30_000),
            max_retry_after: ms(300_000),
        }
    }
}

/// Accusations and bans: see `bans.rs` for the derivation.
#[derive(Clone, Debug, PartialEq)]
pub struct BanConfig {
    /// Accusers that it takes at least.
    pub floor: usize,
    /// Neighbours that a node exchanges with.
    pub neighbours: usize,
    /// An accuser with more accusations pending doesn't count at all.
    pub accusation_budget: usize,
    /// An accusation that led to nothing is forgotten after this time.
    pub accusation_ttl: Duration,
    /// Bans of this time are told together.
    pub batch: Duration,
}

impl Default for BanConfig {
    fn default() -> Self {
        Self { floor: 3, neighbours: 40, accusation_budget: 8, accusation_ttl: ms(600_000), batch: ms(50) }
    }
}

/// Bounds of tables and messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Nodes known: several times the largest cluster that Kubernetes supports (5,000).
    pub nodes: usize,
    /// Blobs known.
    pub blobs: usize,
    /// Blobs that one node is a member of: with 64,000 blobs in a cluster, the node that caches most.
    pub memberships_per_node: usize,
    /// Directives that wait to be polled: one to each of the largest number of nodes, twice.
    pub directives: usize,
    /// Links in one reply: the whole chain of a blob of 8,000 chunks. What is left comes with the next replies.
    pub reply_link_bytes: usize,
    /// Links kept of one blob: 2^20 chunks' links of 64 bytes.
    pub chain_bytes: usize,
    /// Batches of links in one announce: one for each chunk of 64 KiB in a tenth of a second at 100 Gbit/s are 19,000.
    pub announced_batches: usize,
    /// Names in one announce's list of the accused: more than any budget.
    pub announced_accused: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 1 << 16,
            blobs: 1 << 16,
            memberships_per_node: 1 << 12,
            directives: 1 << 17,
            reply_link_bytes: 256 << 10,
            chain_bytes: 64 << 20,
            announced_batches: 1 << 15,
            announced_accused: 64,
        }
    }
}

impl Config {
    /// Whether a tracker can run with it.
    ///
    /// # Errors
    /// The first setting that it can't.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            ("membership.interval", self.membership.interval > Duration::ZERO, "more than nothing"),
            ("membership.seed_interval", self.membership.seed_interval > Duration::ZERO, "more than nothing"),
            ("membership.announces_per_second", self.membership.announces_per_second > 0, "at least 1"),
            ("membership.expiry_intervals", self.membership.expiry_intervals > 0, "at least 1"),
            ("membership.other_zones_one_in", self.membership.other_zones_one_in > 0, "at least 1"),
            ("membership.gateway_silence", self.membership.gateway_silence > Duration::ZERO, "more than nothing"),
            ("membership.popularity_half_life", !self.membership.popularity_half_life.is_zero(), "more than nothing"),
            ("quorum.floor", self.quorum.floor > 0, "at least 1"),
            ("quorum.one_in", self.quorum.one_in > 0, "at least 1"),
            ("lease.silence", self.lease.silence > Duration::ZERO, "more than nothing"),
            ("lease.stall", self.lease.stall > Duration::ZERO, "more than nothing"),
            ("lease.successors_sampled", self.lease.successors_sampled > 0, "at least 1"),
            ("ban.floor", self.ban.floor > 1, "at least 2: one node's word bans nobody"),
            ("ban.neighbours", self.ban.neighbours > 0, "at least 1"),
            ("limits.nodes", self.limits.nodes <= 1 << 24, "at most 2^24"),
            ("limits.blobs", self.limits.blobs <= 1 << 24, "at most 2^24"),
            ("first_epoch", self.first_epoch <= 1 << 62, "at most 2^62, so that no number of grants overflows"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((setting, _, rule)) => Err(ConfigError { setting, rule }),
            None => Ok(()),
        }
    }
}

/// A setting that no tracker can run with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {rule}")]
pub struct ConfigError {
    setting: &'static str,
    rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_a_wrong_setting_is_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let mut config = Config::default();
        config.ban.floor = 1;
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "ban.floor must be at least 2: one node's word bans nobody"
        );
    }

    #[test]
    fn a_quorum_is_a_quarter_at_least_3_at_most_everybody() {
        let sizes = [0, 1, 2, 3, 4, 12, 13, 100, 1_000];
        let quorums = sizes.map(|size| Quorum::default().of(size));
        assert_eq!(quorums, [1, 1, 2, 3, 3, 3, 4, 25, 250]);
    }
}

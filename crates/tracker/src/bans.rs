//! Who accuses whom, and who is banned.
//!
//! # How many accusers ban
//!
//! Let n nodes be connected, each exchanging with k = min(40, n − 1) neighbours. A tenth of the nodes may be *liars*, who corrupt
//! what they send, and a tenth *framers*, who accuse the honest.
//!
//! - A liar is accused by nearly everybody who exchanges with it and is honest: about 0.8 k, so 32 of 40.
//! - A framer that accuses many is told by that alone: an honest node has about k / 10 = 4 liars for neighbours, and more than 8
//!   with a probability of 1.6 % (binomial, 40 draws at 0.1). So an accuser with more than 8 accusations pending counts for nobody
//!   until some of those it named are banned. What is left to n / 10 framers is 0.8 n accusations: one for each node.
//! - If framers choose their victims on their own, a victim has about 0.9 counting accusers. k / 4 = 10 of them are out of reach
//!   (Poisson: 10^−7 a node). In a small swarm k / 4 is more than the n / 10 framers that there are.
//! - If they agree on their victims, one victim has n / 10 of them. So it also takes more than n / 10, as far as that leaves a liar
//!   within reach: k / 2 = 20, against the 32 who accuse it.
//!
//! Together: max(3, ⌈k / 4⌉, min(⌊n / 10⌋ + 1, k / 2)). What that leaves open: more than 20 framers that agree on the same 8
//! victims, in a cluster of more than 200 nodes, ban those 8. Raising the number would spare them and no longer ban any liar, whose
//! accusers are bounded by its neighbours. And framers must not be able to empty a cluster: no more than a quarter of the known nodes
//! is ever banned by accusation.
//!
//! An unbanned liar costs little: everybody refuses it after its first bad chunk. That is why the number errs upwards.
//!
//! State: the pending accusations, by accuser and by accused; the bans, in the order in which they came.
//! Invariants: the two tables of accusations mirror each other; nobody who is banned accuses or is accused; an accuser has at most
//! four budgets of accusations.
//! Absent on purpose: what follows from a ban (that is the tracker's), and lifting one: a restarted tracker knows none.

use std::collections::{BTreeMap, BTreeSet};

use shoal_types::{NodeId, Time};

use crate::config::BanConfig;

/// Why a node is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanReason {
    /// Enough others accuse it of sending chunks that fail under a closed chain.
    Accused,
    /// It published the first false link of a chain.
    FalseLink,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    by_accuser: BTreeMap<NodeId, BTreeMap<NodeId, Time>>,
    by_accused: BTreeMap<NodeId, BTreeSet<NodeId>>,
    banned: BTreeMap<NodeId, BanReason>,
    /// The bans in their order: who has been told the first so many needs only the rest.
    log: Vec<NodeId>,
}

impl Ledger {
    pub(crate) fn is_banned(&self, node: NodeId) -> bool {
        self.banned.contains_key(&node)
    }

    /// Every ban, first ones first.
    pub(crate) fn log(&self) -> &[NodeId] {
        &self.log
    }

    pub(crate) fn banned(&self) -> impl Iterator<Item = (NodeId, BanReason)> + '_ {
        self.log.iter().map(|node| (*node, self.banned[node]))
    }

    /// Records accusations and gives those who are now to be banned. `nodes` are connected.
    pub(crate) fn accuse(
        &mut self,
        now: Time,
        accuser: NodeId,
        accused: &[NodeId],
        nodes: usize,
        config: &BanConfig,
    ) -> Vec<NodeId> {
        if self.is_banned(accuser) {
            return Vec::new();
        }
        self.forget_old(now, accuser, config);
        let mut suspects = BTreeSet::new();
        for node in accused.iter().copied().filter(|node| *node != accuser) {
            let pending = self.by_accuser.entry(accuser).or_default();
            if self.banned.contains_key(&node) || pending.len() >= 4 * config.accusation_budget {
                continue;
            }
            pending.insert(node, now);
            self.by_accused.entry(node).or_default().insert(accuser);
            suspects.insert(node);
        }
        if self.by_accuser.get(&accuser).is_some_and(BTreeMap::is_empty) {
            self.by_accuser.remove(&accuser);
        }
        let mut to_ban = Vec::new();
        while let Some(suspect) = suspects.pop_first() {
            let room = self.banned.len() < nodes.div_ceil(4);
            if room && self.counting(now, suspect, config) >= threshold(nodes, config) {
                to_ban.push(suspect);
                // Accusers that get back within their budget count again for the others whom they accuse.
                suspects.extend(self.ban(suspect, BanReason::Accused));
            }
        }
        to_ban
    }

    /// Bans a node. Gives everybody whose accusers may count again now.
    pub(crate) fn ban(&mut self, node: NodeId, reason: BanReason) -> BTreeSet<NodeId> {
        if self.banned.insert(node, reason).is_some() {
            return BTreeSet::new();
        }
        self.log.push(node);
        self.forget(node);
        let mut affected = BTreeSet::new();
        for accuser in self.by_accused.remove(&node).unwrap_or_default() {
            if let Some(pending) = self.by_accuser.get_mut(&accuser) {
                pending.remove(&node);
                affected.extend(pending.keys().copied());
                if pending.is_empty() {
                    self.by_accuser.remove(&accuser);
                }
            }
        }
        affected
    }

    /// Drops what a node has accused others of: it has left, or is banned.
    pub(crate) fn forget(&mut self, accuser: NodeId) {
        for accused in self.by_accuser.remove(&accuser).unwrap_or_default().into_keys() {
            self.withdraw(accuser, accused);
        }
    }

    fn forget_old(&mut self, now: Time, accuser: NodeId, config: &BanConfig) {
        let Some(pending) = self.by_accuser.get_mut(&accuser) else { return };
        let old: Vec<NodeId> =
            pending.iter().filter(|(_, at)| **at + config.accusation_ttl <= now).map(|(node, _)| *node).collect();
        pending.retain(|_, at| *at + config.accusation_ttl > now);
        old.into_iter().for_each(|node| self.withdraw(accuser, node));
    }

    fn withdraw(&mut self, accuser: NodeId, accused: NodeId) {
        if let Some(accusers) = self.by_accused.get_mut(&accused) {
            accusers.remove(&accuser);
            if accusers.is_empty() {
                self.by_accused.remove(&accused);
            }
        }
    }

    /// Accusers of a node that are within their budget.
    fn counting(&self, now: Time, accused: NodeId, config: &BanConfig) -> usize {
        let accusers = self.by_accused.get(&accused).into_iter().flatten();
        let counts = |accuser: &&NodeId| {
            let pending = &self.by_accuser[accuser];
            pending.len() <= config.accusation_budget && pending[&accused] + config.accusation_ttl > now
        };
        accusers.filter(counts).count()
    }

    pub(crate) fn check_invariants(&self, config: &BanConfig) {
        assert_eq!(self.banned.len(), self.log.len(), "each ban is in the log once");
        let pairs: usize = self.by_accuser.values().map(BTreeMap::len).sum();
        assert_eq!(pairs, self.by_accused.values().map(BTreeSet::len).sum::<usize>(), "the tables mirror each other");
        for (accuser, pending) in &self.by_accuser {
            assert!(!self.is_banned(*accuser), "the banned accuse nobody");
            assert!((1..=4 * config.accusation_budget).contains(&pending.len()), "accusations are bounded");
            for accused in pending.keys() {
                assert!(self.by_accused[accused].contains(accuser), "the tables mirror each other");
                assert!(!self.is_banned(*accused), "a ban settles the accusations");
            }
        }
    }
}

/// How many counting accusers ban, with so many nodes connected: the module's derivation.
pub(crate) fn threshold(nodes: usize, config: &BanConfig) -> usize {
    let neighbours = config.neighbours.min(nodes.saturating_sub(1));
    let beyond_framers = (nodes / 10 + 1).min(neighbours / 2);
    config.floor.max(neighbours.div_ceil(4)).max(beyond_framers)
}

#[cfg(test)]
mod tests {
    use shoal_types::Rng;

    use super::*;

    fn id(node: usize) -> NodeId {
        NodeId::new(node as u128)
    }

    /// Everybody's neighbours in a random graph of degree about 40.
    fn neighbours(nodes: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
        let mut graph = vec![BTreeSet::new(); nodes];
        for node in 0..nodes {
            for _ in 0..20 {
                let other = rng.below(nodes);
                if other != node {
                    graph[node].insert(other);
                    graph[other].insert(node);
                }
            }
        }
        graph.into_iter().map(|set| set.into_iter().collect()).collect()
    }

    #[test]
    fn the_threshold_is_that_of_the_derivation() {
        let config = BanConfig::default();
        let sizes = [1, 4, 12, 14, 41, 100, 200, 1_000];
        assert_eq!(sizes.map(|nodes| threshold(nodes, &config)), [3, 3, 3, 4, 10, 11, 20, 20]);
    }

    #[test]
    fn liars_are_banned_and_framed_nodes_are_not() {
        let config = BanConfig::default();
        for (nodes, seed) in [(30, 1), (100, 2), (100, 3), (1_000, 4)] {
            let mut rng = Rng::new(seed);
            let graph = neighbours(nodes, &mut rng);
            let (liar, framer) = (|node| node % 10 == 3, |node| node % 10 == 7);
            let mut ledger = Ledger::default();
            let mut order: Vec<usize> = (0..nodes).collect();
            rng.shuffle(&mut order);
            for (step, accuser) in order.into_iter().enumerate() {
                let accused: Vec<NodeId> = if framer(accuser) {
                    // Half of them stay within the budget, half accuse whomever they know.
                    let many = if accuser % 20 == 7 { 8 } else { 40 };
                    (0..many).map(|_| id(rng.below(nodes))).collect()
                } else {
                    graph[accuser].iter().filter(|node| liar(**node)).map(|node| id(*node)).collect()
                };
                let now = Time::from_nanos(step as u64);
                ledger.accuse(now, id(accuser), &accused, nodes, &config);
                ledger.check_invariants(&config);
            }
            let banned: Vec<usize> = ledger.log().iter().map(|node| node.get() as usize).collect();
            assert!(banned.iter().all(|node| liar(*node)), "{nodes} nodes, seed {seed}: {banned:?}");
            assert!(banned.len() * 10 >= nodes * 8 / 10, "{nodes} nodes, seed {seed}: {} liars banned", banned.len());
        }
    }

    #[test]
    fn up_to_200_nodes_a_tenth_that_agrees_on_its_victims_bans_nobody() {
        let config = BanConfig::default();
        for nodes in 3..200 {
            let mut ledger = Ledger::default();
            let victims: Vec<NodeId> = (0..8.min(nodes / 2)).map(id).collect();
            for framer in 0..nodes / 10 {
                assert_eq!(ledger.accuse(Time::ZERO, id(nodes - 1 - framer), &victims, nodes, &config), []);
            }
        }
    }

    #[test]
    fn who_accuses_too_many_is_heard_again_when_they_turn_out_to_be_liars() {
        let config = BanConfig { floor: 3, accusation_budget: 2, ..BanConfig::default() };
        let mut ledger = Ledger::default();
        let now = Time::ZERO;
        // 11 accuses three: one too many, so 1 has two counting accusers.
        ledger.accuse(now, id(11), &[id(1), id(2), id(3)], 12, &config);
        ledger.accuse(now, id(12), &[id(1)], 12, &config);
        assert_eq!(ledger.accuse(now, id(13), &[id(1)], 12, &config), []);
        ledger.accuse(now, id(14), &[id(2)], 12, &config);
        ledger.accuse(now, id(15), &[id(2)], 12, &config);
        // 2's ban brings 11 back within its budget, which bans 1 too.
        assert_eq!(ledger.accuse(now, id(16), &[id(2)], 12, &config), [id(2), id(1)]);
        ledger.check_invariants(&config);
    }

    #[test]
    fn accusations_age_and_repeating_them_adds_nothing() {
        let config = BanConfig::default();
        let mut ledger = Ledger::default();
        for _ in 0..10 {
            assert_eq!(ledger.accuse(Time::ZERO, id(1), &[id(9)], 4, &config), []);
        }
        let later = Time::ZERO + config.accusation_ttl;
        ledger.accuse(later, id(2), &[id(9)], 4, &config);
        assert_eq!(ledger.accuse(later, id(3), &[id(9)], 4, &config), []);
        assert_eq!(ledger.accuse(later, id(1), &[id(9), id(1)], 4, &config), [id(9)]);
        assert_eq!(ledger.accuse(later, id(9), &[id(2)], 4, &config), []);
    }

    #[test]
    fn no_more_than_a_quarter_is_banned_by_accusation() {
        let config = BanConfig::default();
        let mut ledger = Ledger::default();
        for victim in 0..10 {
            for accuser in 0..3 {
                ledger.accuse(Time::ZERO, id(100 + victim * 3 + accuser), &[id(victim)], 12, &config);
            }
        }
        assert_eq!(ledger.log().len(), 3);
    }
}

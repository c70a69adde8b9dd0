//! Which replica of the operator owns a blob: rendezvous hashing.
//!
//! Each replica's score for a digest is a hash of both; the highest one owns it, the next one takes over when that is gone.
//! Agents and replicas compute it on their own and must agree across versions, so the function is fixed here and pinned by a test.
//!
//! State: none.
//! Invariants: the order doesn't depend on the order in which the replicas are listed; taking one out leaves the order of the
//! others as it is, so only what it owned moves.
//! Absent on purpose: which replicas are ready; resistance to chosen digests (whoever can choose them can also just announce more).

use std::cmp::Reverse;
use std::fmt;

use shoal_types::Digest;

/// The name of an operator's replica: a pod's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaName(Box<str>);

impl ReplicaName {
    /// The replica of this name.
    ///
    /// # Errors
    /// If it isn't a DNS name: up to 253 lower-case letters, digits, `-` and `.`.
    pub fn new(name: &str) -> Result<Self, ReplicaNameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if (1..=253).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(ReplicaNameError)
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text isn't a replica's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replica's name has up to 253 lower-case letters, digits, '-' and '.'")]
pub struct ReplicaNameError;

/// The replicas in the order in which they own a digest, as positions in the list: the first one is its tracker, the others are
/// who to turn to next.
#[must_use]
pub fn rendezvous(digest: &Digest, replicas: &[ReplicaName]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..replicas.len()).collect();
    order.sort_by_cached_key(|at| (Reverse(score(digest, &replicas[*at])), replicas[*at].clone()));
    order
}

/// FNV-1a over the name, a separator that no name has, and the digest; then SplitMix64's finalizer, because FNV's last bytes
/// hardly reach its high bits.
fn score(digest: &Digest, replica: &ReplicaName) -> u64 {
    let bytes = replica.0.bytes().chain([0]).chain(digest.as_bytes().iter().copied());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use shoal_types::Rng;

    use super::*;

    const DIGESTS: usize = 20_000;

    fn replicas(count: usize) -> Vec<ReplicaName> {
        (0..count).map(|at| ReplicaName::new(&format!("shoal-operator-{at}")).unwrap()).collect()
    }

    fn digests() -> impl Iterator<Item = Digest> {
        let mut rng = Rng::new(9);
        (0..DIGESTS).map(move |_| {
            let mut bytes = [0; 32];
            bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_be_bytes()));
            Digest::Sha256(bytes)
        })
    }

    #[test]
    fn blobs_are_spread_evenly() {
        for count in [2, 3, 5] {
            let replicas = replicas(count);
            let mut owned = vec![0; count];
            digests().for_each(|digest| owned[rendezvous(&digest, &replicas)[0]] += 1);
            let even = DIGESTS / count;
            assert!(owned.iter().all(|owned| (even * 95 / 100..even * 105 / 100).contains(owned)), "{owned:?}");
        }
    }

    #[test]
    fn a_replica_that_comes_or_goes_moves_only_its_share() {
        for count in [2, 3, 5] {
            let (before, after) = (replicas(count), replicas(count + 1));
            let mut moved = 0;
            for digest in digests() {
                let (old, new) = (rendezvous(&digest, &before), rendezvous(&digest, &after));
                let without: Vec<usize> = new.iter().copied().filter(|at| *at != count).collect();
                assert_eq!(old, without, "the others keep their order");
                moved += usize::from(new[0] == count);
            }
            let share = DIGESTS / (count + 1);
            assert!((share * 95 / 100..share * 105 / 100).contains(&moved), "{moved} of {DIGESTS}");
        }
    }

    #[test]
    fn the_order_is_the_same_whoever_lists_them_and_in_every_version() {
        let digest = Digest::Sha256([7; 32]);
        let names = |order: &[usize], replicas: &[ReplicaName]| {
            order.iter().map(|at| replicas[*at].to_string()).collect::<Vec<_>>()
        };
        let forward = replicas(4);
        let backward: Vec<ReplicaName> = forward.iter().rev().cloned().collect();
        let order = names(&rendezvous(&digest, &forward), &forward);
        assert_eq!(order, names(&rendezvous(&digest, &backward), &backward));
        assert_eq!(order.join(" "), "shoal-operator-0 shoal-operator-3 shoal-operator-2 shoal-operator-1");
    }

    #[test]
    fn names_are_dns_names() {
        assert!(ReplicaName::new("shoal-operator-0.shoal").is_ok());
        for name in ["", "Shoal", "a b", "a/b", &"a".repeat(254)] {
            assert_eq!(ReplicaName::new(name), Err(ReplicaNameError), "{name}");
        }
    }
}

//! Which blobs go first when room is needed.
//!
//! State: none: a function from what is known to what goes.
//! Invariants: what is in use stays; the cluster's last copy of something pinned stays; either the need is met, or nothing goes.
//! Absent on purpose: where popularity and replicas come from. The agent hears of them.

use std::cmp::Reverse;

use shoal_types::BlobKey;

/// What the agent knows of a blob's worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// A `Swarm` says that it is to be here.
    pub pinned: bool,
    /// How often it was asked for lately, by whatever measure is the same for all blobs.
    pub popularity: u32,
    /// How many other nodes have all of it.
    pub replicas: u32,
    /// It is being transferred or read.
    pub in_use: bool,
}

/// A blob that may have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The blob.
    pub key: BlobKey,
    /// What its removal frees.
    pub own_bytes: u64,
    /// What it is worth.
    pub standing: Standing,
}

/// How much has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes.
    pub bytes: u64,
    /// Blobs, however small.
    pub blobs: usize,
}

/// The blobs to remove, in order; none if the need can't be met by those that may go.
///
/// What a `Swarm` pins goes after everything else. Beyond that a blob is worth its requests divided by the copies that could serve them,
/// this one included; both plus one, so that neither a blob without requests nor one without replicas hides the other figure. Of equals
/// the larger goes first, so that fewer go.
#[must_use]
pub fn plan_eviction(need: Need, candidates: &[Candidate]) -> Option<Vec<BlobKey>> {
    let mut may_go: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.standing.may_go()).collect();
    may_go.sort_by(|one, other| {
        let (a, b) = (&one.standing, &other.standing);
        let pinned = a.pinned.cmp(&b.pinned);
        // a.requests / a.copies < b.requests / b.copies, without the division.
        let worth = (a.requests() * b.copies()).cmp(&(b.requests() * a.copies()));
        let size = Reverse(one.own_bytes).cmp(&Reverse(other.own_bytes));
        pinned.then(worth).then(size).then(one.key.cmp(&other.key))
    });
    let mut freed = Need::default();
    let mut goes = Vec::new();
    let mut rest = may_go.into_iter();
    while freed.bytes < need.bytes || freed.blobs < need.blobs {
        let next = rest.next()?;
        freed = Need { bytes: freed.bytes.saturating_add(next.own_bytes), blobs: freed.blobs + 1 };
        goes.push(next.key);
    }
    Some(goes)
}

impl Standing {
    const fn may_go(&self) -> bool {
        let last_pinned_copy = self.pinned && self.replicas == 0;
        !self.in_use && !last_pinned_copy
    }

    fn requests(&self) -> u128 {
        u128::from(self.popularity) + 1
    }

    fn copies(&self) -> u128 {
        u128::from(self.replicas) + 1
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::{ChunkSize, Digest};

    use super::*;

    /// One blob a word: its name, its bytes, its popularity `p`, its replicas `r`, and flags: `!` pinned, `*` in use.
    fn candidates(text: &str) -> Vec<Candidate> {
        text.split_whitespace()
            .map(|word| {
                let fields: Vec<&str> = word.split(',').collect();
                let number = |prefix: &str| {
                    fields
                        .iter()
                        .find_map(|field| field.strip_prefix(prefix))
                        .map_or(0, |digits| digits.parse().unwrap())
                };
                Candidate {
                    key: key(fields[0]),
                    own_bytes: fields[1].parse().unwrap(),
                    standing: Standing {
                        pinned: fields.contains(&"!"),
                        in_use: fields.contains(&"*"),
                        popularity: number("p"),
                        replicas: number("r"),
                    },
                }
            })
            .collect()
    }

    fn key(name: &str) -> BlobKey {
        BlobKey { digest: Digest::Sha256([name.as_bytes()[0]; 32]), chunk_size: ChunkSize::MIN }
    }

    #[test]
    fn what_is_unpopular_and_well_replicated_goes_first() {
        let cases = [
            // what there is, bytes to free, what goes
            ("", 0, Some("")),
            ("", 1, None),
            ("a,10 b,10", 0, Some("")),
            ("a,10 b,10", 10, Some("a")),
            ("a,10 b,10", 11, Some("a b")),
            ("a,10 b,10", 21, None),
            // The larger of equals.
            ("a,10 b,20", 1, Some("b")),
            // Unpopular before popular, at the same number of copies.
            ("a,10,p5,r3 b,10,p1,r3 c,10,p3,r3", 30, Some("b c a")),
            // Well replicated before rare, at the same popularity, and without any.
            ("a,10,p5,r1 b,10,p5,r9 c,10,p5,r4", 30, Some("b c a")),
            ("a,10,r1 b,10,r9 c,10,r4", 30, Some("b c a")),
            // One against the other: nobody asks for the only copy; a few ask for one of eleven.
            ("a,10 b,10,p2,r10", 10, Some("b")),
            // In use: never, even if nothing else is left.
            ("a,10,* b,10,p100", 10, Some("b")),
            ("a,10,* b,10,p100", 11, None),
            // Pinned: after everything else; the last copy never.
            ("a,10,!,r5 b,10,p100", 10, Some("b")),
            ("a,10,!,r5 b,10,p100", 11, Some("b a")),
            ("a,10,! b,10,p100", 11, None),
            ("a,10,!,r1,* b,10", 11, None),
        ];
        for (there, bytes, expected) in cases {
            let goes = plan_eviction(Need { bytes, blobs: 0 }, &candidates(there));
            let expected = expected.map(|names| names.split_whitespace().map(key).collect::<Vec<_>>());
            assert_eq!(goes, expected, "{bytes} bytes of {there}");
        }
    }

    #[test]
    fn blobs_are_needed_as_well_as_bytes() {
        let there = candidates("a,0 b,0 c,50,p9");
        assert_eq!(plan_eviction(Need { bytes: 0, blobs: 2 }, &there), Some(vec![key("a"), key("b")]));
        assert_eq!(plan_eviction(Need { bytes: 50, blobs: 1 }, &there), Some(vec![key("a"), key("b"), key("c")]));
        assert_eq!(plan_eviction(Need { bytes: 0, blobs: 4 }, &there), None);
    }

    #[test]
    fn the_largest_figures_dont_overflow() {
        let most = Standing { popularity: u32::MAX, replicas: u32::MAX, ..Standing::default() };
        let candidate = Candidate { key: key("a"), own_bytes: u64::MAX, standing: most };
        let both = [candidate, Candidate { key: key("b"), ..candidate }];
        assert_eq!(plan_eviction(Need { bytes: u64::MAX, blobs: 2 }, &both), Some(vec![key("a"), key("b")]));
    }
}

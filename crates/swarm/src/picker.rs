//! Which chunk next: pure functions over availability and bitmaps.
//!
//! State: none; the caller owns availability and the sets.
//! Invariants: the pick is always one of the candidates; with the same generator it is always the same one.
//! Absent on purpose: whom to ask (that is `requests`), and any memory of earlier picks.

use shoal_types::{ChunkIndex, Rng};

use crate::config::ChunkOrder;

/// What a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The order that is configured.
    pub(crate) order: ChunkOrder,
    /// The newcomer's rule holds: any of the rare ones instead of the rarest.
    pub(crate) random_first: bool,
    /// Where a stream is, if this pick is to prefer what comes next in it.
    pub(crate) stream_next: Option<ChunkIndex>,
}

/// One of the candidates, or none if there are none.
pub(crate) fn pick(
    situation: Situation,
    candidates: &[u64],
    availability: &[u16],
    rng: &mut Rng,
) -> Option<ChunkIndex> {
    // What it needs at once may be under way already.
    if let Some(next) = situation.stream_next
        && let Some(chunk) = ones(candidates).find(|chunk| *chunk >= next)
    {
        return Some(chunk);
    }
    match situation.order {
        ChunkOrder::Sequential => ones(candidates).next(),
        ChunkOrder::Random => nth_random(candidates, |_| true, rng),
        ChunkOrder::RarestFirst => {
            let rarest = ones(candidates).map(|chunk| availability[chunk.as_usize()]).min()?;
            // A newcomer takes anything up to twice as frequent as the rarest: still rare, but not what everybody takes.
            let ceiling = if situation.random_first { rarest.saturating_mul(2) } else { rarest };
            nth_random(candidates, |chunk| availability[chunk.as_usize()] <= ceiling, rng)
        }
    }
}

/// The chunks of a bitmap in order.
#[allow(clippy::cast_possible_truncation, reason = "a bitmap has at most Geometry::MAX_CHUNKS bits")]
pub(crate) fn ones(words: &[u64]) -> impl Iterator<Item = ChunkIndex> + '_ {
    words.iter().enumerate().flat_map(|(at, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            Some(ChunkIndex::new(at as u32 * 64 + bit))
        })
    })
}

/// A random one of the candidates that fit: two passes, no allocation.
fn nth_random(candidates: &[u64], fits: impl Fn(ChunkIndex) -> bool, rng: &mut Rng) -> Option<ChunkIndex> {
    let count = ones(candidates).filter(|chunk| fits(*chunk)).count();
    if count == 0 {
        return None;
    }
    let at = rng.below(count);
    ones(candidates).filter(|chunk| fits(*chunk)).nth(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Picks from texts: a digit is a chunk's availability, a `*` in `have` a chunk that isn't wanted. All possible results.
    fn picks(order: ChunkOrder, random_first: bool, availability: &str, have: &str) -> String {
        let availability: Vec<u16> = availability.bytes().map(|digit| u16::from(digit.saturating_sub(b'0'))).collect();
        let mut candidates = vec![0_u64; availability.len().div_ceil(64)];
        for (at, _) in have.bytes().enumerate().filter(|(at, mark)| *mark != b'*' && availability[*at] > 0) {
            candidates[at / 64] |= 1 << (at % 64);
        }
        let situation = Situation { order, random_first, stream_next: None };
        let mut seen: Vec<char> = vec!['.'; availability.len()];
        for seed in 0..200 {
            if let Some(chunk) = pick(situation, &candidates, &availability, &mut Rng::new(seed)) {
                seen[chunk.as_usize()] = 'x';
            }
        }
        seen.into_iter().collect()
    }

    #[test]
    fn the_rarest_are_picked_and_ties_are_broken_at_random() {
        let rarest = |availability, have| picks(ChunkOrder::RarestFirst, false, availability, have);
        assert_eq!(rarest("0123333", "       "), ".x.....");
        assert_eq!(rarest("0123333", "**     "), "..x....");
        assert_eq!(rarest("0123333", "***    "), "...xxxx");
        assert_eq!(rarest("0123333", "*******"), ".......");
        assert_eq!(rarest("0000000", "       "), ".......");
        assert_eq!(rarest("5512155", "       "), "..x.x..");
    }

    #[test]
    fn a_newcomer_picks_among_the_rare_ones() {
        assert_eq!(picks(ChunkOrder::RarestFirst, true, "2345678", "       "), "xxx....");
        assert_eq!(picks(ChunkOrder::RarestFirst, true, "2345678", "*      "), ".xxxx..");
    }

    #[test]
    fn the_other_orders_ignore_availability() {
        assert_eq!(picks(ChunkOrder::Sequential, false, "9123333", "*      "), ".x.....");
        assert_eq!(picks(ChunkOrder::Random, false, "0129999", "  *    "), ".x.xxxx");
    }

    #[test]
    fn the_first_chunk_that_the_stream_needs_and_that_can_be_had_is_preferred() {
        let situation = |next| Situation {
            order: ChunkOrder::RarestFirst,
            random_first: false,
            stream_next: Some(ChunkIndex::new(next)),
        };
        let pick = |next| pick(situation(next), &[0b1011], &[5, 1, 0, 5], &mut Rng::new(1)).map(ChunkIndex::get);
        assert_eq!(pick(1), Some(1));
        assert_eq!(pick(2), Some(3));
        assert_eq!(pick(4), Some(1), "one of the rarest");
    }
}

//! What the tests of the exchange share: content without bytes, one engine among puppets, and a small net of engines.
//!
//! State: none here; see the parts.
//! Absent on purpose: policy. Whatever is decided, the engine decides.

#![allow(dead_code, reason = "each test crate uses its own part of this")]

pub(crate) mod content;
pub(crate) mod net;
pub(crate) mod solo;

use std::time::Duration;

use shoal_swarm::{Config, Serving};
use shoal_types::{ChunkIndex, ChunkSet};

/// A set of chunks from a text: a `*` is a chunk that is in it, anything else one that isn't.
pub(crate) fn set(text: &str) -> ChunkSet {
    let mut set = ChunkSet::empty(u32::try_from(text.len()).expect("a short text"));
    for (at, _) in text.bytes().enumerate().filter(|(_, mark)| *mark == b'*') {
        set.insert(chunk(u32::try_from(at).expect("a short text")));
    }
    set
}

/// The text of a set of chunks.
pub(crate) fn text(set: &ChunkSet) -> String {
    (0..set.capacity()).map(|at| if set.contains(chunk(at)) { '*' } else { '.' }).collect()
}

/// A chunk's index.
pub(crate) const fn chunk(index: u32) -> ChunkIndex {
    ChunkIndex::new(index)
}

/// So many milliseconds.
pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So many microseconds.
pub(crate) const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// The default settings, with everybody served alike: for tests of what is asked for rather than of who may ask.
pub(crate) fn open() -> Config {
    Config { serving: Serving::Open, ..Config::default() }
}

/// As [`open`], with this many chunks asked for at a neighbour, whatever it sends.
pub(crate) fn asking_for(chunks: u16) -> Config {
    Config {
        inflight_chunks: chunks,
        inflight_bytes: 0,
        inflight_round_trips: 0,
        inflight_per_peer: chunks,
        random_first_chunks: 0,
        endgame_percent: 0,
        ..open()
    }
}

/// Credit with this many places on either side.
pub(crate) fn credit(slots: u16, sources: u16) -> Config {
    let serving = Serving::Credit { slots, sources, idle: ms(3), rechoke: ms(100), allowance_chunks: 2 };
    Config { serving, ..Config::default() }
}

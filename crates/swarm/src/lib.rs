//! The exchange engine: which chunk, from whom, for whom; no I/O.

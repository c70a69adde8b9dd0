//! The mirror over real sockets, with content in memory: what runtimes rely on, byte for byte.

mod client;
mod connections;
mod endings;
mod fixture;
mod pulls;
mod ranges;
mod refusals;

//! The chain against the ordinary hash, through the crate's public interface.

mod build;
mod common;
mod verify;

//! The network's error against exact sharing.

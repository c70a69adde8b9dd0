//! Membership, leases and peer selection; no I/O.

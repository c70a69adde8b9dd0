//! How long messages may be.
//!
//! State: none.
//! Invariants: the largest message of each kind fits; the assertions below hold the derivations.
//! Absent on purpose: limits on numbers of messages: those are the transports'.

use shoal_types::Geometry;

use crate::NodeName;

/// A run of links in one signed batch has at most so many bytes, by its publisher's care: 4,096 links of SHA-256, twice the chain
/// of a blob cut as usual. A longer chain is published in several batches.
pub const MAX_RUN_BYTES: usize = 128 << 10;

/// The longest contact: its name, its zone (63 bytes), an IPv6 address (19 with tag and port), and the two lengths.
pub const MAX_CONTACT_BYTES: usize = 1 + NodeName::MAX_BYTES + 1 + 63 + 19;

/// Contacts in one message: ten times what a reply to an announce has, and a third of what fits.
pub const MAX_CONTACTS: usize = 512;

/// A frame's longest body. The longest messages are
/// - a `Join` or an announce with the bitmap of [`Geometry::MAX_CHUNKS`] chunks: 128 KiB, and room for 1,800 batches of one link;
/// - a reply to an announce: links of 256 KiB and one run more (the tracker's `reply_link_bytes`), 4,096 holes, 50 peers with
///   their contacts and 256 bans: 430 KiB.
///
/// `Links` and `Have` have no bound of their own: what is too long for one frame leaves as several.
pub const MAX_BODY_BYTES: usize = 512 << 10;

/// The longest body of announces, or of their outcomes, between agent and tracker: 4,096 announces of blobs of 2,048 chunks
/// (400 bytes each) are 1.6 MiB, an announce with as many batches of links as the tracker takes (2^15 of 208 bytes) 6.5 MiB.
pub const MAX_BATCH_BYTES: usize = 8 << 20;

const BITMAP: usize = Geometry::MAX_CHUNKS as usize / 8;
const LONGEST_REPLY: usize = (256 << 10) + MAX_RUN_BYTES + 4096 * 4 + 50 * (80 + MAX_CONTACT_BYTES) + 256 * 16 + 1024;

const _: () = assert!(BITMAP + 1024 + 1_800 * 208 <= MAX_BODY_BYTES);
const _: () = assert!(LONGEST_REPLY <= MAX_BODY_BYTES);
const _: () = assert!(MAX_CONTACTS * MAX_CONTACT_BYTES + 1024 <= MAX_BODY_BYTES);
const _: () = assert!((1 << 15) * 208 + BITMAP <= MAX_BATCH_BYTES);

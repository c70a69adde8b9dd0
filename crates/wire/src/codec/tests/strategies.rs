//! Random messages of every kind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
use shoal_types::{Algorithm, BlobInfo, BlobKey, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId, Zone};

use crate::*;

pub(super) fn digests() -> impl Strategy<Value = Digest> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(Digest::Sha256),
        any::<[[u8; 32]; 2]>().prop_map(|halves| Digest::Sha512(std::array::from_fn(|at| halves[at / 32][at % 32]))),
    ]
}

fn chunk_sizes() -> impl Strategy<Value = ChunkSize> {
    (16_u32..=22).prop_map(|bits| ChunkSize::new(1 << bits).unwrap())
}

fn keys() -> impl Strategy<Value = BlobKey> {
    (digests(), chunk_sizes()).prop_map(|(digest, chunk_size)| BlobKey { digest, chunk_size })
}

fn blobs() -> impl Strategy<Value = BlobInfo> {
    (digests(), 0_u64..1 << 36, chunk_sizes())
        .prop_map(|(digest, size, chunk)| BlobInfo { digest, geometry: Geometry::new(size, chunk).unwrap() })
}

fn chunks() -> impl Strategy<Value = ChunkIndex> {
    any::<u32>().prop_map(ChunkIndex::new)
}

fn sets() -> impl Strategy<Value = Arc<ChunkSet>> {
    (0_u32..300, vec(any::<u32>(), 0..20)).prop_map(|(len, members)| {
        let mut set = ChunkSet::empty(len);
        members.into_iter().filter(|_| len > 0).for_each(|index| _ = set.insert(ChunkIndex::new(index % len)));
        Arc::new(set)
    })
}

pub(super) fn nodes() -> impl Strategy<Value = NodeId> {
    any::<u128>().prop_map(NodeId::new)
}

fn zones() -> impl Strategy<Value = Zone> {
    "[a-z0-9.-]{0,63}".prop_map(|name| Zone::new(&name).unwrap())
}

fn names() -> impl Strategy<Value = NodeName> {
    "[a-zA-Z0-9._-]{1,253}".prop_map(|name| NodeName::new(&name).unwrap())
}

fn contacts() -> impl Strategy<Value = Vec<Contact>> {
    let address = prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from)
    ];
    vec((names(), zones(), address).prop_map(|(name, zone, address)| Contact::new(name, zone, address)), 0..4)
}

fn spans() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn signed_links() -> impl Strategy<Value = SignedLinks> {
    let run = (any::<bool>(), 0_u32..1000, 1_usize..5, any::<u8>()).prop_map(|(long, first, count, byte)| {
        let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
        LinkRun::new(algorithm, ChunkIndex::new(first), vec![byte; count * algorithm.digest_bytes()]).unwrap()
    });
    (blobs(), any::<u64>(), run, nodes(), any::<[[u8; 32]; 2]>()).prop_map(|(blob, epoch, run, publisher, halves)| {
        let signature = Signature(std::array::from_fn(|at| halves[at / 32][at % 32]));
        SignedLinks { batch: LinkBatch { blob, epoch, run }, publisher, signature }
    })
}

fn messages() -> impl Strategy<Value = PeerMessage> {
    let flags = any::<[bool; 3]>().prop_map(|[gateway, seed, answer]| JoinFlags { gateway, seed, answer });
    let reasons = prop_oneof![
        Just(RejectReason::Absent),
        Just(RejectReason::TooMany),
        Just(RejectReason::Choked),
        Just(RejectReason::Withdrawn)
    ];
    prop_oneof![
        (blobs(), sets(), flags).prop_map(|(blob, have, flags)| PeerMessage::Join { blob, have, flags }),
        keys().prop_map(|key| PeerMessage::Leave { key }),
        (keys(), vec(chunks(), 0..9), any::<u8>()).prop_map(|(key, chunks, sources)| PeerMessage::Have {
            key,
            chunks: chunks.into(),
            load: Load { sources }
        }),
        (keys(), chunks()).prop_map(|(key, chunk)| PeerMessage::Coming { key, chunk }),
        (keys(), chunks(), any::<bool>()).prop_map(|(key, chunk, needs_links)| PeerMessage::Request {
            key,
            chunk,
            needs_links
        }),
        (keys(), chunks()).prop_map(|(key, chunk)| PeerMessage::Cancel { key, chunk }),
        (keys(), chunks(), reasons).prop_map(|(key, chunk, reason)| PeerMessage::Reject { key, chunk, reason }),
        Just(PeerMessage::Choke),
        Just(PeerMessage::Unchoke),
        Just(PeerMessage::Decline),
        any::<u8>().prop_map(|sources| PeerMessage::Hungry { sources }),
        (keys(), chunks(), chunks()).prop_map(|(key, asked, sent)| PeerMessage::Substitute { key, asked, sent }),
        (keys(), vec(signed_links(), 0..4)).prop_map(|(key, batches)| PeerMessage::Links { key, batches }),
        (keys(), chunks()).prop_map(|(key, from)| PeerMessage::LinksWanted { key, from }),
    ]
}

fn failures() -> impl Strategy<Value = OriginFailure> {
    prop_oneof![
        Just(OriginFailure::Unauthorized),
        Just(OriginFailure::NotFound),
        spans().prop_map(|retry_after| OriginFailure::Busy { retry_after }),
        Just(OriginFailure::Unreachable),
    ]
}

pub(super) fn announces() -> impl Strategy<Value = Announce> {
    let event = prop_oneof![
        Just(AnnounceEvent::Started),
        Just(AnnounceEvent::Progress),
        Just(AnnounceEvent::Completed),
        Just(AnnounceEvent::Stopped)
    ];
    let lease = prop_oneof![
        Just(LeaseRequest::Declined),
        Just(LeaseRequest::Willing),
        Just(LeaseRequest::Impatient),
        (any::<u64>(), chunks(), any::<u32>()).prop_map(|(epoch, frontier, backlog)| LeaseRequest::Holding {
            epoch,
            frontier,
            backlog
        }),
        any::<u64>().prop_map(|epoch| LeaseRequest::Yielded { epoch }),
        (any::<u64>(), failures()).prop_map(|(epoch, failure)| LeaseRequest::Failed { epoch, failure }),
    ];
    let blob = (digests(), any::<u64>(), option::of(chunk_sizes()), event, option::of(sets()));
    let verdicts = (option::of(any::<u64>()), option::of(any::<u64>()));
    let rest = (lease, vec(signed_links(), 0..4), verdicts, vec(nodes(), 0..9), any::<[u64; 2]>());
    (blob, any::<u16>(), rest).prop_map(
        |((digest, size_bytes, chunk_size, event, have), want_peers, (lease, links, verdicts, accused, bytes))| {
            let (false_chain, corrupt_lead) = verdicts;
            let [bytes_from_peers, bytes_from_origin] = bytes;
            Announce {
                digest,
                size_bytes,
                chunk_size,
                event,
                have,
                want_peers,
                lease,
                links,
                false_chain,
                corrupt_lead,
                accused,
                bytes_from_peers,
                bytes_from_origin,
            }
        },
    )
}

fn grants() -> impl Strategy<Value = LeaseGrant> {
    (any::<u64>(), chunks(), vec(chunks(), 0..9), any::<bool>())
        .prop_map(|(epoch, frontier, holes, impatient)| LeaseGrant { epoch, frontier, holes, impatient })
}

pub(super) fn outcomes() -> impl Strategy<Value = AnnounceOutcome> {
    let lease = prop_oneof![
        grants().prop_map(LeaseState::Granted),
        nodes().prop_map(LeaseState::HeldBy),
        Just(LeaseState::Nobody),
        (failures(), spans()).prop_map(|(failure, retry_after)| LeaseState::Refused { failure, retry_after }),
    ];
    let peers = vec((nodes(), zones()).prop_map(|(node, zone)| PeerInfo { node, zone }), 0..5);
    let first = (keys(), peers, lease, vec(signed_links(), 0..4));
    let rest = (option::of(any::<u64>()), option::of(nodes()), vec(nodes(), 0..9), spans());
    let accepted = (first, rest, contacts()).prop_map(
        |((key, peers, lease, links), (withdrawn, gateway, banned, interval), contacts)| {
            let reply = AnnounceReply { key, peers, lease, links, withdrawn, gateway, banned, interval };
            Ok(Accepted { reply, contacts })
        },
    );
    prop_oneof![3 => accepted, 1 => ".{0,100}".prop_map(|reason| Err(Refusal::new(&reason)))]
}

pub(super) fn notices() -> impl Strategy<Value = Notice> {
    let directive = prop_oneof![
        (keys(), grants()).prop_map(|(key, grant)| Directive::Lease { key, grant }),
        (keys(), any::<u64>()).prop_map(|(key, epoch)| Directive::LeaseRevoked { key, epoch }),
        (keys(), any::<u64>()).prop_map(|(key, epoch)| Directive::Withdraw { key, epoch }),
        (keys(), nodes()).prop_map(|(key, node)| Directive::Gateway { key, node }),
        vec(nodes(), 0..9).prop_map(|nodes| Directive::Ban { nodes }),
    ];
    (directive, contacts()).prop_map(|(directive, contacts)| Notice { directive, contacts })
}

pub(super) fn frames() -> impl Strategy<Value = PeerFrame> {
    let hello = (any::<[u16; 3]>(), names(), zones(), any::<u64>()).prop_map(
        |([newest, oldest, port], name, zone, incarnation)| Hello {
            versions: Versions { newest, oldest },
            name,
            zone,
            port,
            incarnation,
        },
    );
    let reasons = prop::sample::select(&super::golden::CLOSE_REASONS[..]);
    let chunk = (keys(), chunks(), any::<u32>()).prop_map(|(key, chunk, length)| PeerFrame::Chunk {
        key,
        chunk,
        length: length % (key.chunk_size.bytes() + 1),
    });
    let chain = vec(vec(any::<u8>(), 0..500).prop_map(Bytes::from), 0..4);
    prop_oneof![
        1 => hello.prop_map(PeerFrame::Hello),
        1 => reasons.prop_map(PeerFrame::Close),
        1 => any::<u64>().prop_map(PeerFrame::Ping),
        1 => any::<u64>().prop_map(PeerFrame::Pong),
        10 => messages().prop_map(PeerFrame::Message),
        1 => chunk,
        1 => any::<u32>().prop_map(|length| PeerFrame::Slice { length }),
        1 => nodes().prop_map(|node| PeerFrame::CertificateWanted { node }),
        1 => (nodes(), chain).prop_map(|(node, chain)| PeerFrame::Certificate { node, chain }),
        2 => (any::<u32>(), announces()).prop_map(|(id, announce)| PeerFrame::Announce { id, announce }),
        2 => (any::<u32>(), outcomes()).prop_map(|(id, outcome)| PeerFrame::AnnounceReply { id, outcome }),
        1 => notices().prop_map(PeerFrame::Notice),
        1 => (any::<u32>(), digests()).prop_map(|(id, digest)| PeerFrame::ProvidersWanted { id, digest }),
        1 => (any::<u32>(), contacts()).prop_map(|(id, contacts)| PeerFrame::Providers { id, contacts }),
        1 => (digests(), any::<bool>()).prop_map(|(digest, provides)| PeerFrame::Provide { digest, provides }),
        1 => (any::<u32>(), any::<u16>()).prop_map(|(id, want)| PeerFrame::MembersWanted { id, want }),
        1 => (any::<u32>(), contacts()).prop_map(|(id, contacts)| PeerFrame::Members { id, contacts }),
    ]
}

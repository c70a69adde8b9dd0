//! The bytes of one frame of each kind, so that a change of the format is noticed: it would keep neighbouring releases apart.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
use shoal_types::{Algorithm, BlobInfo, BlobKey, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId, Zone};

use crate::codec::*;
use crate::*;

pub(super) const CLOSE_REASONS: [CloseReason; 9] = [
    CloseReason::Other,
    CloseReason::Leaving,
    CloseReason::Duplicate,
    CloseReason::Violation,
    CloseReason::Banned,
    CloseReason::Full,
    CloseReason::TooSlow,
    CloseReason::Version,
    CloseReason::Identity,
];

const DIGEST: Digest = Digest::Sha256([0xd1; 32]);

fn key() -> BlobKey {
    BlobKey { digest: DIGEST, chunk_size: ChunkSize::MIN }
}

fn blob() -> BlobInfo {
    BlobInfo { digest: DIGEST, geometry: Geometry::new(0x2_0001, ChunkSize::MIN).unwrap() }
}

fn have() -> Arc<ChunkSet> {
    let mut set = ChunkSet::empty(3);
    set.insert(ChunkIndex::new(1));
    set.into()
}

fn links() -> SignedLinks {
    let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(1), vec![0x11; 32]).unwrap();
    let batch = LinkBatch { blob: blob(), epoch: 5, run };
    SignedLinks { batch, publisher: NodeId::new(6), signature: Signature([0x51; 64]) }
}

fn contacts() -> Vec<Contact> {
    let name = |name| NodeName::new(name).unwrap();
    vec![
        Contact::new(name("a"), Zone::new("z").unwrap(), "1.2.3.4:5".parse().unwrap()),
        Contact::new(name("b"), Zone::default(), "[::1]:5".parse().unwrap()),
    ]
}

fn grant() -> LeaseGrant {
    LeaseGrant { epoch: 5, frontier: ChunkIndex::new(2), holes: vec![ChunkIndex::new(1)], impatient: true }
}

fn announce() -> Announce {
    Announce {
        digest: DIGEST,
        size_bytes: 0x2_0001,
        chunk_size: Some(ChunkSize::MAX),
        event: AnnounceEvent::Progress,
        have: Some(have()),
        want_peers: 50,
        lease: LeaseRequest::Holding { epoch: 5, frontier: ChunkIndex::new(2), backlog: 1 },
        links: vec![links()],
        false_chain: Some(4),
        corrupt_lead: Some(3),
        accused: vec![NodeId::new(7)],
        bytes_from_peers: 8,
        bytes_from_origin: 9,
    }
}

fn reply() -> AnnounceReply {
    AnnounceReply {
        key: key(),
        peers: vec![PeerInfo { node: NodeId::new(7), zone: Zone::new("z").unwrap() }],
        lease: LeaseState::Granted(grant()),
        links: vec![],
        withdrawn: Some(3),
        gateway: None,
        banned: vec![NodeId::new(8)],
        interval: Duration::from_secs(1),
    }
}

fn all() -> Vec<PeerFrame> {
    let (key, chunk) = (key(), ChunkIndex::new(2));
    let hello = Hello {
        versions: Versions { newest: 2, oldest: 1 },
        name: NodeName::new("node").unwrap(),
        zone: Zone::new("z").unwrap(),
        port: 9000,
        incarnation: 3,
    };
    let messages = [
        PeerMessage::Join { blob: blob(), have: have(), flags: JoinFlags { gateway: false, seed: true, answer: true } },
        PeerMessage::Leave { key },
        PeerMessage::Have { key, chunks: [chunk].into(), load: Load { sources: 4 } },
        PeerMessage::Request { key, chunk, needs_links: true },
        PeerMessage::Cancel { key, chunk },
        PeerMessage::Reject { key, chunk, reason: RejectReason::Choked },
        PeerMessage::Choke,
        PeerMessage::Unchoke,
        PeerMessage::Decline,
        PeerMessage::Hungry { sources: 1 },
        PeerMessage::Substitute { key, asked: chunk, sent: ChunkIndex::new(3) },
        PeerMessage::Links { key, batches: vec![links()] },
        PeerMessage::LinksWanted { key, from: chunk },
        PeerMessage::Coming { key, chunk },
    ];
    let directives = [
        Directive::Lease { key, grant: grant() },
        Directive::LeaseRevoked { key, epoch: 5 },
        Directive::Withdraw { key, epoch: 5 },
        Directive::Gateway { key, node: NodeId::new(7) },
        Directive::Ban { nodes: vec![NodeId::new(7)] },
    ];
    let refused = LeaseState::Refused {
        failure: OriginFailure::Busy { retry_after: Duration::from_nanos(1) },
        retry_after: Duration::from_nanos(2),
    };
    let outcomes = [
        Ok(Accepted { reply: reply(), contacts: contacts() }),
        Ok(Accepted { reply: AnnounceReply { lease: refused, ..reply() }, contacts: vec![] }),
        Err(Refusal::new("no")),
    ];
    let mut frames = vec![PeerFrame::Hello(hello)];
    frames.extend(CLOSE_REASONS.map(PeerFrame::Close));
    frames.extend([PeerFrame::Ping(1), PeerFrame::Pong(2)]);
    frames.extend(messages.map(PeerFrame::Message));
    frames.push(PeerFrame::Chunk { key, chunk, length: 0x1_0000 });
    frames.push(PeerFrame::Slice { length: 0x4000 });
    frames.push(PeerFrame::CertificateWanted { node: NodeId::new(7) });
    frames.push(PeerFrame::Certificate { node: NodeId::new(7), chain: vec![Bytes::from_static(&[0x30, 0x82])] });
    frames.push(PeerFrame::Announce { id: 1, announce: announce() });
    frames.extend(outcomes.map(|outcome| PeerFrame::AnnounceReply { id: 1, outcome }));
    frames.extend(directives.map(|directive| PeerFrame::Notice(Notice { directive, contacts: vec![] })));
    frames.push(PeerFrame::ProvidersWanted { id: 1, digest: DIGEST });
    frames.push(PeerFrame::Providers { id: 1, contacts: contacts() });
    frames.push(PeerFrame::Provide { digest: DIGEST, provides: true });
    frames.push(PeerFrame::MembersWanted { id: 1, want: 50 });
    frames.push(PeerFrame::Members { id: 1, contacts: vec![] });
    frames
}

#[test]
fn the_bytes_stay_as_they_are() {
    let mut text = String::new();
    for frame in all() {
        let mut bytes = BytesMut::new();
        encode_frame(&frame, &mut bytes).unwrap();
        // Long runs of one byte are filler: shown as the byte and how often.
        let mut rest = &bytes[..];
        while let Some(byte) = rest.first() {
            let run = rest.iter().take_while(|other| *other == byte).count();
            let run = if run >= 16 { run } else { 1 };
            write!(text, "{byte:02x}").unwrap();
            if run > 1 {
                write!(text, "*{run} ").unwrap();
            }
            rest = &rest[run..];
        }
        text.push('\n');
    }
    assert_eq!(text, include_str!("golden.txt"), "the format has changed");
}

//! Everything comes back as it was sent.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
use shoal_types::{Algorithm, BlobInfo, BlobKey, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId};

use super::strategies::{announces, frames, notices, outcomes};
use crate::codec::*;
use crate::{JoinFlags, Load, PeerFrame, PeerMessage};

proptest! {
    #[test]
    fn frames_come_back_however_the_stream_is_cut(sent in prop::collection::vec(frames(), 1..5), cut in 1_usize..400) {
        let mut stream = BytesMut::new();
        for frame in &sent {
            encode_frame(frame, &mut stream).unwrap();
        }
        let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(cut) {
            buffer.put_slice(piece);
            while let Some(decoded) = decode_frame(&mut buffer).unwrap() {
                received.push(decoded);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(received, sent.into_iter().map(Decoded::Known).collect::<Vec<_>>());
    }

    #[test]
    fn a_newer_releases_fields_at_the_end_are_ignored(
        frame in frames(), more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut stream = BytesMut::new();
        encode_frame(&frame, &mut stream).unwrap();
        stream.put_slice(&more);
        let length = u32::try_from(stream.len() - 4).unwrap();
        stream[..4].copy_from_slice(&length.to_be_bytes());
        prop_assert_eq!(decode_frame(&mut stream).unwrap(), Some(Decoded::Known(frame)));
        prop_assert!(stream.is_empty());
    }

    #[test]
    fn bodies_of_announces_and_outcomes_come_back(
        announces in prop::collection::vec(announces(), 0..4), outcomes in prop::collection::vec(outcomes(), 0..4),
    ) {
        let announces: Vec<_> = (7..).zip(announces).collect();
        let body = encode_announces(announces.iter().map(|(id, announce)| (*id, announce))).unwrap();
        prop_assert_eq!(decode_announces(&body).unwrap(), announces);
        let outcomes: Vec<_> = (9..).zip(outcomes).collect();
        let body = encode_outcomes(outcomes.iter().map(|(id, outcome)| (*id, outcome))).unwrap();
        prop_assert_eq!(decode_outcomes(&body).unwrap(), outcomes);
        prop_assert_eq!(decode_announces(&body).unwrap(), vec![], "another kind is skipped");
    }

    #[test]
    fn a_stream_of_notices_comes_back(sent in prop::collection::vec(notices(), 1..4)) {
        let mut stream = BytesMut::new();
        sent.iter().for_each(|notice| encode_notice(notice, &mut stream).unwrap());
        for notice in sent {
            prop_assert_eq!(decode_notice(&mut stream).unwrap(), Some(Decoded::Known(notice)));
        }
        prop_assert_eq!(decode_notice(&mut stream).unwrap(), None);
    }
}

#[test]
fn a_later_releases_kinds_and_tags_are_skipped_and_what_follows_is_read() {
    let mut stream = BytesMut::new();
    stream.put_slice(&[0, 0, 0, 4, 200, 1, 2, 3]); // An unknown kind.
    stream.put_slice(&[0, 0, 0, 7, 66, 9, 1, 2, 3, 4, 5]); // Provide, with a digest of an unknown algorithm.
    encode_frame(&PeerFrame::Ping(5), &mut stream).unwrap();
    assert_eq!(decode_frame(&mut stream), Ok(Some(Decoded::Unknown { kind: 200 })));
    assert_eq!(decode_frame(&mut stream), Ok(Some(Decoded::Unknown { kind: 66 })));
    assert_eq!(decode_frame(&mut stream), Ok(Some(Decoded::Known(PeerFrame::Ping(5)))));
}

#[test]
fn the_largest_bitmap_fits() {
    let geometry = Geometry::new(4 << 40, ChunkSize::MAX).unwrap();
    let blob = BlobInfo { digest: Digest::Sha512([1; 64]), geometry };
    let have = ChunkSet::full_of(geometry).into();
    let join = PeerFrame::Message(PeerMessage::Join { blob, have, flags: JoinFlags::default() });
    let mut stream = BytesMut::new();
    encode_frame(&join, &mut stream).unwrap();
    assert_eq!(decode_frame(&mut stream), Ok(Some(Decoded::Known(join))));
}

fn received(message: PeerMessage) -> Vec<PeerMessage> {
    let mut stream = BytesMut::new();
    encode_frame(&PeerFrame::Message(message), &mut stream).unwrap();
    std::iter::from_fn(|| decode_frame(&mut stream).unwrap())
        .map(|decoded| match decoded {
            Decoded::Known(PeerFrame::Message(message)) => message,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_is_too_long_for_one_frame_leaves_as_several() {
    let digest = Digest::Sha256([1; 32]);
    let key = BlobKey { digest, chunk_size: ChunkSize::MIN };
    let chunks: Vec<ChunkIndex> = (0..100_000).map(ChunkIndex::new).collect();
    let haves = received(PeerMessage::Have { key, chunks: chunks.clone().into(), load: Load { sources: 3 } });
    let told: Vec<ChunkIndex> = haves
        .iter()
        .flat_map(|have| match have {
            PeerMessage::Have { chunks, load: Load { sources: 3 }, .. } => chunks.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((haves.len(), told), (7, chunks));

    let geometry = Geometry::new(1 << 30, ChunkSize::MIN).unwrap();
    let batch = |links: usize| {
        let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(0), vec![1; links * 32]).unwrap();
        let batch = LinkBatch { blob: BlobInfo { digest, geometry }, epoch: 1, run };
        SignedLinks { batch, publisher: NodeId::new(1), signature: Signature([2; 64]) }
    };
    let batches: Vec<SignedLinks> = [1, 4096, 1, 1, 4096, 2000, 2000, 3].map(batch).into();
    let frames = received(PeerMessage::Links { key, batches: batches.clone() });
    let told: Vec<SignedLinks> = frames
        .iter()
        .flat_map(|frame| match frame {
            PeerMessage::Links { batches, .. } => batches.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((frames.len(), told), (5, batches));

    // The longest run goes; one that no frame holds doesn't, and writes nothing.
    assert_eq!(received(PeerMessage::Links { key, batches: vec![batch(MAX_RUN_BYTES / 32)] }).len(), 1);
    let mut stream = BytesMut::new();
    let links = PeerMessage::Links { key, batches: vec![batch(MAX_BODY_BYTES / 32)] };
    assert!(encode_frame(&PeerFrame::Message(links), &mut stream).is_err());
    assert!(stream.is_empty());
}

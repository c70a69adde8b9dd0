//! Whatever comes from outside is decoded or refused; it neither panics nor makes anyone allocate what it doesn't bring.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::strategies::{announces, frames};
use crate::codec::*;

/// Decodes until the bytes are used up or refused; the bytes that were taken.
fn drain(bytes: &[u8]) -> usize {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(_)) = decode_frame(&mut buffer) {}
    bytes.len() - buffer.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        drain(&body);
        let mut stream = BytesMut::new();
        stream.put_u32(u32::try_from(body.len() + 1).unwrap());
        stream.put_u8(kind);
        stream.put_slice(&body);
        let mut taken = stream.clone();
        if let Ok(decoded) = decode_frame(&mut taken) {
            prop_assert!(decoded.is_some() && taken.is_empty(), "a whole frame is taken whole");
        }
        let _ = decode_announces(&body);
        let _ = decode_outcomes(&body);
    }

    #[test]
    fn truncations(frame in frames(), at in any::<prop::sample::Index>()) {
        let mut stream = BytesMut::new();
        encode_frame(&frame, &mut stream).unwrap();
        let cut = at.index(stream.len());
        let mut buffer = BytesMut::from(&stream[..cut]);
        prop_assert_eq!(decode_frame(&mut buffer), Ok(None), "the rest may still come");
        prop_assert_eq!(buffer.len(), cut);
        // A frame that says to end there is refused, or is skipped, or had nothing after it that it needs.
        if cut > 4 {
            buffer[..4].copy_from_slice(&u32::try_from(cut - 4).unwrap().to_be_bytes());
            let whole = decode_frame(&mut buffer);
            prop_assert!(whole.is_err() || !matches!(whole, Ok(Some(Decoded::Known(known))) if known == frame));
        }
    }

    #[test]
    fn bit_flips(frame in frames(), flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4)) {
        let mut stream = BytesMut::new();
        encode_frame(&frame, &mut stream).unwrap();
        for (at, bit) in flips {
            let at = at.index(stream.len());
            stream[at] ^= 1 << (bit % 8);
        }
        drain(&stream);
    }

    #[test]
    fn bodies_with_flipped_bits_and_cut_ends(
        announce in announces(), at in any::<prop::sample::Index>(), bit in 0..8, cut in any::<prop::sample::Index>(),
    ) {
        let mut body = encode_announces([(1, &announce)]).unwrap();
        prop_assert!(decode_announces(&body[..cut.index(body.len())]).is_ok_and(|all| all.is_empty())
            || decode_announces(&body[..cut.index(body.len())]).is_err());
        let at = at.index(body.len());
        body[at] ^= 1_u8 << bit;
        let _ = decode_announces(&body);
    }
}

/// A frame of this kind: `before`, then a count of items that nothing follows.
fn with_count(kind: u8, before: &[u8], count: u32) -> BytesMut {
    let mut stream = BytesMut::new();
    stream.put_u32(u32::try_from(1 + before.len() + 4).unwrap());
    stream.put_u8(kind);
    stream.put_slice(before);
    stream.put_u32(count);
    stream
}

#[test]
fn a_count_is_believed_only_if_so_many_items_can_follow() {
    let mut key = vec![1; 33];
    key.push(16);
    let id = [0, 0, 0, 1];
    // Have, Links, Certificate, Providers, Members.
    let lists = [(18, &key[..]), (27, &key), (34, &[0; 16]), (65, &id), (68, &id)];
    for (kind, before) in lists {
        for count in [1, 1 << 16, u32::MAX] {
            let decoded = decode_frame(&mut with_count(kind, before, count));
            assert_eq!(decoded, Err(DecodeError::Truncated { kind }), "{count} items");
        }
    }
    // A Join's bitmap.
    let mut blob = vec![1; 33];
    blob.extend([0, 0, 0, 0, 0, 1, 0, 0, 16]);
    assert_eq!(decode_frame(&mut with_count(16, &blob, 1 << 20)), Err(DecodeError::Truncated { kind: 16 }));
    let error = DecodeError::Invalid { kind: 16, field: "bitmap" };
    assert_eq!(decode_frame(&mut with_count(16, &blob, (1 << 20) + 1)), Err(error));
}

#[test]
fn impossible_frames_are_refused_with_the_reason() {
    let long = u32::try_from(MAX_BODY_BYTES + 2).unwrap().to_be_bytes();
    let mut chunk = vec![0, 0, 0, 43, 32];
    chunk.extend([1; 33]);
    chunk.extend([16, 0, 0, 0, 0, 0, 1, 0, 1]);
    let mut key = vec![0, 0, 0, 35, 17];
    key.extend([1; 33]);
    key.push(23);
    let cases: [(&[u8], DecodeError); 7] = [
        (&[0, 0, 0, 0], DecodeError::Empty),
        (&long, DecodeError::TooLong { bytes: MAX_BODY_BYTES as u64 + 2, limit: MAX_BODY_BYTES }),
        (&[0, 0, 0, 2, 3, 0], DecodeError::Truncated { kind: 3 }),
        (&chunk, DecodeError::Invalid { kind: 32, field: "length" }),
        (&key, DecodeError::Invalid { kind: 17, field: "chunk size" }),
        (&[0, 0, 0, 8, 1, 0, 1, 0, 1, 1, b' ', 0], DecodeError::Invalid { kind: 1, field: "name" }),
        (&[0, 0, 0, 10, 1, 0, 1, 0, 1, 1, b'a', 2, 0xff, 0xff], DecodeError::Invalid { kind: 1, field: "zone" }),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode_frame(&mut BytesMut::from(bytes)), Err(error));
    }
    assert_eq!(decode_announces(&[]), Err(DecodeError::IncompleteBody));
    assert_eq!(decode_announces(&[9]), Err(DecodeError::Version { found: 9 }));
    assert_eq!(decode_announces(&[1, 0, 0, 0, 2, 3]), Err(DecodeError::IncompleteBody));
}

//! The stream from tracker to agent: frames in the body of one long answer.
//!
//! ```text
//! frame:  u8 kind | u32 length of what follows | body
//! ```
//!
//! State: none.
//! Invariants: the first frame is a [`Hello`]. A reader skips kinds that it doesn't know and ignores what follows the fields that it
//! knows.
//! Absent on purpose: numbers and acknowledgements. What is lost with a connection is said again in the answer to the next announce.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use shoal_wire::Notice;
use shoal_wire::codec::{DecodeError, Decoded, decode_notice, encode_notice};

use crate::protocol::Replica;

const HELLO: u8 = 1;
const NOTICE: u8 = 2;
const POLICY: u8 = 3;
const REPLICAS: u8 = 4;
const KEEPALIVE: u8 = 5;

const HEADER: usize = 5;
/// The longest body: a notice's frame with its header, which is longer than a list of replicas.
const MAX_BODY: usize = shoal_wire::codec::MAX_BODY_BYTES + HEADER;

/// What the tracker says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// This incarnation of the tracker: another one than last time knows nothing.
    pub(crate) incarnation: u64,
    /// The tracker has taken this stream for the older one's continuation.
    pub(crate) resumed: bool,
    /// The Swarm document's version.
    pub(crate) swarm: String,
    /// All ready replicas.
    pub(crate) replicas: Vec<Replica>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StreamEvent {
    Hello(Hello),
    Notice(Notice),
    PolicyChanged { version: String },
    Replicas(Vec<Replica>),
    KeepAlive,
}

impl StreamEvent {
    /// Its frame. A notice that is too long to be read has none.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        let (kind, body) = match self {
            Self::Hello(hello) => (HELLO, json(hello)),
            Self::Notice(notice) => {
                let mut body = BytesMut::new();
                encode_notice(notice, &mut body).ok()?;
                (NOTICE, body.freeze())
            }
            Self::PolicyChanged { version } => (POLICY, json(version)),
            Self::Replicas(replicas) => (REPLICAS, json(replicas)),
            Self::KeepAlive => (KEEPALIVE, Bytes::new()),
        };
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY)?;
        let mut frame = BytesMut::with_capacity(HEADER + body.len());
        frame.put_u8(kind);
        frame.put_u32(length);
        frame.put(body);
        Some(frame.freeze())
    }

    /// Takes the next event that this release understands off the stream; none, while it isn't complete.
    pub(crate) fn decode(stream: &mut BytesMut) -> Result<Option<Self>, StreamError> {
        loop {
            let Some((header, _)) = stream.split_first_chunk::<HEADER>() else { return Ok(None) };
            let [kind, length @ ..] = *header;
            let length = u32::from_be_bytes(length) as usize;
            if length > MAX_BODY {
                return Err(StreamError::TooLong { bytes: length });
            }
            if stream.len() < HEADER + length {
                return Ok(None);
            }
            stream.advance(HEADER);
            let mut body = stream.split_to(length);
            return Ok(Some(match kind {
                HELLO => Self::Hello(serde_json::from_slice(&body)?),
                NOTICE => match decode_notice(&mut body)? {
                    Some(Decoded::Known(notice)) => Self::Notice(notice),
                    Some(Decoded::Unknown { .. }) => continue,
                    None => return Err(StreamError::Incomplete),
                },
                POLICY => Self::PolicyChanged { version: serde_json::from_slice(&body)? },
                REPLICAS => Self::Replicas(serde_json::from_slice(&body)?),
                KEEPALIVE => Self::KeepAlive,
                _ => continue,
            }));
        }
    }
}

/// Why bytes are no stream of events: nothing that follows can be understood.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A frame is too long.
    #[error("a frame of {bytes} bytes")]
    TooLong {
        /// How long it says to be.
        bytes: usize,
    },
    /// A frame ends in the middle.
    #[error("a frame ends in the middle")]
    Incomplete,
    /// A notice is malformed.
    #[error(transparent)]
    Notice(#[from] DecodeError),
    /// Another frame is malformed.
    #[error("a frame's JSON is malformed")]
    Json(#[from] serde_json::Error),
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("these types have no maps with other keys than strings").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_types::NodeId;
    use shoal_wire::Directive;

    use super::*;

    fn events() -> Vec<StreamEvent> {
        let replicas = vec![Replica {
            name: shoal_tracker::ReplicaName::new("operator-0").unwrap(),
            address: "operator-0.shoal:7443".parse().unwrap(),
        }];
        let swarm = "1".to_owned();
        vec![
            StreamEvent::Hello(Hello { incarnation: 7, resumed: true, swarm, replicas: replicas.clone() }),
            StreamEvent::Notice(Notice {
                directive: Directive::Ban { nodes: vec![NodeId::new(3)] },
                contacts: Vec::new(),
            }),
            StreamEvent::PolicyChanged { version: "2".to_owned() },
            StreamEvent::Replicas(replicas),
            StreamEvent::KeepAlive,
        ]
    }

    #[test]
    fn events_read_back_however_they_are_cut_and_unknown_kinds_are_skipped() {
        let mut bytes = BytesMut::from(&[99, 0, 0, 0, 3, 1, 2, 3][..]);
        events().iter().for_each(|event| bytes.put(event.encode().unwrap()));
        let (mut stream, mut read) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            stream.put_u8(byte);
            read.extend(StreamEvent::decode(&mut stream).unwrap());
        }
        assert_eq!(read, events());
    }

    proptest! {
        #[test]
        fn garbage_ends_or_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..7) {
            let mut stream = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = StreamEvent::decode(&mut stream) {}
            let mut framed = BytesMut::from(&[kind][..]);
            framed.put_u32(u32::try_from(bytes.len()).unwrap());
            framed.extend_from_slice(&bytes);
            while let Ok(Some(_)) = StreamEvent::decode(&mut framed) {}
        }
    }
}

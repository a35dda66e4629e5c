//! Messages between the agent and a child: JSON in frames with a 4-byte big-endian length.
//!
//! Children are plain threads and use [`Reader`] and [`Writer`]; the agent is async and uses
//! [`Messages`]. A length above [`MAX_MESSAGE`] or a body that is not the expected message ends the
//! conversation: after it nothing on that socket can be believed.

use crate::process::protocol::MAX_MESSAGE;
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use tokio_util::codec::{Decoder, Encoder};

/// Memory that a writer keeps, bytes.
const KEPT: usize = 256 << 10;

/// The conversation is over.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The socket failed or broke in the middle of a message.
    #[error("{act} a message: {source}")]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// More than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not the expected JSON.
    #[error("not a message of this protocol: {0}; agent and child must be one version")]
    Garbage(serde_json::Error),
}

// Asked for by `Decoder` and `Encoder`, for what their frames do to the socket.
impl From<io::Error> for CodecError {
    fn from(source: io::Error) -> Self {
        CodecError::Io { act: "read or write", source }
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let body = serde_json::to_vec(message).map_err(CodecError::Garbage)?;
    if body.len() > MAX_MESSAGE {
        return Err(CodecError::TooLong(body.len()));
    }
    Ok(body)
}

/// Reads messages, blocking.
pub struct Reader<R, T> {
    from: R,
    body: Vec<u8>,
    _message: PhantomData<T>,
}

impl<R: Read, T: DeserializeOwned> Reader<R, T> {
    /// Reads from `from`, which needs no buffer of its own.
    pub fn new(from: R) -> Self {
        Self { from, body: Vec::new(), _message: PhantomData }
    }

    /// The next message; `None` when the other side closed the socket between two messages.
    pub fn read(&mut self) -> Result<Option<T>, CodecError> {
        let io = |source| CodecError::Io { act: "read", source };
        let mut len = [0; 4];
        // The first byte alone tells an orderly end from one in the middle.
        let first = loop {
            match self.from.read(&mut len[..1]) {
                Ok(read) => break read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io(e)),
            }
        };
        if first == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut len[1..]).map_err(io)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MAX_MESSAGE {
            return Err(CodecError::TooLong(len));
        }
        self.body.resize(len, 0);
        self.from.read_exact(&mut self.body).map_err(io)?;
        serde_json::from_slice(&self.body).map(Some).map_err(CodecError::Garbage)
    }
}

/// Writes messages, blocking; its memory is kept from message to message.
pub struct Writer<W> {
    to: W,
    whole: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes to `to`, which needs no buffer of its own.
    pub fn new(to: W) -> Self {
        Self { to, whole: Vec::new() }
    }

    /// Writes one message, whole.
    pub fn write<T: Serialize>(&mut self, message: &T) -> Result<(), CodecError> {
        self.whole.clear();
        // One large message is no reason to keep its memory for ever.
        self.whole.shrink_to(KEPT);
        // Room for the length; one write for both, so that a reader is woken once.
        self.whole.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut self.whole, message).map_err(CodecError::Garbage)?;
        let body = self.whole.len() - 4;
        if body > MAX_MESSAGE {
            return Err(CodecError::TooLong(body));
        }
        self.whole[..4].copy_from_slice(&(body as u32).to_be_bytes());
        self.to
            .write_all(&self.whole)
            .and_then(|()| self.to.flush())
            .map_err(|source| CodecError::Io { act: "write", source })
    }
}

/// The same for `tokio_util::codec::{FramedRead, FramedWrite}`: decodes `T`, encodes whatever it is
/// given.
pub struct Messages<T>(PhantomData<T>);

impl<T> Default for Messages<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: DeserializeOwned> Decoder for Messages<T> {
    type Item = T;
    type Error = CodecError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<T>, CodecError> {
        let Some(len) = from.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*len) as usize;
        if len > MAX_MESSAGE {
            return Err(CodecError::TooLong(len));
        }
        if from.len() < 4 + len {
            from.reserve(4 + len - from.len());
            return Ok(None);
        }
        let whole = from.split_to(4 + len);
        serde_json::from_slice(&whole[4..]).map(Some).map_err(CodecError::Garbage)
    }
}

impl<T: Serialize, U> Encoder<T> for Messages<U> {
    type Error = CodecError;

    fn encode(&mut self, message: T, to: &mut BytesMut) -> Result<(), CodecError> {
        let body = encode(&message)?;
        to.reserve(4 + body.len());
        to.extend_from_slice(&(body.len() as u32).to_be_bytes());
        to.extend_from_slice(&body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Digest, FrameResult, Output, Reason, ReasonCode, StageTimes, result::RawTensor};
    use crate::process::protocol::{FromInfer, ToInfer};

    fn messages() -> Vec<FromInfer> {
        let reason = Reason::new(ReasonCode::LoadFailed, "model.onnx is \"truncated\"\n…");
        let result = FrameResult {
            seq: u64::MAX,
            captured_unix_ns: i64::MIN,
            latency_ms: 0.1,
            size: [1280, 720],
            output: Output {
                tensors: vec![RawTensor { name: "x".into(), shape: vec![1, -1], values: vec![0.1, -3e38] }],
                ..Output::default()
            },
            timing_ms: StageTimes::default(),
        };
        vec![
            FromInfer::Frame { seq: u64::MAX, skipped: 3, result: Ok(result) },
            FromInfer::Frame { seq: 8, skipped: 0, result: Err(reason.clone()) },
            FromInfer::Golden { verdict: Err(reason), times_ms: vec![1.5] },
        ]
    }

    #[test]
    fn both_sides_speak_the_same() {
        let mut wire = Vec::new();
        let mut writer = Writer::new(&mut wire);
        for message in messages() {
            writer.write(&message).unwrap();
        }
        let mut reader = Reader::<_, FromInfer>::new(wire.as_slice());
        let mut read = Vec::new();
        while let Some(message) = reader.read().unwrap() {
            read.push(message);
        }
        assert_eq!(read, messages());

        // The async side reads the same bytes, however they are cut, and writes the same ones.
        let (mut codec, mut buffer, mut decoded) =
            (Messages::<FromInfer>::default(), BytesMut::new(), Vec::new());
        for byte in &wire {
            buffer.extend_from_slice(&[*byte]);
            decoded.extend(Decoder::decode(&mut codec, &mut buffer).unwrap());
        }
        assert_eq!(decoded, messages());
        let mut written = BytesMut::new();
        for message in messages() {
            Encoder::encode(&mut codec, message, &mut written).unwrap();
        }
        assert_eq!(&written[..], &wire[..]);
    }

    #[test]
    fn oversize_torn_and_foreign_messages_end_the_conversation() {
        let decode = |wire: &[u8]| {
            let blocking = Reader::<_, ToInfer>::new(wire).read();
            let framed = Decoder::decode(&mut Messages::<ToInfer>::default(), &mut BytesMut::from(wire));
            (blocking, framed)
        };
        let oversize = (MAX_MESSAGE as u32 + 1).to_be_bytes();
        let (blocking, framed) = decode(&oversize);
        assert!(matches!(blocking, Err(CodecError::TooLong(_))));
        assert!(matches!(framed, Err(CodecError::TooLong(_))));

        let (blocking, framed) = decode(b"\0\0\0\x02{}");
        assert!(matches!(blocking, Err(CodecError::Garbage(_))));
        assert!(matches!(framed, Err(CodecError::Garbage(_))));

        let (blocking, framed) = decode(b"\0\0\0\x20{\"type\":");
        assert!(matches!(blocking, Err(CodecError::Io { act: "read", .. })));
        assert!(matches!(framed, Ok(None)));

        assert!(matches!(decode(b"").0, Ok(None)));
        assert!(matches!(decode(b"\0").0, Err(CodecError::Io { .. })));
        let digest = Digest::from_bytes([1; 32]);
        let long = ("x".repeat(MAX_MESSAGE), digest);
        assert!(matches!(Writer::new(Vec::new()).write(&long), Err(CodecError::TooLong(_))));
    }
}

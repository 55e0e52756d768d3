//! Messages of an uplink as bytes: JSON, compressed with zstd (RFC 8878). Both ends use this.

use std::io::Read as _;

use bytes::Bytes;
use klaxon_schemas::wire::v1::uplink::{MESSAGE_BYTES_MAX, MESSAGE_JSON_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The level of compression: what a site at the end of a thin line saves is worth more than the time it takes.
const LEVEL: i32 = 6;

/// Why a message cannot be sent, or was not understood.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// It is larger than a message may be.
    #[error("a message of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        bytes_max: usize,
    },
    /// It is not compressed as it should be, or unfolds to more than a message may be.
    #[error("a message that cannot be unfolded to as many bytes as it says, at most {MESSAGE_JSON_BYTES_MAX}")]
    Compression(#[source] std::io::Error),
    /// It is no message.
    #[error("a message that is not understood")]
    Form(#[from] serde_json::Error),
}

/// A message as bytes.
pub fn encode(message: &impl Serialize) -> Result<Bytes, CodecError> {
    let json = serde_json::to_vec(message)?;
    within(json.len(), MESSAGE_JSON_BYTES_MAX)?;
    let bytes = zstd::bulk::compress(&json, LEVEL).map_err(CodecError::Compression)?;
    within(bytes.len(), MESSAGE_BYTES_MAX)?;
    Ok(bytes.into())
}

/// Bytes as a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(serde_json::from_slice(&unfold(bytes)?)?)
}

/// The JSON of a message. No more room is taken than the message says that it needs, and none for one that says too much.
pub fn unfold(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    within(bytes.len(), MESSAGE_BYTES_MAX)?;
    let Some(json_bytes) = unfolded_bytes(bytes) else {
        // It does not say, as one that was compressed while it was made.
        let reader = zstd::stream::Decoder::with_buffer(bytes).map_err(CodecError::Compression)?;
        let mut json = Vec::new();
        let read = reader.take(MESSAGE_JSON_BYTES_MAX as u64 + 1).read_to_end(&mut json);
        read.map_err(CodecError::Compression)?;
        within(json.len(), MESSAGE_JSON_BYTES_MAX)?;
        return Ok(json);
    };
    within(json_bytes, MESSAGE_JSON_BYTES_MAX)?;
    zstd::bulk::decompress(bytes, json_bytes).map_err(CodecError::Compression)
}

/// How many bytes the JSON of a message has, as the message says.
pub fn unfolded_bytes(bytes: &[u8]) -> Option<usize> {
    let said = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten()?;
    Some(usize::try_from(said).unwrap_or(usize::MAX))
}

fn within(bytes: usize, bytes_max: usize) -> Result<(), CodecError> {
    if bytes <= bytes_max { Ok(()) } else { Err(CodecError::TooLarge { bytes, bytes_max }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klaxon_schemas::wire::v1::uplink::{Down, Up};

    #[test]
    fn a_message_comes_through_and_a_newer_one_is_known_as_such() {
        let bytes = encode(&Up::Rotated).expect("encodes");
        assert!(matches!(decode::<Up>(&bytes), Ok(Up::Rotated)));
        let newer = zstd::bulk::compress(br#"{"m":"of-the-future","x":1}"#, LEVEL).expect("compresses");
        assert!(matches!(decode::<Down>(&newer), Ok(Down::Unknown)));
    }

    #[test]
    fn what_unfolds_to_too_much_is_refused() {
        let bomb = zstd::bulk::compress(&vec![b' '; MESSAGE_JSON_BYTES_MAX + 1], LEVEL).expect("compresses");
        assert!(bomb.len() < 10_000);
        assert!(matches!(decode::<Up>(&bomb), Err(CodecError::TooLarge { .. })));
        assert!(matches!(decode::<Up>(b"no zstd"), Err(CodecError::Compression(_))));
        let mut unsaid = zstd::stream::Encoder::new(Vec::new(), LEVEL).expect("can be made");
        std::io::copy(&mut std::io::repeat(b' ').take(MESSAGE_JSON_BYTES_MAX as u64 + 1), &mut unsaid).expect("compresses");
        let unsaid = unsaid.finish().expect("compresses");
        assert_eq!(unfolded_bytes(&unsaid), None);
        assert!(matches!(decode::<Up>(&unsaid), Err(CodecError::TooLarge { .. })));
    }

    #[test]
    fn a_message_takes_the_room_that_it_needs() {
        let small = encode(&Up::Rotated).expect("encodes");
        let json = unfold(&small).expect("unfolds");
        assert_eq!((unfolded_bytes(&small), json.as_slice()), (Some(json.len()), &br#"{"m":"rotated"}"#[..]));
        assert!(json.capacity() < 1024, "{}", json.capacity());
        // A second frame behind the first is no part of what was said.
        let twice = [&small[..], &small[..]].concat();
        assert!(matches!(unfold(&twice), Err(CodecError::Compression(_))));
        let mut unsaid = zstd::stream::Encoder::new(Vec::new(), LEVEL).expect("can be made");
        std::io::Write::write_all(&mut unsaid, br#"{"m":"rotated"}"#).expect("compresses");
        assert!(matches!(decode::<Up>(&unsaid.finish().expect("compresses")), Ok(Up::Rotated)));
    }
}

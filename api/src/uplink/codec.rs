//! Messages of an uplink as bytes: JSON, compressed with zstd (RFC 8878). Both ends use this.

use std::io::Read as _;

use bytes::Bytes;
use klaxon_schemas::wire::v1::uplink::{MESSAGE_BYTES_MAX, MESSAGE_JSON_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The level of compression: what a site at the end of a thin line saves is worth more than the time it takes.
const LEVEL: i32 = 6;
/// The largest window, as a power of two, of a message that does not say what it unfolds to: as large as a message may be.
const WINDOW_LOG_MAX: u32 = MESSAGE_JSON_BYTES_MAX.ilog2();

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
    #[error("a message that cannot be unfolded to at most {MESSAGE_JSON_BYTES_MAX} bytes")]
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
    decode_sized(bytes).map(|(message, _)| message)
}

/// Bytes as a message, and how many bytes it unfolds to.
pub(super) fn decode_sized<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    within(bytes.len(), MESSAGE_BYTES_MAX)?;
    let json = unfold(bytes).map_err(CodecError::Compression)?;
    Ok((serde_json::from_slice(&json)?, json.len()))
}

/// What `bytes` unfold to. No more room is taken than they say, or, where they say nothing, than they turn out to need.
fn unfold(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let said = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    if let Some(said) = said {
        return zstd::bulk::decompress(bytes, usize::try_from(said).unwrap_or(usize::MAX).min(MESSAGE_JSON_BYTES_MAX));
    }
    let mut decoder = zstd::stream::read::Decoder::new(bytes)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut json = Vec::new();
    decoder.take(MESSAGE_JSON_BYTES_MAX as u64 + 1).read_to_end(&mut json)?;
    if json.len() > MESSAGE_JSON_BYTES_MAX { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(json) }
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
    fn no_more_room_is_taken_than_a_message_needs() {
        let json = br#"{"m":"rotated"}"#;
        let silent = zstd::stream::encode_all(&json[..], LEVEL).expect("compresses");
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&silent).ok().flatten(), None);
        for bytes in [encode(&Up::Rotated).expect("encodes").to_vec(), silent] {
            assert!(unfold(&bytes).expect("unfolds").capacity() < 1024);
            assert!(matches!(decode_sized::<Up>(&bytes), Ok((Up::Rotated, 15))));
        }
        let bomb = zstd::stream::encode_all(&vec![b' '; MESSAGE_JSON_BYTES_MAX + 1][..], LEVEL).expect("compresses");
        assert!(matches!(decode::<Up>(&bomb), Err(CodecError::Compression(_))));
    }

    #[test]
    fn what_unfolds_to_too_much_is_refused() {
        let bomb = zstd::bulk::compress(&vec![b' '; MESSAGE_JSON_BYTES_MAX + 1], LEVEL).expect("compresses");
        assert!(bomb.len() < 10_000);
        assert!(matches!(decode::<Up>(&bomb), Err(CodecError::Compression(_))));
        assert!(matches!(decode::<Up>(b"no zstd"), Err(CodecError::Compression(_))));
    }
}

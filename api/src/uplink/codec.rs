//! Messages of an uplink as bytes: JSON, compressed with zstd (RFC 8878). Both ends use this.

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
    within(bytes.len(), MESSAGE_BYTES_MAX)?;
    let json = zstd::bulk::decompress(bytes, MESSAGE_JSON_BYTES_MAX).map_err(CodecError::Compression)?;
    Ok(serde_json::from_slice(&json)?)
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
        assert!(matches!(decode::<Up>(&bomb), Err(CodecError::Compression(_))));
        assert!(matches!(decode::<Up>(b"no zstd"), Err(CodecError::Compression(_))));
    }
}

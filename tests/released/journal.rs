//! Segments, read and written by nothing but what `store/FORMAT.md` says: what a program of another release may have written.

use std::path::{Path, PathBuf};

use serde_json::Value;

const HEAD_BYTES: usize = 64;
const FRAME_HEAD_BYTES: usize = 24;
const RECORD_HEAD_BYTES: usize = 8;
const DELETE: u8 = 6;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The segments of a store, the oldest first.
pub(crate) fn segments(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("journal")).expect("is there").map(|file| file.expect("is listed").path());
    let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    segments.sort();
    segments
}

/// Writes another format into the head of a segment.
pub(crate) fn set_format(segment: &Path, format: u32) {
    let mut bytes = std::fs::read(segment).expect("is there");
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(segment, bytes).expect("is written");
}

/// Writes all records anew, each as `amend` leaves its kind and its payload. What is derived of them is taken away.
pub(crate) fn rewrite(data: &Path, mut amend: impl FnMut(&mut u8, &mut Value)) {
    for segment in segments(data) {
        let bytes = std::fs::read(&segment).expect("is there");
        let mut written = bytes[..HEAD_BYTES].to_vec();
        let mut at = HEAD_BYTES;
        while at < bytes.len() {
            assert_eq!(bytes[at..at + 4], [b'K', 0xfe, 0xff, b'F'], "a frame begins");
            let (body, first, records) = (word(&bytes, at + 4) as usize, long(&bytes, at + 12), word(&bytes, at + 20));
            let whole = &bytes[at..at + FRAME_HEAD_BYTES + body];
            written.extend(frame(&whole[FRAME_HEAD_BYTES..], first, records, &mut amend));
            at += whole.len();
        }
        std::fs::write(&segment, written).expect("is written");
        // The index, if there is one, is of other bytes.
        let _ = std::fs::remove_file(segment.with_extension("idx"));
    }
    let _ = std::fs::remove_dir_all(data.join("view"));
}

fn frame(body: &[u8], first: u64, records: u32, amend: &mut impl FnMut(&mut u8, &mut Value)) -> Vec<u8> {
    let mut written = vec![b'K', 0xfe, 0xff, b'F', 0, 0, 0, 0, 0, 0, 0, 0];
    written.extend(first.to_le_bytes());
    written.extend(records.to_le_bytes());
    let (mut at, mut position) = (0, first);
    while at < body.len() {
        let head = word(body, at);
        let (mut kind, length) = ((head >> 24) as u8, (head & 0x00ff_ffff) as usize);
        let mut payload = body[at + RECORD_HEAD_BYTES..at + RECORD_HEAD_BYTES + length].to_vec();
        if kind != DELETE {
            let mut value: Value = serde_json::from_slice(&payload).expect("a payload is JSON");
            amend(&mut kind, &mut value);
            payload = serde_json::to_vec(&value).expect("serializes");
        }
        let head = (u32::from(kind) << 24 | u32::try_from(payload.len()).expect("small")).to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), &head), &payload);
        written.extend(head);
        written.extend(crc.to_le_bytes());
        written.extend(payload);
        at += RECORD_HEAD_BYTES + length;
        position += 1;
    }
    assert_eq!(position, first + u64::from(records), "as many records as the frame says");
    let body = u32::try_from(written.len() - FRAME_HEAD_BYTES).expect("small");
    written[4..8].copy_from_slice(&body.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&written[4..8]), &written[12..]);
    written[8..12].copy_from_slice(&crc.to_le_bytes());
    written
}

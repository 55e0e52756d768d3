//! Values of variables as text.

use std::fmt::Write as _;

use klaxon_schemas::names::{AttributeValueRule, Rule as _};
use klaxon_snmp::Value;

/// A value as text. Times are not guessed at: an OCTET STRING with a date in it is bytes like any other.
pub(in crate::trap) fn shown(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::OctetString(bytes) => octets(bytes),
        Value::Null => "NULL".to_owned(),
        Value::Oid(oid) => oid.to_string(),
        Value::IpAddress(address) => address.to_string(),
        Value::Counter32(number) | Value::Gauge32(number) | Value::TimeTicks(number) => number.to_string(),
        Value::Counter64(number) => number.to_string(),
        Value::Opaque(bytes) | Value::Other(_, bytes) => hex(bytes),
        Value::Float(number) => number.to_string(),
        Value::Exception(name) => (*name).to_owned(),
    }
}

/// The number that a value is, if it is a whole one.
pub(super) fn number(value: &Value) -> Option<i128> {
    match value {
        Value::Integer(number) => Some(i128::from(*number)),
        Value::Counter32(number) | Value::Gauge32(number) | Value::TimeTicks(number) => Some(i128::from(*number)),
        Value::Counter64(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// Text where it is text, without the zeros and line ends that C programs leave behind it; else hexadecimal.
fn octets(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0').replace("\r\n", "\n"));
    match text {
        Some(text) if text.chars().all(AttributeValueRule::allows) && (bytes.is_empty() || !text.is_empty()) => text,
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What SNMP calls the type of a value.
pub(in crate::trap) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "INTEGER",
        Value::OctetString(_) => "OCTET STRING",
        Value::Null => "NULL",
        Value::Oid(_) => "OBJECT IDENTIFIER",
        Value::IpAddress(_) => "IpAddress",
        Value::Counter32(_) => "Counter32",
        Value::Gauge32(_) => "Gauge32",
        Value::TimeTicks(_) => "TimeTicks",
        Value::Counter64(_) => "Counter64",
        Value::Opaque(_) | Value::Float(_) => "Opaque",
        Value::Exception(_) => "exception",
        Value::Other(..) => "unknown",
    }
}

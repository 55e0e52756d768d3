//! Objects and their values, as RFC 3416 and RFC 2578 have them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use async_snmp::{Oid as WireOid, Value as Wire, VarBind};
use bytes::Bytes;

/// The most arcs (RFC 2578 section 3.5).
pub(crate) const ARCS_MAX: usize = 128;

/// An object identifier. Up to sixteen arcs are kept without a thing on the heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub(crate) WireOid);

impl Oid {
    /// The identifier with these arcs.
    pub fn new(arcs: &[u32]) -> Self {
        Self(WireOid::from_slice(arcs))
    }

    /// Its arcs, from the root.
    pub fn arcs(&self) -> &[u32] {
        self.0.arcs()
    }
}

/// A text is no object identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no object identifier such as 1.3.6.1.2.1.1, of at most {ARCS_MAX} numbers")]
pub struct OidError;

impl FromStr for Oid {
    type Err = OidError;

    /// Reads numbers with dots between them. A dot before the first is as net-snmp writes it, and may stand.
    fn from_str(text: &str) -> Result<Self, OidError> {
        let digits = text.strip_prefix('.').unwrap_or(text);
        let arc = |arc: &str| if arc.starts_with('+') { None } else { arc.parse().ok() };
        let arcs: Option<Vec<u32>> = digits.split('.').take(ARCS_MAX + 1).map(arc).collect();
        let arcs = arcs.filter(|arcs| arcs.len() <= ARCS_MAX).ok_or(OidError)?;
        // The first octet holds both (X.690 section 8.19.4).
        let second_max = if arcs[0] < 2 { 39 } else { u32::MAX - 80 };
        let can_be = arcs[0] <= 2 && arcs.get(1).is_none_or(|second| *second <= second_max);
        if can_be { Ok(Self::new(&arcs)) } else { Err(OidError) }
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, arc) in self.arcs().iter().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            write!(f, "{arc}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The value of a variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// INTEGER, Integer32.
    Integer(i32),
    /// OCTET STRING.
    OctetString(Bytes),
    /// NULL.
    Null,
    /// OBJECT IDENTIFIER.
    Oid(Oid),
    /// IpAddress.
    IpAddress(Ipv4Addr),
    /// Counter32.
    Counter32(u32),
    /// Gauge32, Unsigned32.
    Gauge32(u32),
    /// TimeTicks: hundredths of a second.
    TimeTicks(u32),
    /// Counter64.
    Counter64(u64),
    /// Opaque.
    Opaque(Bytes),
    /// An Opaque that holds a floating-point number, as net-snmp packs them.
    Float(f64),
    /// noSuchObject, noSuchInstance or endOfMibView.
    Exception(&'static str),
    /// Of a type that SNMP does not know.
    Other(u8, Bytes),
}

/// A variable and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Varbind {
    /// Which object, with its instance.
    pub oid: Oid,
    /// What it is.
    pub value: Value,
}

impl From<&VarBind> for Varbind {
    fn from(varbind: &VarBind) -> Self {
        Self { oid: Oid(varbind.oid.clone()), value: Value::from(&varbind.value) }
    }
}

impl From<&Wire> for Value {
    fn from(value: &Wire) -> Self {
        match value {
            Wire::Integer(number) => Self::Integer(*number),
            Wire::OctetString(bytes) | Wire::Nsap(bytes) => Self::OctetString(bytes.clone()),
            Wire::Null => Self::Null,
            Wire::ObjectIdentifier(oid) => Self::Oid(Oid(oid.clone())),
            Wire::IpAddress(address) => Self::IpAddress((*address).into()),
            Wire::Counter32(number) => Self::Counter32(*number),
            Wire::Gauge32(number) | Wire::UInteger32(number) => Self::Gauge32(*number),
            Wire::TimeTicks(ticks) => Self::TimeTicks(*ticks),
            Wire::Counter64(number) => Self::Counter64(*number),
            Wire::Opaque(bytes) => {
                let float = value.as_opaque_float().map(f64::from).or_else(|| value.as_opaque_double());
                float.map_or_else(|| Self::Opaque(bytes.clone()), Self::Float)
            }
            Wire::NoSuchObject => Self::Exception("noSuchObject"),
            Wire::NoSuchInstance => Self::Exception("noSuchInstance"),
            Wire::EndOfMibView => Self::Exception("endOfMibView"),
            Wire::Unknown { tag, data } => Self::Other(*tag, data.clone()),
            // The library may learn of more.
            other => Self::OctetString(Bytes::copy_from_slice(other.to_string().as_bytes())),
        }
    }
}

impl From<Value> for Wire {
    /// What an agent or a notification has is written; what only comes in (an exception, an unknown type) is written as NULL.
    fn from(value: Value) -> Self {
        match value {
            Value::Integer(number) => Self::Integer(number),
            Value::OctetString(bytes) => Self::OctetString(bytes),
            Value::Null | Value::Exception(_) | Value::Other(..) => Self::Null,
            Value::Oid(oid) => Self::ObjectIdentifier(oid.0),
            Value::IpAddress(address) => Self::IpAddress(address.octets()),
            Value::Counter32(number) => Self::Counter32(number),
            Value::Gauge32(number) => Self::Gauge32(number),
            Value::TimeTicks(ticks) => Self::TimeTicks(ticks),
            Value::Counter64(number) => Self::Counter64(number),
            Value::Opaque(bytes) => Self::Opaque(bytes),
            Value::Float(number) => Self::Opaque(double(number)),
        }
    }
}

/// A double as net-snmp wraps it: tags 0x9f 0x79, eight bytes, the number.
fn double(number: f64) -> Bytes {
    Bytes::copy_from_slice(&[&[0x9f, 0x79, 8], &number.to_be_bytes()[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_are_read_as_they_are_written() {
        for text in ["1", "1.3", "1.3.6.1.4.1.8072", "0.0", "2.999.3", "1.39.4294967295"] {
            assert_eq!(text.parse::<Oid>().map(|oid| oid.to_string()).as_deref(), Ok(text));
            assert_eq!(format!(".{text}").parse::<Oid>().map(|oid| oid.to_string()).as_deref(), Ok(text));
        }
        let long = vec!["1"; 129].join(".");
        for text in ["", ".", "3", "1.", "1..3", "3.1", "1.40", "1.3.x", "1.+3", "1.3.4294967296", "..1.3", " 1.3", &long] {
            assert_eq!(text.parse::<Oid>(), Err(OidError), "{text}");
        }
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        let bytes = Bytes::from_static(b"x");
        let values = [
            Value::Integer(-7),
            Value::OctetString(bytes.clone()),
            Value::Null,
            Value::Oid(Oid::new(&[1, 3])),
            Value::IpAddress(Ipv4Addr::LOCALHOST),
            Value::Counter32(1),
            Value::Gauge32(2),
            Value::TimeTicks(3),
            Value::Counter64(u64::MAX),
            Value::Opaque(bytes),
            Value::Float(0.5),
        ];
        for value in values {
            assert_eq!(Value::from(&Wire::from(value.clone())), value);
        }
    }
}

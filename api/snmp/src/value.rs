//! Objects and their values, as RFC 3416 and RFC 2578 have them.

use std::fmt;
use std::net::Ipv4Addr;

use async_snmp::{Oid as WireOid, VarBind};
use bytes::Bytes;

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
        use async_snmp::Value as Wire;
        let value = match &varbind.value {
            Wire::Integer(number) => Value::Integer(*number),
            Wire::OctetString(bytes) | Wire::Nsap(bytes) => Value::OctetString(bytes.clone()),
            Wire::Null => Value::Null,
            Wire::ObjectIdentifier(oid) => Value::Oid(Oid(oid.clone())),
            Wire::IpAddress(address) => Value::IpAddress((*address).into()),
            Wire::Counter32(number) => Value::Counter32(*number),
            Wire::Gauge32(number) | Wire::UInteger32(number) => Value::Gauge32(*number),
            Wire::TimeTicks(ticks) => Value::TimeTicks(*ticks),
            Wire::Counter64(number) => Value::Counter64(*number),
            Wire::Opaque(bytes) => {
                let value = &varbind.value;
                let float = value.as_opaque_float().map(f64::from).or_else(|| value.as_opaque_double());
                float.map_or_else(|| Value::Opaque(bytes.clone()), Value::Float)
            }
            Wire::NoSuchObject => Value::Exception("noSuchObject"),
            Wire::NoSuchInstance => Value::Exception("noSuchInstance"),
            Wire::EndOfMibView => Value::Exception("endOfMibView"),
            Wire::Unknown { tag, data } => Value::Other(*tag, data.clone()),
            // The library may learn of more.
            other => Value::OctetString(Bytes::copy_from_slice(other.to_string().as_bytes())),
        };
        Self { oid: Oid(varbind.oid.clone()), value }
    }
}

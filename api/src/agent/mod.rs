//! The tables that SNMP shows: KLAXON-ALARM-MIB, and the alarm MIBs of RFC 3877 and of StarlingX beside it.

pub(crate) mod causes;
pub(crate) mod cells;
pub mod indexes;
pub mod oids;
pub(crate) mod values;

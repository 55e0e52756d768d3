//! The MIB module that says what is shown and sent by SNMP. The number it hangs at is replaced where another one is configured.

/// KLAXON-ALARM-MIB, as SMIv2 (RFC 2578).
pub const KLAXON_ALARM_MIB: &str = include_str!("../mib/KLAXON-ALARM-MIB.txt");

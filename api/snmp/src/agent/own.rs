//! What every agent says of itself: the groups system and snmp (RFC 3418), snmpEngine and snmpMPDStats (RFC 3411, RFC 3412),
//! snmpUnknownContexts (RFC 3413) and usmStats (RFC 3414). Of RFC 3418 only what is known is there: the library counts no packets.

use std::sync::Arc;

use async_snmp::MAX_UDP_PAYLOAD;
use bytes::Bytes;

use super::counts::{AgentCounts, Library};
use super::scalars::Scalars;
use super::{Objects, System};
use crate::{Engine, Value};

const SYSTEM: [u32; 7] = [1, 3, 6, 1, 2, 1, 1];
const SNMP: [u32; 7] = [1, 3, 6, 1, 2, 1, 11];
const SNMP_ENGINE: [u32; 9] = [1, 3, 6, 1, 6, 3, 10, 2, 1];
const MPD_STATS: [u32; 9] = [1, 3, 6, 1, 6, 3, 11, 2, 1];
const TARGET_OBJECTS: [u32; 8] = [1, 3, 6, 1, 6, 3, 12, 1];
const USM_STATS: [u32; 9] = [1, 3, 6, 1, 6, 3, 15, 1, 1];
/// sysServices of a host that offers applications: layers 4 and 7.
const SERVICES: i32 = 72;
/// snmpEnableAuthenTraps: the agent sends no authenticationFailure.
const DISABLED: i32 = 2;

/// The agent's own objects.
pub(super) fn objects(system: &System, engine: &Engine, counts: &Arc<AgentCounts>) -> Vec<Arc<dyn Objects>> {
    let text = |text: &str| Value::OctetString(Bytes::copy_from_slice(text.as_bytes()));
    let System { description, object_id, contact, name, location } = system;
    let uptime = engine.clone();
    let (boots, time) = (Arc::clone(counts), Arc::clone(counts));
    let id = Value::OctetString(Bytes::copy_from_slice(engine.id()));
    let always = |value: Value| -> Box<dyn Fn() -> Value + Send + Sync> { Box::new(move || value.clone()) };
    let refused = |read: fn(&AgentCounts) -> u64| -> Box<dyn Fn() -> Value + Send + Sync> {
        let counts = Arc::clone(counts);
        Box::new(move || counter(read(&counts)))
    };
    let counted = |read: fn(&Library) -> u64| -> Box<dyn Fn() -> Value + Send + Sync> {
        let counts = Arc::clone(counts);
        Box::new(move || counter(read(&counts.library())))
    };
    let groups = [
        Scalars::new(
            &SYSTEM,
            vec![
                (1, always(text(description))),
                (2, always(Value::Oid(object_id.clone()))),
                (3, Box::new(move || Value::TimeTicks(uptime.uptime_ticks()))),
                (4, always(text(contact))),
                (5, always(text(name))),
                (6, always(text(location))),
                (7, always(Value::Integer(SERVICES))),
            ],
        ),
        Scalars::new(
            &SNMP,
            vec![
                (4, refused(|counts| counts.refusals().community())),
                (6, counted(|library| library.malformed)),
                (30, always(Value::Integer(DISABLED))),
                (31, counted(|library| library.silent_drops)),
                (32, always(Value::Counter32(0))),
            ],
        ),
        Scalars::new(
            &SNMP_ENGINE,
            vec![
                (1, always(id)),
                (2, Box::new(move || integer(boots.boots_time().0))),
                (3, Box::new(move || integer(time.boots_time().1))),
                (4, always(integer(MAX_UDP_PAYLOAD as u32))),
            ],
        ),
        Scalars::new(
            &MPD_STATS,
            vec![
                (1, counted(|library| library.unknown_models)),
                (2, counted(|library| library.invalid)),
                (3, always(Value::Counter32(0))),
            ],
        ),
        Scalars::new(&TARGET_OBJECTS, vec![(4, always(Value::Counter32(0))), (5, counted(|library| library.unknown_contexts))]),
        Scalars::new(
            &USM_STATS,
            vec![
                (1, counted(|library| library.unsupported_levels)),
                (2, counted(|library| library.outside_time_windows)),
                (3, counted(|library| library.unknown_users)),
                (4, counted(|library| library.unknown_engine_ids)),
                (5, counted(|library| library.wrong_digests)),
                (6, counted(|library| library.decryption_errors)),
            ],
        ),
    ];
    groups.into_iter().map(|group| Arc::new(group) as Arc<dyn Objects>).collect()
}

/// A Counter32, which begins anew when it is full.
fn counter(count: u64) -> Value {
    Value::Counter32((count & u64::from(u32::MAX)) as u32)
}

/// A number that RFC 3411 bounds by 2^31-1.
fn integer(number: u32) -> Value {
    Value::Integer(i32::try_from(number).unwrap_or(i32::MAX))
}

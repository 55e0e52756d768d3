//! ALARM-MIB of RFC 3877: alarmActiveState and alarmClearState. The standard says with them only where to look; so that nobody has
//! to, what is of use stands behind its two variables.
//!
//! It has no words for log events, digests, gaps and heartbeats: they are passed over.

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, ChangeKind};
use klaxon_schemas::names::AlarmType;
use klaxon_schemas::notify::How;
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{Oid, Value};
use sha2::{Digest as _, Sha256};

use super::draft::{Draft, cut, string};
use super::klaxon::resource_oid;
use crate::agent::oids::{AlarmColumn, DeliveryObject, Root};
use crate::agent::values;
use crate::notify::{Notification, What};

/// alarmActiveState
const ACTIVE_STATE: &[u32] = &[1, 3, 6, 1, 2, 1, 118, 0, 2];
/// alarmClearState
const CLEAR_STATE: &[u32] = &[1, 3, 6, 1, 2, 1, 118, 0, 3];
/// alarmActiveEntry
const ACTIVE_ENTRY: &[u32] = &[1, 3, 6, 1, 2, 1, 118, 1, 2, 2, 1];
/// alarmActiveResourceId
const RESOURCE_ID: u32 = 10;
/// alarmActiveDescription
const DESCRIPTION: u32 = 11;
/// The longest SnmpAdminString (RFC 3411 section 5).
const DESCRIPTION_BYTES_MAX: usize = 255;
/// alarmActiveModelPointer
const MODEL_POINTER: u32 = 13;
/// alarmModelNotificationId, the first column that can be read of what alarmActiveModelPointer points to.
const MODEL_NOTIFICATION_ID: &[u32] = &[1, 3, 6, 1, 2, 1, 118, 1, 1, 2, 1, 3];
/// The state of a model in which the alarm is over.
const STATE_CLEAR: u32 = 1;

/// What the receiver is told of an alarm's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It stands.
    Active,
    /// It does not, or is set aside.
    Clear,
}

/// What `how` means to a receiver that knows active and clear only. Who is told that an alarm is less urgent than what it asked
/// for is told how urgent it is: it stands. Of what is set aside or is asked for no more, it is told that it is over.
pub(super) fn state(how: How, change: Option<&Change>) -> State {
    match how {
        How::Raised | How::Changed => State::Active,
        How::Left if change.is_some_and(|change| change.kind == ChangeKind::SeverityChanged) => State::Active,
        How::Left | How::Cleared | How::Retired => State::Clear,
    }
}

/// The notification, if there are words for it.
pub(super) fn draft(root: &Root, index: u32, notification: &Notification) -> Option<Draft> {
    let What::Alarm { how, change, alarm, .. } = &notification.what else { return None };
    let state = state(*how, change.as_deref());
    let trap_oid = match state {
        State::Active => ACTIVE_STATE,
        State::Clear => CLEAR_STATE,
    };
    let mut draft = Draft::new(Oid::new(trap_oid));
    let instance = instance(alarm, index);
    let active = |column: u32| Oid::new(&[ACTIVE_ENTRY, &[column], &instance].concat());
    let model_state = match state {
        State::Active => model_state(alarm.severity),
        State::Clear => STATE_CLEAR,
    };
    let model = [MODEL_NOTIFICATION_ID, &[0, model_index(&alarm.key.alarm_type), model_state]].concat();
    draft.put(active(MODEL_POINTER), Value::Oid(Oid::new(&model)));
    draft.put(active(RESOURCE_ID), Value::Oid(resource_oid(root, index)));
    draft.put_text(active(DESCRIPTION), string(cut(&alarm.text, DESCRIPTION_BYTES_MAX)));
    let extra = [
        (root.alarm(AlarmColumn::Id, index), string(alarm.id.to_string())),
        (root.alarm(AlarmColumn::Severity, index), Value::Integer(values::severity(alarm.severity))),
        (root.alarm(AlarmColumn::RaiseSeq, index), Value::Gauge32(alarm.raise_seq)),
        (root.delivery(DeliveryObject::Epoch), Value::Counter64(notification.epoch.0)),
        (root.delivery(DeliveryObject::Seq), Value::Counter64(notification.delivery_seq)),
        (root.alarm(AlarmColumn::Site, index), string(alarm.key.site.as_str())),
        (root.alarm(AlarmColumn::Type, index), string(alarm.key.alarm_type.as_str())),
        (root.alarm(AlarmColumn::Resource, index), string(alarm.key.resource.as_str())),
        (root.alarm(AlarmColumn::Qualifier, index), string(alarm.key.qualifier.as_str())),
    ];
    extra.into_iter().for_each(|(oid, value)| draft.put_extra(oid, value));
    Some(draft)
}

/// The row of alarmActiveTable: the list without a name, when the episode began, the alarm.
fn instance(alarm: &Alarm, index: u32) -> Vec<u32> {
    let time = values::octets_of_time(alarm.raised_at);
    let length = u32::try_from(time.len()).expect("is 11");
    [0, length].into_iter().chain(time.map(u32::from)).chain([index]).collect()
}

/// alarmModelState, as RFC 3877 section 5.4 has it for the severities of ITU.
fn model_state(severity: Severity) -> u32 {
    match severity {
        Severity::Indeterminate => 2,
        Severity::Warning => 3,
        Severity::Minor => 4,
        Severity::Major => 5,
        Severity::Critical => 6,
    }
}

/// alarmModelIndex of a type: the same everywhere and always.
fn model_index(alarm_type: &AlarmType) -> u32 {
    let sum = Sha256::digest(alarm_type.as_bytes());
    (u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]) & 0x7fff_ffff).max(1)
}

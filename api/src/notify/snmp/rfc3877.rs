//! ALARM-MIB of RFC 3877: alarmActiveState and alarmClearState. The standard says with them only where to look; so that nobody has
//! to, what is of use stands behind its two variables.
//!
//! It has no words for log events, digests, gaps and heartbeats: they are passed over.

use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, ChangeKind};
use klaxon_schemas::notify::How;
use klaxon_snmp::{Oid, Value};

use super::draft::{Draft, cut, string};
use crate::agent::oids::{AlarmColumn, DeliveryObject, Root};
use crate::agent::rfc3877::{active_instance, model_row};
use crate::agent::snapshot::Models;
use crate::agent::{Shown, values};
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

/// What is said with.
pub(super) struct Say<'a> {
    pub(super) root: &'a Root,
    pub(super) catalogue: &'a Catalogue,
    pub(super) models: &'a Models,
    /// The row of the alarm.
    pub(super) index: u32,
}

impl Say<'_> {
    /// The notification, if there are words for it.
    pub(super) fn draft(&self, notification: &Notification) -> Option<Draft> {
        let Self { root, index, .. } = *self;
        let What::Alarm { how, change, alarm, suppressed } = &notification.what else { return None };
        let state = state(*how, change.as_deref());
        let (trap_oid, severity) = match state {
            State::Active => (ACTIVE_STATE, Some(alarm.severity)),
            State::Clear => (CLEAR_STATE, None),
        };
        let mut draft = Draft::new(Oid::new(trap_oid));
        let instance = active_instance(alarm, index);
        let active = |column: u32| Oid::new(&[ACTIVE_ENTRY, &[column], &instance].concat());
        let shown = Shown::new(alarm, *suppressed, Some(self.catalogue));
        draft.put(active(MODEL_POINTER), Value::Oid(model_row(self.models, &shown, severity)));
        draft.put(active(RESOURCE_ID), Value::Oid(root.alarm(AlarmColumn::Resource, index)));
        // As the table has it.
        let description = format!("{}: {}", alarm.key.resource, alarm.text);
        draft.put_text(active(DESCRIPTION), string(cut(&description, DESCRIPTION_BYTES_MAX)));
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
}

//! What a manager can set: that an alarm is acknowledged, and from which number on a receiver is sent everything again.
//!
//! An acknowledgement is an operator action like any other: it comes in by a door, is journalled, and is answered when it has
//! taken effect and the tables show it. Its id is of the request, so a request that comes again acts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::action::{Action, AlarmVerb, Target, Verb};
use klaxon_schemas::change::{Refusal, RefusalReason, Subject};
use klaxon_schemas::ids::{ActionId, AlarmId, Position};
use klaxon_schemas::names::{Actor, Text};
use klaxon_snmp::{Set, SetError, SetFailed, Value};
use klaxon_store::door::Tally;
use klaxon_store::publish::{Answer, Item};
use uuid::Uuid;

use super::Shared;
use super::cells::{NAME, WORDS};
use super::klaxon::Object;
use super::oids::{AlarmColumn, ReceiverColumn};
use super::values::cut;

/// The name space of actions that are made of requests (RFC 9562, version 5).
const ACTION_NAMESPACE: Uuid = Uuid::from_u128(0x6b6c_6178_6f6e_5a2d_8f1c_736e_6d70_7365);
/// How long a set waits until the tables show what it did; it has taken effect before.
const SHOWN_WAIT: Duration = Duration::from_secs(2);

/// What one request sets of one alarm.
#[derive(Debug, Default)]
struct Order {
    acknowledge: Option<bool>,
    by: Option<String>,
    note: Option<String>,
}

impl Shared {
    /// Whether this variable could be set to this.
    pub(super) fn check(&self, object: Object, index: &[u32], value: &Value) -> Result<(), SetError> {
        let snapshot = self.snapshot();
        let has_row = |exists: &dyn Fn(u32) -> bool| match index {
            [index] if exists(*index) => Ok(()),
            _ => Err(SetError::NoCreation),
        };
        match object {
            Object::Alarm(AlarmColumn::Acknowledged) => {
                has_row(&|index| snapshot.active.get(index).is_some())?;
                match value {
                    Value::Integer(1 | 2) => Ok(()),
                    Value::Integer(_) => Err(SetError::WrongValue),
                    _ => Err(SetError::WrongType),
                }
            }
            Object::Alarm(AlarmColumn::AcknowledgedBy) => {
                has_row(&|index| snapshot.active.get(index).is_some())?;
                words(value, NAME).and_then(|text| Actor::new(text).map(drop).map_err(|_| SetError::WrongValue))
            }
            Object::Alarm(AlarmColumn::AcknowledgedNote) => {
                has_row(&|index| snapshot.active.get(index).is_some())?;
                words(value, WORDS).and_then(|text| Text::new(text).map(drop).map_err(|_| SetError::WrongValue))
            }
            Object::Receiver(ReceiverColumn::ResendFrom) => {
                has_row(&|index| snapshot.receivers.iter().any(|row| row.index == index))?;
                match value {
                    Value::Gauge32(0) => Err(SetError::WrongValue),
                    Value::Gauge32(_) if self.resend.is_none() => Err(SetError::ResourceUnavailable),
                    Value::Gauge32(_) => Ok(()),
                    _ => Err(SetError::WrongType),
                }
            }
            _ => Err(SetError::NotWritable),
        }
    }

    /// Carries out what a request asks for.
    pub(super) async fn set(self: &Arc<Self>, request: Set, orders: Vec<(Object, u32, Value)>) -> Result<(), SetFailed> {
        let outcome = self.carry_out(&request, orders).await;
        if let Err(reason) = &outcome {
            tracing::warn!(user = %request.user, source = %request.source, %reason, "what a manager set is refused");
        }
        outcome.map_err(|_| SetFailed)
    }

    async fn carry_out(self: &Arc<Self>, request: &Set, orders: Vec<(Object, u32, Value)>) -> Result<(), String> {
        let mut alarms: BTreeMap<u32, Order> = BTreeMap::new();
        let mut resends: BTreeMap<u32, u64> = BTreeMap::new();
        for (object, index, value) in orders {
            match (object, value) {
                (Object::Alarm(AlarmColumn::Acknowledged), Value::Integer(is)) => {
                    alarms.entry(index).or_default().acknowledge = Some(is == 1);
                }
                (Object::Alarm(AlarmColumn::AcknowledgedBy), Value::OctetString(by)) => {
                    alarms.entry(index).or_default().by = Some(String::from_utf8_lossy(&by).into_owned());
                }
                (Object::Alarm(AlarmColumn::AcknowledgedNote), Value::OctetString(note)) => {
                    alarms.entry(index).or_default().note = Some(String::from_utf8_lossy(&note).into_owned());
                }
                (Object::Receiver(ReceiverColumn::ResendFrom), Value::Gauge32(from)) => {
                    resends.insert(index, u64::from(from));
                }
                _ => return Err("has a variable that cannot be set".to_owned()),
            }
        }
        // All of a request or nothing: a resend and an acknowledgement have nothing to be undone by.
        match (alarms.is_empty(), resends.len()) {
            (false, 0) => self.acknowledge(request, alarms).await,
            (true, 1) => {
                let (index, from) = resends.pop_first().expect("there is one");
                self.resend(index, from).await
            }
            _ => Err("asks for a resend and something else; one at a time".to_owned()),
        }
    }

    async fn resend(&self, index: u32, from: u64) -> Result<(), String> {
        let snapshot = self.snapshot();
        let row = snapshot.receivers.iter().find(|row| row.index == index).ok_or("there is no such receiver")?;
        let resend = self.resend.as_ref().ok_or("nothing can be sent again")?;
        resend(row.shown.name.clone(), from).await
    }

    async fn acknowledge(&self, request: &Set, alarms: BTreeMap<u32, Order>) -> Result<(), String> {
        let mut wanted = BTreeMap::new();
        let mut items = Vec::new();
        let snapshot = self.snapshot();
        for (index, order) in alarms {
            let row = snapshot.active.get(index).ok_or("there is no such alarm any more")?;
            let is = order.acknowledge.ok_or("says by whom or why, and not that it is acknowledged")?;
            let words = |error: klaxon_schemas::names::NameError| error.to_string();
            let actor = Actor::new(order.by.as_deref().unwrap_or(cut(&request.user, NAME))).map_err(words)?;
            let note = order.note.as_deref().filter(|note| !note.is_empty()).map(Text::new).transpose().map_err(words)?;
            let verb = if is { AlarmVerb::Acknowledge { note } } else { AlarmVerb::Unacknowledge };
            let target = Target { id: row.alarm.id, raise_seq: Some(row.alarm.raise_seq) };
            let id = action_id(request, row.alarm.id);
            wanted.insert(row.alarm.id, is);
            items.push(Item::Action(Arc::new(Action {
                id,
                actor,
                expires_at: None,
                verb: Verb::OnAlarms(vec![target], verb),
            })));
        }
        drop(snapshot);
        let published = self.door.publish(items, Tally::default()).await.map_err(|error| error.to_string())?;
        published.answers.iter().try_for_each(refused)?;
        // One that came before may have been refused then.
        if published.answers.iter().any(|answer| matches!(answer, Answer::Duplicate)) {
            let state = self.door.store().read();
            let is_so = |(id, is): (&AlarmId, &bool)| state.alarm(*id).is_some_and(|alarm| alarm.acknowledged.is_some() == *is);
            if !wanted.iter().all(is_so) {
                return Err("it came before, and had no effect".to_owned());
            }
        }
        self.shown(published.durable.position()).await;
        Ok(())
    }

    /// Waits until the tables are at `position`.
    async fn shown(&self, position: Position) {
        let mut moved = self.moved.subscribe();
        let shown = async { while self.snapshot().position < position && moved.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(SHOWN_WAIT, shown).await;
    }
}

/// Why an action had no effect. That it is so already is what was asked for.
fn refused(answer: &Answer) -> Result<(), String> {
    let Answer::Accepted { changes, .. } = answer else {
        return match answer {
            Answer::Rejected(rejection) => Err(rejection.to_string()),
            _ => Ok(()),
        };
    };
    let refusal = changes.iter().find_map(|change| match &change.subject {
        Subject::Refusal(Refusal { reason, .. }) if *reason != RefusalReason::NoEffect => Some(reason.as_str().to_owned()),
        _ => None,
    });
    refusal.map_or(Ok(()), Err)
}

/// The words that are to be set, if they are text and not too long.
fn words(value: &Value, size: usize) -> Result<&str, SetError> {
    match value {
        Value::OctetString(bytes) if bytes.len() > size => Err(SetError::WrongLength),
        Value::OctetString(bytes) => std::str::from_utf8(bytes).map_err(|_| SetError::WrongValue),
        _ => Err(SetError::WrongType),
    }
}

/// The same for the same request of the same manager.
fn action_id(request: &Set, alarm: AlarmId) -> ActionId {
    let mut name = format!("{}\0{}\0{}\0{alarm}", request.user, request.source, request.request_id).into_bytes();
    for varbind in &request.varbinds {
        name.extend(format!("\0{} {:?}", varbind.oid, varbind.value).into_bytes());
    }
    ActionId(Uuid::new_v5(&ACTION_NAMESPACE, &name))
}

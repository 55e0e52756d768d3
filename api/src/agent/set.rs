//! What a manager can set: that an alarm is acknowledged, and from which number on a receiver is sent everything again.
//!
//! An acknowledgement is an operator action like any other: it comes in by a door, is journalled, and is answered when it has
//! taken effect and the tables show it. Its id is of the request, so a request that comes again acts once; requests that had
//! something sent again are remembered for as long as one could come again.
//!
//! A request is about one row, because nothing could undo what was done to another: [`fit`] says so before anything is done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use klaxon_schemas::action::{Action, AlarmVerb, Target, Verb};
use klaxon_schemas::alarm::Mark;
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

/// For how long a request that had something sent again is known. What is written down of one is in the time window of RFC 3414
/// for 150 seconds behind the time it names, which may lie as much ahead.
const RESENT_AGE: Duration = Duration::from_secs(330);
/// The most requests for that in this time; there are no more until some are forgotten.
const RESENT_MAX: usize = 256;

/// What one request sets of one alarm.
#[derive(Debug, Default)]
struct Order {
    acknowledge: Option<bool>,
    by: Option<String>,
    note: Option<String>,
}

/// The mark that is asked for: what is absent may be anything.
struct Asked {
    is: bool,
    by: Option<Actor>,
    note: Option<Text>,
}

/// One variable of a request.
#[derive(Clone, Copy)]
pub(super) struct Placed<'v> {
    pub(super) object: Object,
    pub(super) index: &'v [u32],
    pub(super) value: &'v Value,
}

/// Whether these two may stand in one request: if they are of one alarm, and not words about what is taken back.
pub(super) fn fit(one: Placed<'_>, other: Placed<'_>) -> bool {
    let is_of_alarms = |placed: Placed<'_>| matches!(placed.object, Object::Alarm(_));
    let takes_back =
        |placed: Placed<'_>| placed.object == Object::Alarm(AlarmColumn::Acknowledged) && *placed.value == Value::Integer(2);
    let has_words = |placed: Placed<'_>| {
        let is_empty = matches!(placed.value, Value::OctetString(words) if words.is_empty());
        placed.object == Object::Alarm(AlarmColumn::AcknowledgedNote) && !is_empty
    };
    let is_mute = (takes_back(one) && has_words(other)) || (takes_back(other) && has_words(one));
    is_of_alarms(one) && is_of_alarms(other) && one.index == other.index && one.object != other.object && !is_mute
}

/// The requests that had something sent again, the oldest first.
#[derive(Default)]
pub(super) struct Resent(Mutex<VecDeque<(Instant, Uuid)>>);

impl Resent {
    /// Forgets what is too old at `now`; says whether `id` is known, or why there can be no more.
    fn knows(&self, id: Uuid, now: Instant) -> Result<bool, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while known.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RESENT_AGE) {
            known.pop_front();
        }
        if known.iter().any(|(_, other)| *other == id) {
            return Ok(true);
        }
        if known.len() >= RESENT_MAX {
            return Err(format!("as many as {RESENT_MAX} were sent something again within {} s", RESENT_AGE.as_secs()));
        }
        Ok(false)
    }

    fn note(&self, id: Uuid, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((now, id));
    }
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
        let mut order = Order::default();
        let mut alarm = None;
        for (object, index, value) in orders {
            match (object, value) {
                (Object::Alarm(AlarmColumn::Acknowledged), Value::Integer(is)) => order.acknowledge = Some(is == 1),
                (Object::Alarm(AlarmColumn::AcknowledgedBy), Value::OctetString(by)) => {
                    order.by = Some(String::from_utf8_lossy(&by).into_owned());
                }
                (Object::Alarm(AlarmColumn::AcknowledgedNote), Value::OctetString(note)) => {
                    order.note = Some(String::from_utf8_lossy(&note).into_owned());
                }
                // It stands alone.
                (Object::Receiver(ReceiverColumn::ResendFrom), Value::Gauge32(from)) => {
                    return self.resend(request, index, u64::from(from)).await;
                }
                _ => return Err("has a variable that cannot be set".to_owned()),
            }
            alarm = Some(index);
        }
        self.acknowledge(request, alarm.ok_or("has no variable")?, order).await
    }

    async fn resend(&self, request: &Set, index: u32, from: u64) -> Result<(), String> {
        let id = request_id(request, "resend");
        if self.resent.knows(id, Instant::now())? {
            return Ok(());
        }
        let name = {
            let snapshot = self.snapshot();
            let row = snapshot.receivers.iter().find(|row| row.index == index).ok_or("there is no such receiver")?;
            row.shown.name.clone()
        };
        let resend = self.resend.as_ref().ok_or("nothing can be sent again")?;
        resend(name.clone(), from).await?;
        self.resent.note(id, Instant::now());
        tracing::info!(user = %request.user, source = %request.source, receiver = %name, from, "a manager has it sent again");
        Ok(())
    }

    async fn acknowledge(&self, request: &Set, index: u32, order: Order) -> Result<(), String> {
        let Order { acknowledge, by, note } = order;
        let is = acknowledge.ok_or("says by whom or why, and not that it is acknowledged")?;
        let words = |error: klaxon_schemas::names::NameError| error.to_string();
        let by = by.map(|by| named(&by, &request.user)).transpose().map_err(words)?;
        let actor = by.clone().map_or_else(|| Actor::new(cut(&request.user, NAME)), Ok).map_err(words)?;
        let note = note.filter(|note| !note.is_empty()).map(|note| Text::new(&note)).transpose().map_err(words)?;
        let target = {
            let snapshot = self.snapshot();
            let row = snapshot.active.get(index).ok_or("there is no such alarm any more")?;
            Target { id: row.alarm.id, raise_seq: Some(row.alarm.raise_seq) }
        };
        let verb = if is { AlarmVerb::Acknowledge { note: note.clone() } } else { AlarmVerb::Unacknowledge };
        let id = ActionId(request_id(request, &target.id.to_string()));
        let verb = Verb::OnAlarms(vec![target], verb);
        let items = vec![Item::Action(Arc::new(Action {
            id,
            actor: actor.clone(),
            from: None,
            ordered_at: None,
            expires_at: None,
            verb,
        }))];
        let published = self.door.publish(items, Tally::default()).await.map_err(|error| error.to_string())?;
        let mut has_effect = true;
        for answer in &published.answers {
            has_effect &= took_effect(answer)?;
        }
        if !has_effect {
            // It is so already, or the request came before and may have been refused then.
            self.stands(target.id, &Asked { is, by, note })?;
        }
        self.shown(published.durable.position()).await;
        let (user, source, alarm) = (&request.user, &request.source, target.id);
        let what = if is { "a manager acknowledges an alarm" } else { "a manager takes back that an alarm is acknowledged" };
        tracing::info!(%user, %source, %alarm, %actor, has_effect, "{what}");
        Ok(())
    }

    /// Whether an alarm stands as it was asked for; else why not.
    fn stands(&self, id: AlarmId, asked: &Asked) -> Result<(), String> {
        let state = self.door.store().read();
        let mark = state.alarm(id).and_then(|alarm| alarm.acknowledged.as_ref());
        let is_other = |mark: &Mark| {
            asked.by.as_ref().is_some_and(|by| *by != mark.by) || (asked.note.is_some() && asked.note != mark.note)
        };
        match mark {
            Some(_) if !asked.is => Err("it came before, and is acknowledged again since".to_owned()),
            None if asked.is => Err("it came before, and is not acknowledged now".to_owned()),
            Some(mark) if is_other(mark) => {
                Err(format!("it is acknowledged already, by another or with other words: by {}", mark.by))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the tables are at `position`.
    async fn shown(&self, position: Position) {
        let mut moved = self.moved.subscribe();
        let shown = async { while self.snapshot().position < position && moved.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(SHOWN_WAIT, shown).await;
    }
}

/// Whether an action took effect, or why it is refused. If all is so already, or it came before, it did not.
fn took_effect(answer: &Answer) -> Result<bool, String> {
    let changes = match answer {
        Answer::Accepted { changes, .. } => changes,
        Answer::Duplicate => return Ok(false),
        Answer::Rejected(rejection) => return Err(rejection.to_string()),
    };
    let refusal = changes.iter().find_map(|change| match &change.subject {
        Subject::Refusal(Refusal { reason, .. }) => Some(*reason),
        _ => None,
    });
    match refusal {
        None => Ok(true),
        Some(RefusalReason::NoEffect) => Ok(false),
        Some(reason) => Err(reason.as_str().to_owned()),
    }
}

/// Who acts where a manager says in whose name it sets: with the user whom it showed to be, if there is room.
fn named(by: &str, user: &str) -> Result<Actor, klaxon_schemas::names::NameError> {
    let suffix = format!(" (snmp/{user})");
    if by == user || by.ends_with(&suffix) {
        return Actor::new(by);
    }
    Actor::new(&format!("{by}{suffix}")).or_else(|_| Actor::new(by))
}

/// The words that are to be set, if they are text and not too long.
fn words(value: &Value, size: usize) -> Result<&str, SetError> {
    match value {
        Value::OctetString(bytes) if bytes.len() > size => Err(SetError::WrongLength),
        Value::OctetString(bytes) => std::str::from_utf8(bytes).map_err(|_| SetError::WrongValue),
        _ => Err(SetError::WrongType),
    }
}

/// The same for the same request of the same user about the same thing, wherever it comes from: who has recorded it may send it
/// from elsewhere.
fn request_id(request: &Set, about: &str) -> Uuid {
    let mut name = format!("{}\0{}\0{about}", request.user, request.request_id).into_bytes();
    for varbind in &request.varbinds {
        name.extend(format!("\0{} {:?}", varbind.oid, varbind.value).into_bytes());
    }
    Uuid::new_v5(&ACTION_NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use klaxon_snmp::{Oid, Varbind};

    use super::*;

    fn request(source: &str, request_id: i32) -> Set {
        let varbinds = vec![Varbind { oid: Oid::new(&[1, 3, 6]), value: Value::Integer(1) }];
        Set { user: "noc".to_owned(), source: source.parse().expect("an address"), request_id, varbinds }
    }

    #[test]
    fn a_request_is_the_same_wherever_it_comes_from() {
        let id = |source, number| request_id(&request(source, number), "a");
        assert_eq!(id("192.0.2.1:1", 7), id("192.0.2.2:9", 7));
        assert_ne!(id("192.0.2.1:1", 7), id("192.0.2.1:1", 8));
        assert_ne!(id("192.0.2.1:1", 7), request_id(&request("192.0.2.1:1", 7), "b"));
    }

    #[test]
    fn requests_are_known_for_as_long_as_they_could_come_again_and_there_are_so_many_at_most() {
        let (resent, begun) = (Resent::default(), Instant::now());
        let id = Uuid::from_u128;
        for number in 0..RESENT_MAX as u128 {
            assert_eq!(resent.knows(id(number), begun), Ok(false));
            resent.note(id(number), begun);
        }
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(resent.knows(id(0), at(300)), Ok(true));
        assert!(resent.knows(id(1_000), at(300)).is_err(), "none that is young gives way");
        assert_eq!(resent.knows(id(0), at(331)), Ok(false));
        assert!(resent.0.lock().expect("nobody broke it").is_empty());
    }

    #[test]
    fn who_acts_is_told_with_the_user_if_there_is_room() {
        let named = |by: &str| named(by, "noc").expect("is a name").to_string();
        assert_eq!(named("jane"), "jane (snmp/noc)");
        assert_eq!(named("jane (snmp/noc)"), "jane (snmp/noc)", "as it was read");
        assert_eq!(named("noc"), "noc");
        let long = "x".repeat(NAME - 3);
        assert_eq!(named(&long), long);
    }
}

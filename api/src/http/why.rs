//! Why is this alarm what it is? Each change with what led to it, down to the reports themselves while they are kept.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::change::{Change, Reason, Timer};
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::Site;
use klaxon_schemas::wire::v1;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::alarms::{AlarmRef, find};
use super::guard::Caller;
use super::history::{page, unreadable};
use super::openapi::{Always, Found};
use super::params::Query;
use super::problem::Problem;
use super::query::AlarmHistoryParams;
use super::shown::{Lens, PlacedChange, blocking, json};

/// The most entries that are read for one answer.
const ENTRIES_MAX: usize = 1000;

/// An alarm, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhyAnswer {
    /// The alarm.
    alarm: v1::Alarm,
    /// Its changes, the newest first.
    changes: Vec<ExplainedChange>,
    /// The cursor of older changes; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A change, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedChange {
    #[serde(flatten)]
    change: PlacedChange,
    /// What led to it, in order.
    because: Vec<Because>,
}

/// One thing that led to a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Because {
    /// The reason as it is kept.
    reason: Reason,
    /// The entry that it names; absent if it names none, or the entry is no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<PlacedEntry>,
    /// The reason in words.
    text: String,
}

/// A journal entry at its place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlacedEntry {
    /// Where it stands in this node's journal.
    position: Position,
    #[serde(flatten)]
    entry: v1::Entry,
}

/// Explain one alarm: its changes, and what led to each.
#[utoipa::path(
    get,
    path = "/alarms/{id}/why",
    tag = "alarms",
    operation_id = "explainAlarm",
    params(("id" = String, Path, description = "The alarm's UUID, or its first digits, at least four"), AlarmHistoryParams),
    responses((status = 200, description = "The alarm, and why it is what it is", body = WhyAnswer), Always, Found)
)]
pub(crate) async fn why(
    State(api): State<Api>,
    caller: Caller,
    AlarmRef(reference): AlarmRef,
    Query(params): Query<AlarmHistoryParams>,
) -> Result<Response, Problem> {
    api.reach(params.at_least).await?;
    let (alarm, lens) = {
        let state = api.store().read();
        (find(&state, caller.scope(), &reference)?, Lens::of(&state))
    };
    blocking(move || {
        let history = page(&api, &params.query(alarm.id))?;
        let entries = entries(&api, history.items.iter().map(|(_, change)| change))?;
        // An entry may tell of more than this alarm: those whose rights end at sites see reports of theirs.
        let is_shown = |reason: Reason| match reason {
            Reason::Entry(position) => entries.get(&position).is_some_and(|entry| match &entry.kind {
                EntryKind::Event(event) => caller.scope().includes(&event.key.site),
                _ => caller.scope().is_all(),
            }),
            Reason::Timer(_) | Reason::Action(_) | Reason::Shelf(_) => false,
        };
        let explain = |reason: Reason, change: &Change| {
            let because = because(reason, change, api.site(), &entries);
            Because { entry: because.entry.filter(|_| is_shown(reason)), ..because }
        };
        let explained = history.items.iter().map(|(position, change)| ExplainedChange {
            change: lens.placed(*position, change),
            because: change.reasons.iter().map(|reason| explain(*reason, change)).collect(),
        });
        json(&WhyAnswer {
            alarm: lens.alarm(&alarm),
            changes: explained.collect(),
            next: history.next.map(|position| position.to_string()),
        })
    })
    .await
}

/// The entries that the reasons name, as far as they are kept.
fn entries<'a>(api: &Api, changes: impl Iterator<Item = &'a Change>) -> Result<HashMap<Position, Entry>, Problem> {
    let mut entries = HashMap::new();
    // A change that came from a site below names entries of that site's journal.
    let named =
        changes.filter(|change| change.site == *api.site()).flat_map(|change| change.reasons.iter()).filter_map(|reason| {
            match reason {
                Reason::Entry(position) => Some(*position),
                Reason::Timer(_) | Reason::Action(_) | Reason::Shelf(_) => None,
            }
        });
    for position in named.take(ENTRIES_MAX) {
        if entries.contains_key(&position) {
            continue;
        }
        match api.store().entry(position) {
            Ok(Some(entry)) => {
                entries.insert(position, entry);
            }
            Ok(None) | Err(klaxon_store::ReadError::Gap { .. } | klaxon_store::ReadError::Beyond { .. }) => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(entries)
}

fn because(reason: Reason, change: &Change, own: &Site, entries: &HashMap<Position, Entry>) -> Because {
    let (entry, text) = match reason {
        Reason::Entry(position) => match entries.get(&position).filter(|_| change.site == *own) {
            Some(entry) => (Some(entry), of_entry(entry)),
            None if change.site != *own => (None, format!("entry {position} of the journal of {}", change.site)),
            None => (None, format!("entry {position} of the journal, which is no longer kept")),
        },
        Reason::Timer(timer) => (None, of_timer(timer).to_owned()),
        Reason::Action(id) => {
            let text = match &change.actor {
                Some(actor) => format!("{actor} ordered it (action {id})"),
                None => format!("an operator ordered it (action {id})"),
            };
            (None, text)
        }
        Reason::Shelf(id) => (None, format!("the shelf {id} takes alarms like this one")),
    };
    let entry = entry.map(|entry| PlacedEntry { position: entry.position, entry: entry.into() });
    Because { reason, entry, text }
}

fn of_timer(timer: Timer) -> &'static str {
    match timer {
        Timer::Lease => "its reporter had promised to report again by now and did not",
        Timer::EndsAt => "the end that its reporter had declared is reached",
        Timer::Lifetime => "the lifetime that the catalogue gives its type is over",
        Timer::Heartbeat => "its reporter did not keep its promise to be heard from",
        Timer::Shelved => "the time for which it was shelved is over",
        Timer::Purge => "it was cleared and kept for as long as cleared alarms are",
    }
}

fn of_entry(entry: &Entry) -> String {
    let (door, wall) = (&entry.door, entry.wall);
    match &entry.kind {
        EntryKind::Event(event) => of_event(event, door, wall),
        // Who ordered it, the reason before this one says.
        EntryKind::Action(_) => format!("the order came in at {wall} by {door}"),
        EntryKind::Started(started) => format!("the node started at {wall}, version {}", started.version),
        EntryKind::ClockStep { micros } => format!("the wall clock was moved by {micros} µs at {wall}"),
        EntryKind::Deadline => format!("a deadline passed at {wall}"),
        EntryKind::Bundle { digest, .. } => format!("the catalogue {digest} came into force at {wall}"),
        EntryKind::Settings(_) => format!("the settings of the engine came into force at {wall}"),
        EntryKind::Relay(relay) => format!("{} told of it; received at {wall} by {door}", relay.child),
        EntryKind::Child(fact) => format!("what became of {} was noted at {wall}", fact.child),
    }
}

fn of_event(event: &Event, door: &str, wall: klaxon_schemas::time::Timestamp) -> String {
    let who = event.origin.producer.as_ref().map_or("a reporter that gives no name", |producer| producer.as_str());
    let what = match event.report {
        Report::Raise(severity) => format!("that it is {severity}"),
        Report::Clear => "that it is over".to_owned(),
        Report::Log(severity) => format!("a log event ({severity})"),
        Report::Heartbeat { every, .. } => format!("that all is well, and promised to be heard from again within {every}"),
    };
    format!("{who} reported {what}; received at {wall} by {door}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use klaxon_schemas::ids::{AlarmId, Epoch, Seq};

    #[test]
    fn what_is_no_longer_kept_is_said_so() {
        let json = serde_json::json!({
            "site": "s", "epoch": 1, "seq": 1, "at": "2026-11-22T03:12:00Z", "kind": "refused", "actor": "ada",
            "refusal": {"action": uuid::Uuid::nil(), "alarm": AlarmId::derive("s", Epoch(1), Seq(1)), "reason": "expired"},
        });
        let change: v1::Change = serde_json::from_value(json).expect("is a change");
        let change = Change::try_from(change).expect("is sound");
        let entry = because(Reason::Entry(Position(9)), &change, &change.site, &HashMap::new());
        assert!(entry.entry.is_none() && entry.text.contains("no longer kept"));
        let action =
            because(Reason::Action(klaxon_schemas::ids::ActionId(uuid::Uuid::nil())), &change, &change.site, &HashMap::new());
        assert!(action.text.starts_with("ada ordered it"));
    }
}

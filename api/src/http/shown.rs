//! How alarms and changes are shown: with what the catalogue knows of their type, and whether it is suppressed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use klaxon_schemas::alarm::{Alarm, Stale};
use klaxon_schemas::catalogue::{Catalogue, TypeEntry};
use klaxon_schemas::change::Change;
use klaxon_schemas::child::{Child, silent_among};
use klaxon_schemas::ids::{ActionId, AlarmId, Position};
use klaxon_schemas::names::{AlarmType, ChildName};
use klaxon_schemas::wire::v1;
use klaxon_store::StateRead;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::problem::Problem;

/// What is needed beside an alarm to show it, taken from one state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lens {
    catalogue: Option<Arc<Catalogue>>,
    suppressed: HashSet<AlarmType>,
    /// The nodes below that are silent, or have such below them.
    silent: BTreeMap<ChildName, Arc<Child>>,
    /// What is on its way to the owners of the alarms it was taken for.
    pending: HashMap<AlarmId, Vec<ActionId>>,
}

impl Lens {
    /// As it is in `state`.
    pub(crate) fn of(state: &StateRead<'_>) -> Self {
        let silent = state.state().children().iter().filter(|(_, child)| child.is_anything_silent());
        Self {
            catalogue: state.catalogue(),
            suppressed: state.suppressions().map(|(alarm_type, _)| alarm_type.clone()).collect(),
            silent: silent.map(|(name, child)| (name.clone(), Arc::clone(child))).collect(),
            pending: HashMap::new(),
        }
    }

    /// As it is in `state`, with what is on its way to the owners of `alarms`.
    pub(crate) fn over(state: &StateRead<'_>, alarms: &[Arc<Alarm>]) -> Self {
        let pending = alarms.iter().filter(|alarm| alarm.via.is_some()).filter_map(|alarm| {
            let ids = state.state().pending_on(alarm.id);
            (!ids.is_empty()).then(|| (alarm.id, ids.to_vec()))
        });
        Self { pending: pending.collect(), ..Self::of(state) }
    }

    /// What the catalogue knows of a type.
    pub(crate) fn entry(&self, alarm_type: &str) -> Option<&TypeEntry> {
        self.catalogue.as_ref()?.get(alarm_type)
    }

    /// An alarm as it is shown.
    pub(crate) fn alarm(&self, alarm: &Alarm) -> v1::Alarm {
        let alarm_type = &alarm.key.alarm_type;
        let mut shown = v1::Alarm::shown(alarm, self.suppressed.contains(alarm_type));
        self.enrich(&mut shown);
        self.stale(&mut shown);
        if let Some(pending) = self.pending.get(&alarm.id) {
            shown.pending.clone_from(pending);
        }
        shown
    }

    /// A change that is news, as it is shown: its alarm is as stale as it is now.
    pub(crate) fn news(&self, change: &Change) -> v1::Change {
        let mut shown = self.change(change);
        if let v1::ChangeSubject::Alarm { alarm, .. } = &mut shown.subject
            && !change.past
        {
            self.stale(alarm);
        }
        shown
    }

    /// A change as it stands in history. What is silent now was not for that silent then.
    pub(crate) fn change(&self, change: &Change) -> v1::Change {
        let mut shown = v1::Change::shown(change, |alarm_type| self.suppressed.contains(alarm_type));
        if let v1::ChangeSubject::Alarm { alarm, .. } = &mut shown.subject {
            self.enrich(alarm);
        }
        shown
    }

    /// A change at its place as it is shown.
    pub(crate) fn placed(&self, position: Position, change: &Change) -> PlacedChange {
        PlacedChange { position, change: self.change(change) }
    }

    /// Nothing is heard of it, because the node through which it comes is silent, or its owner.
    fn stale(&self, alarm: &mut v1::Alarm) {
        if !alarm.cleared
            && alarm.stale.is_none()
            && let Some((via, child)) = alarm.via.as_ref().and_then(|via| self.silent.get_key_value(via))
        {
            let itself = child.silent_since.map(|since| (via, since));
            let further = || {
                let below = silent_among(&child.below, alarm.owner.as_deref()?)?;
                Some((&below.name, below.silent_since?))
            };
            if let Some((silent, since)) = itself.or_else(further) {
                alarm.silent = Some(silent.clone());
                alarm.stale = Some(Stale { since });
            }
        }
    }

    /// What the report did not say and the catalogue does.
    fn enrich(&self, alarm: &mut v1::Alarm) {
        if let Some(entry) = self.entry(&alarm.alarm_type) {
            enrich(alarm, entry);
        }
    }
}

/// Adds what the report did not say and the catalogue does.
pub(crate) fn enrich(alarm: &mut v1::Alarm, entry: &TypeEntry) {
    alarm.event_type.get_or_insert(entry.event_type);
    alarm.probable_cause.get_or_insert_with(|| entry.probable_cause.clone());
    let severity = alarm.severity;
    alarm.repair_action.get_or_insert_with(|| entry.repair_action_at(severity).clone());
    alarm.service_affecting = alarm.service_affecting.or(entry.service_affecting_at(severity));
}

/// Alarms that are turned into their shown form one by one while they are written, so that a page is never there twice.
pub(crate) struct Rows {
    pub(crate) alarms: Vec<Arc<Alarm>>,
    pub(crate) lens: Lens,
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.alarms.iter().map(|alarm| self.lens.alarm(alarm)))
    }
}

/// A change, and where it stands in this node's journal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlacedChange {
    /// Where it stands in this node's journal.
    pub(crate) position: Position,
    #[serde(flatten)]
    pub(crate) change: v1::Change,
}

/// `value` as the body of an answer.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Response, Problem> {
    json_sized(value, 1024)
}

/// `value` as the body of an answer of about `bytes`.
pub(crate) fn json_sized<T: Serialize>(value: &T, bytes: usize) -> Result<Response, Problem> {
    let mut body = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut body, value).map_err(|error| Problem::internal(&error))?;
    Ok(json_written(body))
}

/// What is JSON already.
pub(crate) fn json_written(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Does work that reads files, or takes long, where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Problem::internal(&error)),
    }
}

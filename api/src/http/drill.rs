//! Drills: an alarm that means nothing is raised and cleared, and takes the way of every other (door, journal, engine, notifier),
//! to see that it arrives where it should.
//!
//! ```text
//! place: where, and how bad, so that the receiver's filter lets it pass ─▶ raise ─▶ settled ─▶ clear ─▶ settled
//! ```
//!
//! One that was begun is ended, whoever asked for it or went away. Only one is under way at a time: their alarms are the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::alarm::{Alarm, ChangeNumber};
use klaxon_schemas::change::Subject;
use klaxon_schemas::event::{AlarmKey, Attributes, Event, Report};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::{Actor, AlarmType, AttributeName, AttributeValue, Follower, Producer, Qualifier, Site, Text};
use klaxon_schemas::notify::{OUTBOX_ENTRIES_MAX, OutboxEntry};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_store::door::Tally;
use klaxon_store::publish::{Answer, Item};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::events::refused;
use super::guard::Acting;
use super::openapi::{Acts, Always, Found};
use super::params::{FromParams, Params, Query};
use super::problem::{Kind, Problem};
use super::receivers::{Named, unknown};
use super::shown::json;
use crate::notify::{Filter, ReceiverShown, ReceiverState, Receivers};

/// The type of the alarm.
pub(crate) const ALARM_TYPE: &str = "klaxon.drill";
/// What it is about, where the filter does not ask for something else; with whom it is for behind it.
const RESOURCE: &str = "klaxon=node";
/// The least urgent that a drill is: something may come of it.
const SEVERITY_MIN: Severity = Severity::Warning;
/// How long each half of a drill is waited for, in seconds, and at most.
const WAIT_S: usize = 10;
const WAIT_S_MAX: usize = 60;
/// How soon it is looked again whether the notification is settled: after a part of the time that it has taken, so that what is
/// quick is measured well, and what is slow costs little, with many receivers in one task.
const LOOK_SHARE: u32 = 10;
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How many records of numbers are looked at at a time.
const RECORDS_MAX: usize = 64;

/// How long a drill may take.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DrillParams {
    /// For how many seconds the raise, and then the clear, is waited for; 10 unless said otherwise, and never longer than the
    /// node's `request_timeout` allows.
    #[param(required = false, minimum = 1, maximum = 60)]
    pub(crate) wait_s: usize,
}

impl FromParams for DrillParams {
    fn take(params: &mut Params) -> Self {
        Self { wait_s: params.limit("wait_s", WAIT_S, WAIT_S_MAX) }
    }
}

/// What a drill has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DrillShown {
    /// The receiver.
    receiver: Follower,
    /// Whether both its raise and its clear arrived.
    arrived: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The alarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<AlarmId>,
    /// What it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Resource>,
    /// How bad it said it was: no more than the filter needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<Severity>,
    /// Its raise.
    #[serde(skip_serializing_if = "Option::is_none")]
    raise: Option<Leg>,
    /// Its clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    clear: Option<Leg>,
}

/// One half of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Leg {
    /// The number under which it was sent.
    delivery_seq: u64,
    /// From the report to the receiver's confirmation, in microseconds.
    latency_us: u64,
}

/// What the drills have shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DrillsAnswer {
    /// Of each receiver, by name.
    drills: Vec<DrillShown>,
}

/// Hold a drill with one receiver.
///
/// An alarm of the type `klaxon.drill` is raised, and cleared when it has
/// arrived, or when it did not in time. Others whose filter lets it pass are told of it, too.
#[utoipa::path(
    post,
    path = "/receivers/{name}/drill",
    tag = "receivers",
    operation_id = "drill",
    params(("name" = String, Path, description = "The receiver, as the settings call it"), DrillParams),
    responses((status = 200, description = "What it has shown; it may be that nothing arrived", body = DrillShown), Always, Found, Acts)
)]
pub(crate) async fn one(
    State(api): State<Api>,
    acting: Acting,
    Named(name): Named,
    Query(params): Query<DrillParams>,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    if api.receivers().and_then(|receivers| receivers.config(&name)).is_none() {
        return Err(unknown(&name));
    }
    let shown = drill(&api, actor, vec![name.clone()], name.as_str(), &params).await?;
    json(&shown.into_iter().next().ok_or_else(|| unknown(&name))?)
}

/// Hold a drill with all receivers at once.
///
/// As with one. They share one alarm where their filters allow.
#[utoipa::path(
    post,
    path = "/drill",
    tag = "receivers",
    operation_id = "drillAll",
    params(DrillParams),
    responses((status = 200, description = "What it has shown; it may be that nothing arrived", body = DrillsAnswer), Always, Acts)
)]
pub(crate) async fn all(
    State(api): State<Api>,
    acting: Acting,
    Query(params): Query<DrillParams>,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    let names = api.receivers().map(Receivers::list).unwrap_or_default().into_iter().map(|shown| shown.name).collect();
    json(&DrillsAnswer { drills: drill(&api, actor, names, "all", &params).await? })
}

async fn drill(
    api: &Api,
    actor: Actor,
    names: Vec<Follower>,
    label: &str,
    params: &DrillParams,
) -> Result<Vec<DrillShown>, Problem> {
    let Ok(place) = api.drills().try_acquire_owned() else {
        return Err(Problem::new(Kind::Busy, "another drill is under way"));
    };
    // Both halves, and some time for everything else.
    let wait = Duration::from_secs(params.wait_s as u64).min(api.config().request_timeout.mul_f64(0.45));
    let (api, label) = (api.clone(), label.to_owned());
    let drill = tokio::spawn(async move {
        let _place = place;
        let Some(receivers) = api.receivers() else { return Ok(Vec::new()) };
        Drill { api: &api, receivers, wait, actor, label }.run(names).await
    });
    drill.await.unwrap_or_else(|error| Err(Problem::internal(&error)))
}

struct Drill<'a> {
    api: &'a Api,
    receivers: &'a Receivers,
    wait: Duration,
    actor: Actor,
    label: String,
}

/// A receiver in a drill.
struct Pupil {
    name: Follower,
    filter: Filter,
    key: AlarmKey,
    /// How it stood before.
    before: ReceiverShown,
}

/// What a report of the drill led to.
#[derive(Debug, Clone)]
struct Step {
    alarm: Arc<Alarm>,
    number: ChangeNumber,
}

impl Drill<'_> {
    async fn run(&self, names: Vec<Follower>) -> Result<Vec<DrillShown>, Problem> {
        let mut shown = BTreeMap::new();
        let mut pupils = Vec::new();
        for name in names {
            let Some((config, before)) = self.receivers.config(&name).zip(self.receivers.get(&name)) else { continue };
            match self.place(&config.filter) {
                Ok(key) => pupils.push(Pupil { name, filter: config.filter, key, before }),
                Err(reason) => {
                    shown.insert(name.clone(), DrillShown::failed(name, reason));
                }
            }
        }
        // Receivers that can be told of the same alarm share it; it is as urgent as the most demanding of them needs.
        let mut alarms: BTreeMap<AlarmKey, Severity> = BTreeMap::new();
        for pupil in &pupils {
            let needed = pupil.filter.severity_min.map_or(SEVERITY_MIN, |least| least.max(SEVERITY_MIN));
            let severity = alarms.entry(pupil.key.clone()).or_insert(needed);
            *severity = needed.max(*severity);
        }
        let raised_at = Instant::now();
        let raised = self.raise(&alarms).await?;
        let raises = self.follow(&pupils, &raised, raised_at).await;
        // What the raise found out of numbers holds for the clear, too.
        let cleared_at = Instant::now();
        let cleared = self.report(alarms.keys().map(|key| (key.clone(), Report::Clear)).collect()).await?;
        let clears = self.follow(&pupils, &cleared, cleared_at).await;
        for ((pupil, raise), clear) in pupils.into_iter().zip(raises).zip(clears) {
            let Some(step) = raised.get(&pupil.key) else { continue };
            let reason = raise.as_ref().err().or(clear.as_ref().err()).cloned();
            let one = DrillShown {
                receiver: pupil.name.clone(),
                arrived: reason.is_none(),
                reason,
                alarm: Some(step.alarm.id),
                resource: Some(pupil.key.resource),
                severity: Some(step.alarm.severity),
                raise: raise.ok(),
                clear: clear.ok(),
            };
            shown.insert(pupil.name, one);
        }
        Ok(shown.into_values().collect())
    }

    /// The alarm that passes the filter, or why none does.
    fn place(&self, filter: &Filter) -> Result<AlarmKey, String> {
        let alarm_type = AlarmType::new(ALARM_TYPE).expect("is a type");
        if self.api.store().read().is_suppressed(&alarm_type) && !filter.suppressed {
            return Err(format!("the type {ALARM_TYPE} is suppressed"));
        }
        let own = self.api.site();
        let site: &Site = if filter.sites.is_empty() || filter.sites.contains(own) { own } else { &filter.sites[0] };
        let node = [Resource::new(RESOURCE).expect("is a resource")];
        let roots = if filter.resources.is_empty() { &node[..] } else { &filter.resources };
        let key = |root: &Resource| {
            Some(AlarmKey {
                site: site.clone(),
                resource: Resource::new(&format!("{root}.drill={}", self.label)).ok()?,
                alarm_type: alarm_type.clone(),
                qualifier: Qualifier::new("").expect("may be empty"),
            })
        };
        let urgent = filter.severity_min.unwrap_or(SEVERITY_MIN);
        let found = roots.iter().filter_map(key).find(|key| filter.picks(key, urgent));
        found.ok_or_else(|| match filter.alarm_types.iter().all(|pattern| !pattern.matches(&alarm_type)) {
            true if !filter.alarm_types.is_empty() => {
                format!("its filter takes only other types: add {ALARM_TYPE} to its alarm_types")
            }
            _ => format!(
                "its filter keeps out what a drill could be: look at not_alarm_types for {ALARM_TYPE}, and at not_resources"
            ),
        })
    }

    async fn raise(&self, alarms: &BTreeMap<AlarmKey, Severity>) -> Result<BTreeMap<AlarmKey, Step>, Problem> {
        let raises = || alarms.iter().map(|(key, severity)| (key.clone(), Report::Raise(*severity))).collect();
        let raised = self.report(raises()).await?;
        if raised.len() == alarms.len() {
            return Ok(raised);
        }
        // One stands from a drill that was cut short.
        self.report(alarms.keys().map(|key| (key.clone(), Report::Clear)).collect()).await?;
        let raised = self.report(raises()).await?;
        if raised.len() == alarms.len() {
            return Ok(raised);
        }
        Err(Problem::new(Kind::Internal, "the drill's alarm was not raised; the history says why"))
    }

    async fn report(&self, reports: Vec<(AlarmKey, Report)>) -> Result<BTreeMap<AlarmKey, Step>, Problem> {
        if reports.is_empty() {
            return Ok(BTreeMap::new());
        }
        let keys: Vec<_> = reports.iter().map(|(key, _)| key.clone()).collect();
        let items = reports.into_iter().map(|(key, report)| Item::Event(Arc::new(self.event(key, report)))).collect();
        let published = self.api.door().publish(items, Tally::default()).await.map_err(|error| refused(&error))?;
        let mut steps = BTreeMap::new();
        for (key, answer) in keys.into_iter().zip(published.answers) {
            match answer {
                Answer::Accepted { changes, .. } => {
                    let step = changes.iter().rev().find_map(|change| match &change.subject {
                        Subject::Alarm { alarm, .. } => Some(Step { alarm: Arc::clone(alarm), number: change.number }),
                        _ => None,
                    });
                    steps.extend(step.map(|step| (key, step)));
                }
                Answer::Rejected(rejection) => return Err(Problem::new(Kind::NothingAccepted, rejection.to_string())),
                Answer::Duplicate => {}
            }
        }
        Ok(steps)
    }

    fn event(&self, key: AlarmKey, report: Report) -> Event {
        let text = format!("A drill: nothing is wrong. {} wants to see whether this arrives.", self.actor);
        let mut event = Event::new(key, report, Text::lossy(&text).expect("is a text"));
        let drill = (AttributeName::new("drill").expect("is a name"), AttributeValue::new("true").expect("is a value"));
        event.details.attributes = Attributes::new([drill].into()).expect("is one");
        event.of(Producer::new("klaxon").expect("is a name"))
    }

    /// Waits until each receiver has settled its step; or why it did not.
    async fn follow(&self, pupils: &[Pupil], steps: &BTreeMap<AlarmKey, Step>, began: Instant) -> Vec<Result<Leg, String>> {
        let waits = pupils.iter().map(|pupil| async move {
            let step = steps.get(&pupil.key).ok_or_else(|| "its alarm did not change".to_owned())?;
            if step.alarm.shelved.is_some() && !pupil.filter.shelved {
                return Err("a shelf sets the drill's alarm aside".to_owned());
            }
            match tokio::time::timeout_at(began + self.wait, self.settled(pupil, step, began)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(self.excuse(pupil)),
            }
        });
        futures_util::future::join_all(waits).await
    }

    async fn settled(&self, pupil: &Pupil, step: &Step, began: Instant) -> Result<Leg, String> {
        let mut from = pupil.before.assigned.saturating_sub(OUTBOX_ENTRIES_MAX as u64);
        let mut number = None;
        loop {
            if number.is_none() {
                number = self.number(pupil, step, &mut from);
            }
            let now = self.receivers.get(&pupil.name).ok_or("it is a receiver no more")?;
            // Others may be refused meanwhile; that is nothing to this one.
            if let Some(why) = number.and_then(|number| self.receivers.given_up(&pupil.name, number)) {
                return Err(format!("it was refused: {why}"));
            }
            if let Some(delivery_seq) = number
                && now.confirmed >= delivery_seq
            {
                return Ok(Leg { delivery_seq, latency_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX) });
            }
            tokio::time::sleep(look_again(began.elapsed())).await;
        }
    }

    /// The number under which the receiver is told of the step, once it has one. Looks from the record `from` on.
    fn number(&self, pupil: &Pupil, step: &Step, from: &mut u64) -> Option<u64> {
        let state = self.api.store().read();
        loop {
            let records = state.state().outbox_from(&pupil.name, *from, RECORDS_MAX);
            for (first, outbox) in &records {
                // The last record may still grow, and is looked at again.
                *from = *first;
                let found = outbox.0.iter().position(|entry| match entry {
                    OutboxEntry::Alarm(told) => told.alarm == step.alarm.id && told.number >= step.number,
                    _ => false,
                });
                if let Some(place) = found {
                    return Some(first + place as u64);
                }
            }
            if records.len() < RECORDS_MAX {
                return None;
            }
        }
    }

    /// Why nothing arrived in time, as far as can be seen.
    fn excuse(&self, pupil: &Pupil) -> String {
        let within = format!("within {:.0} s", self.wait.as_secs_f64());
        let Some(now) = self.receivers.get(&pupil.name) else { return "it is a receiver no more".to_owned() };
        match now.state {
            ReceiverState::Retrying | ReceiverState::Unreachable => {
                format!("it was not reached {within}: {}", now.last_error.unwrap_or_default())
            }
            _ if now.lag_changes > 0 => format!("it was not told {within}: {} changes are told before", now.lag_changes),
            ReceiverState::Starting | ReceiverState::Ok => format!("it was not told {within}"),
        }
    }
}

/// How long it is until it is looked again, when it has taken so long.
fn look_again(taken: Duration) -> Duration {
    (taken / LOOK_SHARE).clamp(LOOK_MIN, LOOK_MAX)
}

impl DrillShown {
    fn failed(receiver: Follower, reason: String) -> Self {
        let (alarm, resource, severity, raise, clear) = (None, None, None, None, None);
        Self { receiver, arrived: false, reason: Some(reason), alarm, resource, severity, raise, clear }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_less_often_the_longer_it_takes() {
        let after = |ms| look_again(Duration::from_millis(ms)).as_millis();
        assert_eq!((after(0), after(20), after(500), after(60_000)), (2, 2, 50, 100));
    }

    #[test]
    fn what_is_documented_is_what_is_read() {
        let mut params = Params::default();
        DrillParams::take(&mut params);
        let documented: Vec<String> = DrillParams::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
        assert_eq!(documented, params.known());
    }
}

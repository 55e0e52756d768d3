//! Silences are shelves that pick by labels. Other shelves, and alarms that somebody shelved one by one, are shown as silences, too, by
//! matchers of the labels that come nearest; they can be taken away here, and a change makes a silence of them.
//!
//! ```text
//! POST without id ────────────────────────────────────────────▶ a new shelf
//! POST with id: same matchers, times that still may change ───▶ the shelf is amended, and keeps its id
//!          └──── otherwise ───────────────────────────────────▶ it ends, and a new one is put up
//! ```

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::action::{Action, AlarmVerb, Matcher, ShelfOrder, Target, Verb};
use klaxon_schemas::alarm::{Alarm, Shelved};
use klaxon_schemas::change::{RefusalReason, Subject};
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::labels::{LABEL_MATCHERS_MAX, LabelMatcher, LabelSet, MatchOp, is_enough};
use klaxon_schemas::names::{Actor, Site, Text};
use klaxon_schemas::state::{Shelf, ShelfPhase};
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::Tally;
use klaxon_store::publish::{Answer, Item};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::super::Api;
use super::super::body::WholeBody;
use super::super::events::refused;
use super::super::guard::{Acting, Caller};
use super::super::problem::{Kind, Problem, quoted};
use super::super::shown::{self, blocking};
use super::alerts::{View, gather};
use super::filter::{Asked, SilenceFilter};
use super::time::{MaybeTime, Written};
use crate::clock;

/// The most bytes in the body of a silence.
const SILENCE_BYTES_MAX: usize = 64 * 1024;

/// A silence as it is sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default)]
    id: Option<String>,
    matchers: Vec<MatcherShown>,
    #[serde(default)]
    starts_at: MaybeTime,
    #[serde(default)]
    ends_at: MaybeTime,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    comment: String,
}

/// A matcher as it is sent and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatcherShown {
    #[serde(default = "yes")]
    is_equal: bool,
    #[serde(default)]
    is_regex: bool,
    name: String,
    value: String,
}

fn yes() -> bool {
    true
}

impl MatcherShown {
    fn is(name: &str, value: &str) -> Self {
        Self { is_equal: true, is_regex: false, name: name.to_owned(), value: value.to_owned() }
    }

    fn read(&self) -> Result<LabelMatcher, String> {
        let op = match (self.is_equal, self.is_regex) {
            (true, false) => MatchOp::Is,
            (false, false) => MatchOp::IsNot,
            (true, true) => MatchOp::Matches,
            (false, true) => MatchOp::MatchesNot,
        };
        LabelMatcher::new(&self.name, op, &self.value).map_err(|error| format!("matchers: {} {error}", quoted(&self.name)))
    }
}

impl From<&LabelMatcher> for MatcherShown {
    fn from(matcher: &LabelMatcher) -> Self {
        let (is_equal, is_regex) = (matcher.op().is_equal(), matcher.op().is_regex());
        Self { is_equal, is_regex, name: matcher.name().to_owned(), value: matcher.value().to_owned() }
    }
}

/// A silence as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Silence {
    id: Uuid,
    status: Status,
    updated_at: Written,
    comment: String,
    created_by: String,
    ends_at: Written,
    matchers: Vec<MatcherShown>,
    starts_at: Written,
    #[serde(skip)]
    of: Of,
}

#[derive(Debug, Serialize)]
struct Status {
    state: Phase,
}

/// How far a silence is; in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Active,
    Pending,
    Expired,
}

/// What a silence is here.
#[derive(Debug)]
enum Of {
    Shelf(Arc<Shelf>),
    Alarm(Target),
}

impl Silence {
    fn of_shelf(shelf: &Arc<Shelf>, now: Timestamp) -> Self {
        let order = &shelf.order;
        let state = match (shelf.phase, shelf.begins_at) {
            (ShelfPhase::Emptying, _) => Phase::Expired,
            (_, Some(_)) => Phase::Pending,
            _ => Phase::Active,
        };
        let begun = order.starts_at.unwrap_or(shelf.at).max(shelf.at);
        Self {
            id: shelf.id.0,
            status: Status { state },
            updated_at: Written(shelf.ended_at.or(shelf.amended_at).unwrap_or(shelf.at)),
            comment: order.reason.to_string(),
            created_by: order.created_by.as_ref().unwrap_or(&shelf.by).to_string(),
            ends_at: Written(shelf.ended_at.map_or(order.until, |ended| ended.min(order.until))),
            matchers: matchers_of(&order.matcher),
            starts_at: Written(if state == Phase::Expired { begun.min(shelf.ended_at.unwrap_or(now)) } else { begun }),
            of: Of::Shelf(Arc::clone(shelf)),
        }
    }

    /// Of an alarm that was shelved by itself.
    fn of_alarm(alarm: &Alarm, shelved: &Shelved, labels: &LabelSet<'_>) -> Self {
        Self {
            id: alarm.id.0,
            status: Status { state: Phase::Active },
            updated_at: Written(shelved.at),
            comment: shelved.reason.to_string(),
            created_by: shelved.by.to_string(),
            ends_at: Written(shelved.until),
            matchers: labels.iter().map(|(name, value)| MatcherShown::is(name, value)).collect(),
            starts_at: Written(shelved.at),
            of: Of::Alarm(Target { id: alarm.id, raise_seq: None }),
        }
    }

    /// What takes it away, if it is not over.
    fn end(&self) -> Option<Verb> {
        match &self.of {
            _ if self.status.state == Phase::Expired => None,
            Of::Shelf(shelf) => Some(Verb::RemoveShelf(shelf.id)),
            Of::Alarm(target) => Some(Verb::OnAlarms(vec![*target], AlarmVerb::Unshelve)),
        }
    }
}

/// The matchers of the labels that come nearest to what a shelf picks by.
fn matchers_of(matcher: &Matcher) -> Vec<MatcherShown> {
    if !matcher.labels.is_empty() {
        return matcher.labels.iter().map(MatcherShown::from).collect();
    }
    let site = matcher.site.as_ref().map(|site| MatcherShown::is("site", site));
    let resource = matcher.resource.as_ref().map(|resource| {
        let value = format!("{}(\\..*)?", regex_of(resource.as_str()));
        MatcherShown { is_regex: true, ..MatcherShown::is("resource", &value) }
    });
    let alarm_type = matcher.alarm_type.as_ref().map(|alarm_type| MatcherShown::is("alertname", alarm_type));
    let qualifier = matcher.asked_qualifier().map(|qualifier| MatcherShown::is("qualifier", qualifier));
    [site, alarm_type, resource, qualifier].into_iter().flatten().collect()
}

/// A regular expression that matches `text` and nothing else.
fn regex_of(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if "\\.+*?()|[]{}^$".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// All silences within `scope`.
fn silences(api: &Api, scope: &Scope) -> Result<Vec<Silence>, Problem> {
    let now = clock::now();
    let is_seen =
        |shelf: &&Arc<Shelf>| scope.is_all() || shelf.order.matcher.site.as_ref().is_some_and(|site| scope.includes(site));
    let (shelves, view) = {
        let state = api.store().read();
        let shelves: Vec<_> = state.shelves().filter(is_seen).cloned().collect();
        (shelves, View::of(&state, api.config().alertmanager.resolve_timeout))
    };
    let of_alarms =
        gather(api, |alarm| Some(alarm).filter(|it| scope.includes(&it.key.site)).and_then(|it| of_alarm(&it, &view)))?;
    Ok(shelves.iter().map(|shelf| Silence::of_shelf(shelf, now)).chain(of_alarms).collect())
}

fn of_alarm(alarm: &Alarm, view: &View) -> Option<Silence> {
    let shelved = alarm.shelved.as_ref().filter(|shelved| shelved.shelf.is_none())?;
    Some(Silence::of_alarm(alarm, shelved, &view.labels(alarm)))
}

/// The silence `id` within `scope`.
fn find(api: &Api, scope: &Scope, id: &str) -> Result<Silence, Problem> {
    let not_found = || Problem::new(Kind::NotFound, format!("silence {} not found", quoted(id)));
    let id = Uuid::try_parse(id).map_err(|_| not_found())?;
    let state = api.store().read();
    let is_seen = |site: Option<&Site>| scope.is_all() || site.is_some_and(|site| scope.includes(site));
    if let Some(shelf) = state.shelves().find(|shelf| shelf.id.0 == id && is_seen(shelf.order.matcher.site.as_ref())) {
        return Ok(Silence::of_shelf(shelf, clock::now()));
    }
    let alarm = state.alarm(AlarmId(id)).filter(|alarm| is_seen(Some(&alarm.key.site))).ok_or_else(not_found)?;
    let view = View::of(&state, api.config().alertmanager.resolve_timeout);
    of_alarm(alarm, &view).ok_or_else(not_found)
}

/// Lists silences: those at work, those to come, those that are over.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(SilenceFilter(filter)): Asked<SilenceFilter>,
) -> Result<Response, Problem> {
    let mut silences = blocking(move || silences(&api, caller.scope())).await?;
    if !filter.is_empty() {
        silences.retain(|silence| {
            let pairs = silence.matchers.iter().map(|matcher| (matcher.name.as_str().into(), matcher.value.as_str().into()));
            filter.picks(&LabelSet::new(pairs.collect()))
        });
    }
    silences.sort_by(|one, other| {
        let by_time = match one.status.state {
            Phase::Active => one.ends_at.cmp(&other.ends_at),
            Phase::Pending => one.starts_at.cmp(&other.starts_at),
            Phase::Expired => other.ends_at.cmp(&one.ends_at),
        };
        one.status.state.cmp(&other.status.state).then(by_time).then(one.id.cmp(&other.id))
    });
    shown::json(&silences)
}

/// Shows one.
pub(super) async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    shown::json(&find(&api, caller.scope(), &id)?)
}

/// Ends one. That it is over already is no mistake.
pub(super) async fn delete(State(api): State<Api>, acting: Acting, Path(id): Path<String>) -> Result<(), Problem> {
    let silence = find(&api, &acting.scope, &id)?;
    match silence.end() {
        Some(verb) => carry_out(&api, &acting, vec![(ActionId(Uuid::new_v4()), verb)]).await,
        None => Ok(()),
    }
}

/// Puts one up, or changes one.
pub(super) async fn post(State(api): State<Api>, acting: Acting, body: WholeBody) -> Result<Response, Problem> {
    let text = body.json()?;
    if text.len() > SILENCE_BYTES_MAX {
        return Err(Problem::new(Kind::TooLarge, format!("a silence has at most {SILENCE_BYTES_MAX} bytes")));
    }
    let sent: Sent = serde_json::from_str(text).map_err(|error| wrong(format!("the body is no silence: {error}")))?;
    let now = clock::now();
    let mut order = order(&api, &sent, now)?;
    if !acting.scope.is_all() && order.matcher.site.as_ref().is_none_or(|site| !acting.scope.includes(site)) {
        let label = &api.config().alertmanager.site_label;
        let detail = format!("your rights are limited to some sites: name one of them by a matcher {label}=\"…\"");
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let before = match sent.id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => Some(find(&api, &acting.scope, id)?),
        None => None,
    };
    let id = ActionId(Uuid::new_v4());
    let amended = before.as_ref().filter(|before| may_become(before, &order, sent.starts_at.0, now));
    let shown = amended.map_or(id.0, |before| before.id);
    let is_amended = amended.is_some();
    if is_amended {
        order.amends = Some(ActionId(shown));
    }
    carry_out(&api, &acting, vec![(id, Verb::AddShelf(Box::new(order.clone())))]).await?;
    if !is_amended && let Some(before) = before {
        replace(&api, &acting, before, (id, order)).await?;
    }
    shown::json(&json!({ "silenceID": shown }))
}

/// Ends a silence that another has taken the place of. The new one is there before the old one goes: if it is refused, the old one stays,
/// and what both take is silent throughout.
async fn replace(api: &Api, acting: &Acting, before: Silence, (by, order): (ActionId, ShelfOrder)) -> Result<(), Problem> {
    let new = || ActionId(Uuid::new_v4());
    let mut steps: Vec<_> = before.end().map(|end| (new(), end)).into_iter().collect();
    if matches!(before.of, Of::Alarm(_)) {
        // What was shelved by itself is off every shelf then: the new one looks once more for what it takes.
        steps.push((new(), Verb::AddShelf(Box::new(ShelfOrder { amends: Some(by), ..order }))));
    }
    match carry_out(api, acting, steps).await {
        // Somebody else was faster.
        Err(problem) if problem.is(Kind::NotFound) => Ok(()),
        done => done,
    }
}

fn wrong(reason: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidParameter, reason)
}

/// The shelf that is asked for.
fn order(api: &Api, sent: &Sent, now: Timestamp) -> Result<ShelfOrder, Problem> {
    let ends_at = sent.ends_at.0.ok_or_else(|| wrong("endsAt: is missing"))?;
    let starts_at = sent.starts_at.0.unwrap_or(now);
    if ends_at <= starts_at {
        return Err(wrong("endsAt: start time must be before end time"));
    }
    if ends_at <= now {
        return Err(wrong("endsAt: end time can't be in the past"));
    }
    if sent.matchers.len() > LABEL_MATCHERS_MAX {
        let given = sent.matchers.len();
        return Err(wrong(format!("matchers: there are {given}, at most {LABEL_MATCHERS_MAX} are allowed")));
    }
    let matchers: Vec<_> = sent.matchers.iter().map(MatcherShown::read).collect::<Result<_, _>>().map_err(wrong)?;
    if !is_enough(&matchers) {
        return Err(wrong("matchers: at least one matcher must not match the empty string"));
    }
    // The site stands in the order by itself, too: by it a shelf finds its way to the site, and rights are limited.
    let names_site =
        |matcher: &&LabelMatcher| matcher.op() == MatchOp::Is && matcher.name() == api.config().alertmanager.site_label;
    let site = matchers.iter().find(names_site).and_then(|matcher| Site::new(matcher.value()).ok());
    let reason = Text::new(&sent.comment).map_err(|error| wrong(format!("comment: {error}")))?;
    let created_by = match sent.created_by.as_str() {
        "" => None,
        name => Some(Actor::new(name).map_err(|error| wrong(format!("createdBy: {error}")))?),
    };
    let starts_at = Some(starts_at).filter(|at| *at > now);
    let order = ShelfOrder::new(Matcher::of_labels(matchers, site), ends_at, reason);
    Ok(ShelfOrder { starts_at, created_by, ..order })
}

/// Whether a silence stays itself with another end, comment or, as long as it has not begun, beginning. That of one that holds is compared
/// by the second, as Alertmanager does.
fn may_become(before: &Silence, order: &ShelfOrder, starts_at: Option<Timestamp>, now: Timestamp) -> bool {
    let Of::Shelf(shelf) = &before.of else { return false };
    let seconds = |time: Timestamp| time.as_micros().div_euclid(1_000_000);
    shelf.order.matcher == order.matcher
        && match before.status.state {
            Phase::Active => starts_at.is_some_and(|at| seconds(at) == seconds(before.starts_at.0)),
            Phase::Pending => starts_at.is_some_and(|at| at >= now),
            Phase::Expired => false,
        }
}

/// Journals `steps` together, and tells why one was refused.
async fn carry_out(api: &Api, acting: &Acting, steps: Vec<(ActionId, Verb)>) -> Result<(), Problem> {
    let item = |(id, verb)| {
        let (actor, from) = (acting.actor.clone(), Some(acting.from.clone()));
        Item::Action(Arc::new(Action { id, actor, from, ordered_at: None, expires_at: None, verb }))
    };
    let items = steps.into_iter().map(item).collect();
    let published = api.door().publish(items, Tally::default()).await.map_err(|error| refused(&error))?;
    for answer in published.answers {
        match answer {
            Answer::Accepted { changes, .. } => {
                let refusal = changes.iter().find_map(|change| match &change.subject {
                    Subject::Refusal(refusal) => Some(refusal.reason),
                    _ => None,
                });
                match refusal {
                    None => {}
                    Some(reason @ (RefusalReason::NoSuchShelf | RefusalReason::NoSuchAlarm)) => {
                        return Err(Problem::new(Kind::NotFound, reason.as_str()));
                    }
                    Some(reason) => return Err(Problem::new(Kind::Refused, reason.as_str())),
                }
            }
            Answer::Duplicate => {}
            Answer::Rejected(rejection) => return Err(Problem::new(Kind::InvalidBody, rejection.to_string())),
        }
    }
    Ok(())
}

//! The stream of changes as server-sent events (WHATWG HTML, 9.2).
//!
//! A stream is a cursor: a position, woken by commits, that asks the store what stands behind it. Nothing waits in memory
//! for a slow reader; whoever reads slowly reads from the journal's files, until retention overtakes it and it is told to
//! list anew.
//!
//! ```text
//! hello ─▶ (change | touched | heartbeat)* ─▶ reset ─▶ end        or the end alone, when the node stops
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::{AlarmKey, Report};
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::wire::v1::Touched;
use klaxon_store::{Item, ReadError};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::Api;
use super::guard::{Caller, Client};
use super::openapi::Always;
use super::params::Query;
use super::problem::{Kind, Problem};
use super::query::StreamParams;
use super::shares::Share;
use super::shown::{Lens, blocking};

/// A comment is sent when nothing else was for so long, so that both sides notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many items are read and sent at a time.
const ITEMS_MAX: usize = 512;
const LAST_EVENT_ID: &str = "last-event-id";

/// The first event: from where the stream goes on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hello {
    /// What follows stands behind this position.
    position: Position,
    /// The numbering of changes.
    epoch: Epoch,
}

/// The last event: the stream cannot go on; list anew.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reset {
    /// Why.
    reason: &'static str,
    /// Where the journal is now.
    position: Position,
}

/// Follow the changes as they are committed.
///
/// Events: `hello` (first; position and epoch), `change` (a change), `touched` (an alarm was reported again), `reset` (last;
/// list anew). The id of an event is EPOCH-POSITION; sent back as `Last-Event-ID` the stream goes on behind it.
#[utoipa::path(
    get,
    path = "/stream",
    tag = "history",
    operation_id = "followChanges",
    params(StreamParams, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "A stream without end", body = String, content_type = "text/event-stream"), Always)
)]
pub(crate) async fn follow(
    State(api): State<Api>,
    caller: Caller,
    Query(params): Query<StreamParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Ok(subscriber) = api.subscribers().try_acquire_owned() else {
        let detail = format!("there are {} streams already", api.config().stream_subscribers_max);
        return Err(Problem::new(Kind::Busy, detail));
    };
    let share = api.stream_share(&caller)?;
    let committed = api.store().committed();
    let here = *committed.borrow();
    let epoch = api.store().epoch();
    let (position, is_other_epoch) = match last_event(&headers)? {
        Some((seen, position)) => (position, seen != epoch || position > here),
        None => match params.from {
            Some(from) if from > here => {
                let reason = format!("lies ahead of the journal, which ends at {here}");
                return Err(Problem::of_field(Kind::InvalidParameter, "from", reason));
            }
            Some(from) => (from, false),
            None => (here, false),
        },
    };
    let step = if is_other_epoch { Step::Reset("other epoch") } else { Step::Hello };
    let stop = api.stop().clone();
    let cursor = Cursor { api, caller, params, committed, position, epoch, step, _subscriber: subscriber, _share: share };
    let events = stream::unfold(cursor, move |cursor| {
        let stop = stop.clone();
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => None,
                next = cursor.next() => next,
            }
        }
    });
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static("text/event-stream")), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// Epoch and position of the event that was seen last.
fn last_event(headers: &HeaderMap) -> Result<Option<(Epoch, Position)>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    // A browser that has seen no id yet sends none, some libraries an empty one.
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.split_once('-').and_then(|(epoch, position)| Some((number(epoch)?, number(position)?)));
    match parsed {
        Some((epoch, position)) => Ok(Some((Epoch(epoch), Position(position)))),
        None => Err(Problem::of_field(Kind::InvalidParameter, "Last-Event-ID", "is not of the form EPOCH-POSITION")),
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What a stream does next.
enum Step {
    Hello,
    Follow,
    Reset(&'static str),
    End,
}

struct Cursor {
    api: Api,
    caller: Caller,
    params: StreamParams,
    committed: watch::Receiver<Position>,
    position: Position,
    epoch: Epoch,
    step: Step,
    _subscriber: OwnedSemaphorePermit,
    _share: Option<Share<Client>>,
}

type Chunk = Result<Bytes, std::convert::Infallible>;

impl Cursor {
    /// The next piece of the body, and the cursor behind it.
    async fn next(mut self) -> Option<(Chunk, Self)> {
        match self.step {
            Step::Hello => {
                self.step = Step::Follow;
                let mut text = String::new();
                event(&mut text, "hello", self.epoch, self.position, &Hello { position: self.position, epoch: self.epoch });
                Some((Ok(text.into()), self))
            }
            Step::Follow => self.follow().await,
            Step::Reset(reason) => {
                self.step = Step::End;
                let position = *self.committed.borrow();
                let mut text = String::new();
                event(&mut text, "reset", self.epoch, position, &Reset { reason, position });
                Some((Ok(text.into()), self))
            }
            Step::End => None,
        }
    }

    /// The token is good no longer.
    async fn turned_away(mut self) -> Option<(Chunk, Self)> {
        self.step = Step::Reset("no longer allowed");
        Box::pin(self.next()).await
    }

    async fn follow(mut self) -> Option<(Chunk, Self)> {
        let heartbeat = tokio::time::sleep(HEARTBEAT);
        tokio::pin!(heartbeat);
        loop {
            let here = *self.committed.borrow_and_update();
            if here <= self.position {
                tokio::select! {
                    moved = self.committed.changed() => {
                        // The store is gone, and with it the stream.
                        moved.ok()?;
                        continue;
                    }
                    () = &mut heartbeat => {
                        if !self.caller.still_holds(&self.api).await {
                            return self.turned_away().await;
                        }
                        // An event without data is shown to nobody, but its id is kept: what was filtered out is not sent again.
                        let text = format!("id: {}-{}\n: heartbeat\n\n", self.epoch, self.position);
                        return Some((Ok(text.into()), self));
                    }
                }
            }
            if !self.caller.still_holds(&self.api).await {
                return self.turned_away().await;
            }
            let (api, params, position, epoch) = (self.api.clone(), self.params.clone(), self.position, self.epoch);
            let caller = self.caller.clone();
            match blocking(move || Ok(read(&api, &caller, &params, position, epoch))).await {
                Ok(Ok(None)) => return self.turned_away().await,
                Ok(Ok(Some((reached, text)))) => {
                    self.position = reached.max(self.position);
                    if !text.is_empty() {
                        return Some((Ok(text.into()), self));
                    }
                    if reached <= position {
                        // Nothing new although there was a commit; the next one will tell.
                        self.committed.changed().await.ok()?;
                    }
                }
                Ok(Err(ReadError::Gap { .. })) => {
                    self.step = Step::Reset("overtaken by retention");
                    return Box::pin(self.next()).await;
                }
                Ok(Err(ReadError::Beyond { .. })) => {
                    self.step = Step::Reset("other epoch");
                    return Box::pin(self.next()).await;
                }
                Ok(Err(error)) => {
                    let _logged = Problem::internal(&error);
                    return None;
                }
                Err(_logged) => return None,
            }
        }
    }
}

/// What stands behind `after`, as it is sent, and up to where that goes; nothing if whoever follows may no longer.
fn read(
    api: &Api,
    caller: &Caller,
    params: &StreamParams,
    after: Position,
    epoch: Epoch,
) -> Result<Option<(Position, String)>, ReadError> {
    let page = api.store().changes_after(after, ITEMS_MAX)?;
    let mut text = String::new();
    if page.items.is_empty() {
        return Ok(Some((page.reached, text)));
    }
    let state = api.store().read();
    if !caller.holds(api, &state) {
        return Ok(None);
    }
    let scope = caller.scope();
    let is_open = is_open(params) && scope.is_all();
    let lens = Lens::of(&state);
    // Touches name their alarm by its id only: look up what it is while the state is held, and write when it is let go.
    let picked: Vec<bool> = page
        .items
        .iter()
        .map(|(_, item)| match item {
            Item::Change(change) => is_open || scope.includes(change.concerns()) && picks_change(params, change),
            Item::Touched(touched) => {
                is_open
                    || state.alarm(touched.alarm).is_some_and(|alarm| {
                        scope.includes(&alarm.key.site) && picks_alarm(params, &alarm.key, alarm.severity, None)
                    })
            }
        })
        .collect();
    drop(state);
    for ((position, item), _) in page.items.iter().zip(picked).filter(|(_, picked)| *picked) {
        match item {
            Item::Change(change) => event(&mut text, "change", epoch, *position, &lens.news(change)),
            Item::Touched(touched) => {
                let shown = Touched { engine: None, ..touched.clone() };
                event(&mut text, "touched", epoch, *position, &shown);
            }
        }
    }
    Ok(Some((page.reached, text)))
}

fn is_open(params: &StreamParams) -> bool {
    *params == StreamParams { from: params.from, ..StreamParams::default() }
}

fn picks_change(params: &StreamParams, change: &Change) -> bool {
    match &change.subject {
        Subject::Alarm { alarm, previous_severity } => picks_alarm(params, &alarm.key, alarm.severity, *previous_severity),
        Subject::Event { event, .. } => {
            let severity = match event.report {
                Report::Raise(severity) | Report::Log(severity) => severity,
                // That all is well is of no severity.
                Report::Clear | Report::Heartbeat { .. } => Severity::Indeterminate,
            };
            picks_alarm(params, &event.key, severity, None)
        }
        Subject::Suppression { alarm_type, .. } => {
            params.alarm_type.as_ref().is_none_or(|asked| asked == alarm_type)
                && params.resource.is_none()
                && picks_site(params, change)
        }
        Subject::Shelf(_) | Subject::Refusal(_) | Subject::Quarantine { .. } | Subject::Child(_) | Subject::Token(_) => {
            params.alarm_type.is_none() && params.resource.is_none() && picks_site(params, change)
        }
    }
}

fn picks_site(params: &StreamParams, change: &Change) -> bool {
    params.site.as_ref().is_none_or(|site| *site == change.site)
}

fn picks_alarm(params: &StreamParams, key: &AlarmKey, severity: Severity, previous: Option<Severity>) -> bool {
    params.site.as_ref().is_none_or(|site| *site == key.site)
        && params.resource.as_ref().is_none_or(|resource| resource.contains(&key.resource))
        && params.alarm_type.as_ref().is_none_or(|alarm_type| *alarm_type == key.alarm_type)
        && params.min_severity.is_none_or(|least| severity >= least || previous.is_some_and(|previous| previous >= least))
}

/// One event. JSON has no line breaks, so its data is one line.
fn event<T: Serialize>(text: &mut String, name: &str, epoch: Epoch, position: Position, data: &T) {
    let data = serde_json::to_string(data).expect("names and numbers serialize");
    write!(text, "id: {epoch}-{position}\nevent: {name}\ndata: {data}\n\n").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_read_or_refused() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(text));
            last_event(&headers)
        };
        assert!(matches!(of("17-4"), Ok(Some((Epoch(17), Position(4))))));
        assert!(matches!(of(""), Ok(None)));
        assert!(matches!(last_event(&HeaderMap::new()), Ok(None)));
        for bad in ["17", "-4", "17-", "a-b", "17-4-1", "+1-2", "99999999999999999999-1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_is_three_lines() {
        let mut text = String::new();
        event(&mut text, "hello", Epoch(3), Position(9), &Hello { position: Position(9), epoch: Epoch(3) });
        assert_eq!(text, "id: 3-9\nevent: hello\ndata: {\"position\":9,\"epoch\":3}\n\n");
    }

    #[test]
    fn filters_pick_by_element_and_let_a_fall_be_seen() {
        let key = AlarmKey {
            site: "s".parse().expect("valid"),
            resource: "host=a.port=1".parse().expect("valid"),
            alarm_type: "x".parse().expect("valid"),
            qualifier: "".parse().expect("valid"),
        };
        let params =
            StreamParams { resource: "host=a".parse().ok(), min_severity: Some(Severity::Major), ..Default::default() };
        assert!(!is_open(&params) && is_open(&StreamParams { from: Some(Position(1)), ..Default::default() }));
        assert!(picks_alarm(&params, &key, Severity::Critical, None));
        assert!(picks_alarm(&params, &key, Severity::Minor, Some(Severity::Major)));
        assert!(!picks_alarm(&params, &key, Severity::Minor, None));
        let other = StreamParams { resource: "host=a.port=12".parse().ok(), ..Default::default() };
        assert!(!picks_alarm(&other, &key, Severity::Critical, None));
    }
}

//! Those who were turned away: guessing is slow, and what was tried stands in history.
//!
//! An attempt becomes a log event of the type `klaxon.access-denied` (X.736: an alarm of security), so that it is found where all
//! else is, and whoever is to be told of it is told as of anything. The first of a kind is reported at once; what follows from the
//! same place within a minute is counted, and reported when the minute is over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klaxon_schemas::event::{AlarmKey, Attributes, Event, Report};
use klaxon_schemas::names::{Actor, AlarmType, AttributeName, AttributeValue, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::Item;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Peer;
use crate::http::problem::{Kind, Problem};
use crate::http::shares::Shares;

/// The type of the log event.
const ALARM_TYPE: &str = "klaxon.access-denied";
/// How long somebody with a wrong token waits for the answer.
const DENIAL_WAIT: Duration = Duration::from_secs(1);
/// The most that wait so at one time; others are told at once that it is too much.
const WAITING_MAX: usize = 64;
/// The most of them from one address.
const WAITING_OF_ONE_MAX: usize = 4;
/// How long attempts of one kind are counted before they are reported.
const COUNTED_FOR: Duration = Duration::from_secs(60);
/// The most kinds of attempts that are told apart at a time; what comes beyond them is counted as from elsewhere.
const KINDS_MAX: usize = 256;

/// Those who are turned away.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    attempts: Mutex<HashMap<Attempt, Seen>>,
    news: Notify,
    unknown: AtomicU64,
    forbidden: AtomicU64,
    /// How many wait for their answer, from where.
    waiting: Shares<IpAddr>,
}

/// What was tried, by whom and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attempt {
    from: Text,
    actor: Option<Actor>,
    /// What they were not allowed; nothing if what they showed was not good.
    what: Option<&'static str>,
}

/// How often it was tried.
#[derive(Debug, Default)]
struct Seen {
    /// Since the last report.
    count: u64,
    /// When it was last reported.
    reported: Option<Instant>,
}

impl Denials {
    /// Somebody shows a token that is not good: the problem that they are told, after a while.
    pub(crate) async fn slow(&self, peer: &Peer, place: &str) -> Problem {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        let from = Text::lossy(place).expect("addresses and names are short");
        self.attempt(Attempt { from, actor: None, what: None });
        let address = match peer {
            Peer::Net(peer) => peer.remote.ip().to_canonical(),
            Peer::Unix { .. } => IpAddr::from([127, 0, 0, 1]),
        };
        let Some(_place) = self.waiting.take(address, WAITING_OF_ONE_MAX, WAITING_MAX) else {
            return Problem::new(Kind::TooMany, "too many requests with a wrong token at one time");
        };
        tokio::time::sleep(DENIAL_WAIT).await;
        Problem::new(Kind::Unauthorized, "the token that is shown is not known, or not good any more")
    }

    /// Somebody was not allowed `what`.
    pub(crate) fn note(&self, from: &Text, actor: Option<&Actor>, what: &'static str) {
        self.forbidden.fetch_add(1, Ordering::Relaxed);
        self.attempt(Attempt { from: from.clone(), actor: actor.cloned(), what: Some(what) });
    }

    /// How many requests showed a token that is not good, and how many asked for what they may not.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.unknown.load(Ordering::Relaxed), self.forbidden.load(Ordering::Relaxed))
    }

    fn attempt(&self, attempt: Attempt) {
        let mut attempts = self.attempts.lock().expect("nobody panics while holding it");
        let attempt = match attempts.len() < KINDS_MAX || attempts.contains_key(&attempt) {
            true => attempt,
            false => Attempt { from: Text::new("elsewhere").expect("is a text"), actor: None, ..attempt },
        };
        attempts.entry(attempt).or_default().count += 1;
        drop(attempts);
        self.news.notify_one();
    }

    /// What is to be reported now, and when something is next.
    fn due(&self, now: Instant) -> (Vec<(Attempt, u64)>, Option<Instant>) {
        let mut attempts = self.attempts.lock().expect("nobody panics while holding it");
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        attempts.retain(|attempt, seen| {
            let until = seen.reported.map(|at| at + COUNTED_FOR);
            match until {
                Some(until) if until > now => next = Some(next.map_or(until, |next| next.min(until))),
                Some(_) if seen.count == 0 => return false,
                _ => {
                    due.push((attempt.clone(), std::mem::take(&mut seen.count)));
                    seen.reported = Some(now);
                    next = Some(next.map_or(now + COUNTED_FOR, |next| next.min(now + COUNTED_FOR)));
                }
            }
            true
        });
        (due, next)
    }

    /// Reports what is tried, until the node stops. What the journal does not take is counted on.
    pub(crate) async fn report(&self, door: &Door, site: &Site, stop: &CancellationToken) {
        loop {
            let (due, next) = self.due(Instant::now());
            if !due.is_empty() {
                let items = due.iter().map(|(attempt, count)| Item::Event(Arc::new(attempt.event(site, *count)))).collect();
                if door.publish(items, Tally::default()).await.is_err() {
                    let mut attempts = self.attempts.lock().expect("nobody panics while holding it");
                    for (attempt, count) in due {
                        attempts.entry(attempt).or_default().count += count;
                    }
                }
            }
            let wait = async {
                match next {
                    Some(next) => tokio::time::timeout_at(next, self.news.notified()).await.unwrap_or_default(),
                    None => self.news.notified().await,
                }
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }
}

impl Attempt {
    fn event(&self, site: &Site, count: u64) -> Event {
        let whose = self.actor.as_ref().map_or("Somebody", |actor| actor.as_str());
        let what =
            self.what.map_or_else(|| "showed a token that is not good".to_owned(), |what| format!("may not {what}, and tried"));
        let times = if count == 1 { String::new() } else { format!(", {count} times") };
        let text = format!("{whose} {what}{times}. They came from {}.", self.from);
        let key = AlarmKey {
            site: site.clone(),
            resource: Resource::new("api=http").expect("is a resource"),
            alarm_type: AlarmType::new(ALARM_TYPE).expect("is a type"),
            qualifier: Qualifier::new("").expect("may be empty"),
        };
        let mut event = Event::new(key, Report::Log(Severity::Warning), Text::lossy(&text).expect("may be empty"));
        let attribute = |name: &str, value: &str| {
            (AttributeName::new(name).expect("is a name"), AttributeValue::lossy(value).expect("may be empty"))
        };
        let mut attributes = vec![attribute("from", &self.from), attribute("attempts", &count.to_string())];
        attributes.extend(self.actor.as_ref().map(|actor| attribute("actor", actor)));
        event.details.attributes = Attributes::new(attributes.into_iter().collect()).expect("are few");
        event.of(Producer::new("klaxon").expect("is a name"))
    }
}

//! The alarm that a receiver cannot be reached, by the node's own door.

use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::names::{AlarmType, Follower, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Answer, Item};
use klaxon_store::{ALARMS_LIMIT_MAX, AlarmQuery, Store};
use tokio::task::JoinHandle;

/// Its type.
const ALARM_TYPE: &str = "klaxon.receiver-unreachable";
/// Its resource, up to the name.
const RESOURCE: &str = "klaxon=node.receiver=";
/// How long to wait before it is tried again to report it.
const RETRY: Duration = Duration::from_secs(5);

fn alarm_type() -> AlarmType {
    AlarmType::new(ALARM_TYPE).expect("is a type")
}

/// The receivers whose alarm stands.
pub(super) fn standing(store: &Store, site: &Site) -> Vec<Follower> {
    let query = AlarmQuery {
        site: Some(site.clone()),
        alarm_type: Some(alarm_type()),
        limit: ALARMS_LIMIT_MAX,
        ..AlarmQuery::default()
    };
    let page = store.read().list(&query);
    let name = |resource: &Resource| Follower::new(resource.as_str().strip_prefix(RESOURCE)?).ok();
    page.items.iter().filter_map(|alarm| name(&alarm.key.resource)).collect()
}

/// The report about `receiver`: raised with these words, or over.
pub(super) fn report(site: &Site, receiver: &Follower, fault: Option<&str>) -> Item {
    let key = AlarmKey {
        site: site.clone(),
        resource: Resource::new(&format!("{RESOURCE}{receiver}")).expect("a name fits into a resource"),
        alarm_type: alarm_type(),
        qualifier: Qualifier::new("").expect("may be empty"),
    };
    let report = fault.map_or(Report::Clear, |_| Report::Raise(Severity::Major));
    let text = Text::lossy(fault.unwrap_or("The receiver is reached again, or is told no more.")).expect("may be empty");
    Item::Event(Arc::new(Event::new(key, report, text).of(Producer::new("klaxon").expect("is a name"))))
}

/// Hands the report to the journal; the error says why it is not in there.
pub(super) async fn publish(door: &Door, report: Item) -> Result<(), String> {
    let published = door.publish(vec![report], Tally::default()).await.map_err(|error| error.to_string())?;
    taken(&published.answers)
}

/// Whether what was handed over is in the journal; what was rejected is not, though the journal works.
fn taken(answers: &[Answer]) -> Result<(), String> {
    let rejection = answers.iter().find_map(|answer| match answer {
        Answer::Rejected(rejection) => Some(rejection.to_string()),
        Answer::Accepted { .. } | Answer::Duplicate => None,
    });
    rejection.map_or(Ok(()), Err)
}

/// What was reported of one receiver, and what is to be.
#[derive(Debug)]
pub(super) struct Alarm {
    raised: bool,
    wanted: bool,
    reporting: Option<JoinHandle<bool>>,
    not_before: Option<Instant>,
}

impl Alarm {
    /// Whether it stands from before.
    pub(super) fn new(stands: bool) -> Self {
        Self { raised: stands, wanted: stands, reporting: None, not_before: None }
    }

    /// Whether it is to stand.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// When it is tried again to report it.
    pub(super) fn next(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.wanted != self.raised)
    }

    /// Whether a report is on its way.
    pub(super) fn is_reporting(&self) -> bool {
        self.reporting.is_some()
    }

    /// Reports what is to be and was not, if nothing is on its way. It goes on behind the caller.
    pub(super) fn report(
        &mut self,
        door: &Door,
        site: &Site,
        receiver: &Follower,
        words: impl FnOnce() -> String,
        now: Instant,
    ) {
        if self.wanted == self.raised || self.is_reporting() || self.not_before.is_some_and(|from| from > now) {
            return;
        }
        let words = self.wanted.then(words);
        let item = report(site, receiver, words.as_deref());
        let (door, wanted) = (door.clone(), self.wanted);
        self.raised = wanted;
        self.reporting = Some(tokio::spawn(async move {
            let published = publish(&door, item).await;
            published.inspect_err(|error| tracing::warn!(error, "an alarm about a receiver cannot be reported yet")).is_ok()
        }));
    }

    /// Waits for the report that is on its way, for ever if none is. What failed is tried again.
    pub(super) async fn reported(&mut self) {
        let Some(reporting) = &mut self.reporting else { return std::future::pending().await };
        let is_done = reporting.await.unwrap_or(false);
        self.reporting = None;
        if is_done {
            self.not_before = None;
        } else {
            self.raised = !self.raised;
            self.not_before = Some(Instant::now() + RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::ids::Position;
    use klaxon_store::publish::Rejection;

    use super::*;

    #[test]
    fn what_is_rejected_was_not_reported() {
        let accepted = Answer::Accepted { position: Position(1), changes: Vec::new() };
        assert_eq!(taken(&[accepted]), Ok(()));
        assert_eq!(taken(&[Answer::Duplicate]), Ok(()));
        let rejected = taken(&[Answer::Rejected(Rejection::AlarmLimit { limit: 7 })]);
        assert_eq!(rejected, Err("alarm limit reached: 7 alarms are active".to_owned()));
    }

    #[tokio::test]
    async fn what_was_not_reported_is_reported_later() {
        let mut alarm = Alarm::new(false);
        alarm.want(true);
        for is_taken in [false, true] {
            alarm.raised = true;
            alarm.reporting = Some(tokio::spawn(async move { is_taken }));
            alarm.reported().await;
            assert_eq!((alarm.raised, alarm.next().is_none()), (is_taken, is_taken));
        }
    }
}

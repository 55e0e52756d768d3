//! The desk of one collector: it holds what was found against what stands raised, and reports the difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change;
use klaxon_schemas::event::{AlarmKey, Details, Event, Lease, Origin, Report};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::{Producer, Site, Text};
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Answer, Item, PublishError, SUBMISSION_ENTRIES_MAX};

use super::{Finding, Subject, Told};

/// What the names of collectors begin with where they report.
const PRODUCER_PREFIX: &str = "collector/";

/// The name under which the collector `name` reports.
pub(super) fn producer(name: &str) -> Producer {
    Producer::new(&format!("{PRODUCER_PREFIX}{name}")).expect("names of collectors are checked")
}

/// The names of collectors whose alarms stand raised in the store.
pub(super) fn names_in(door: &Door, site: &Site) -> Vec<String> {
    let read = door.store().read();
    let ours = read.alarms().filter(|alarm| alarm.is_active() && alarm.key.site == *site);
    let names = ours.filter_map(|alarm| alarm.producer.as_ref()?.strip_prefix(PRODUCER_PREFIX).map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// What one collector told.
pub(super) struct Desk {
    door: Door,
    site: Site,
    producer: Producer,
    ids: BTreeMap<Subject, AlarmId>,
}

impl Desk {
    /// The desk of the collector `name`, with what stands raised of what it told before.
    pub(super) fn open(door: Door, site: Site, name: &str) -> Self {
        let producer = producer(name);
        let read = door.store().read();
        let ours = read
            .alarms()
            .filter(|alarm| alarm.is_active() && alarm.key.site == site && alarm.producer.as_ref() == Some(&producer));
        let ids = ours.map(|alarm| (subject(alarm), alarm.id)).collect();
        drop(read);
        Self { door, site, producer, ids }
    }

    /// What stands raised now; what others have cleared or taken away does not.
    fn raised(&self) -> BTreeMap<Subject, Arc<Alarm>> {
        let read = self.door.store().read();
        let raised = self.ids.iter().filter_map(|(subject, id)| Some((subject.clone(), Arc::clone(read.alarm(*id)?))));
        raised.filter(|(_, alarm)| alarm.is_active()).collect()
    }

    /// The same, as collectors want to know it.
    pub(super) fn told(&self) -> Told {
        Told(self.raised().into_iter().map(|(subject, alarm)| (subject, alarm.severity)).collect())
    }

    /// Reports what of `findings` is new, and what of that which stands raised is not among them. Returns what holds.
    pub(super) async fn tell(&mut self, findings: &[Finding]) -> Result<usize, PublishError> {
        let mut raised = self.raised();
        self.ids.retain(|subject, _| raised.contains_key(subject));
        let mut reports = Vec::new();
        for finding in findings {
            let known = raised.remove(&finding.subject);
            if !known.is_some_and(|alarm| alarm.severity == finding.severity && alarm.stale.is_none()) {
                reports.push(self.raise(finding, None));
            }
        }
        reports.extend(raised.into_keys().map(|subject| self.clear(subject, "It is over.")));
        self.publish(reports).await?;
        Ok(findings.len())
    }

    /// Reports that the collector itself failed. What stands raised becomes stale: nobody looks any more.
    pub(super) async fn went_blind(&mut self, fault: Finding) -> Result<(), PublishError> {
        // A promise to report again that is broken at once.
        let lease = Some(Lease::new(1).expect("within bounds"));
        let raised = self.raised();
        let mut reports = Vec::new();
        for (subject, alarm) in &raised {
            if alarm.stale.is_none() && *subject != fault.subject {
                let attributes = alarm.details.attributes.clone();
                let finding =
                    Finding { subject: subject.clone(), severity: alarm.severity, text: alarm.text.clone(), attributes };
                reports.push(self.raise(&finding, lease));
            }
        }
        if raised.get(&fault.subject).is_none_or(|alarm| alarm.severity != fault.severity) {
            reports.push(self.raise(&fault, None));
        }
        self.publish(reports).await
    }

    /// Clears everything: the collector is turned off.
    pub(super) async fn close(&mut self) -> Result<(), PublishError> {
        let raised = self.raised().into_keys();
        let reports = raised.map(|subject| self.clear(subject, "The collector was turned off.")).collect();
        self.publish(reports).await
    }

    async fn publish(&mut self, reports: Vec<Event>) -> Result<(), PublishError> {
        let mut reports = reports.into_iter().map(Arc::new).peekable();
        while reports.peek().is_some() {
            let chunk: Vec<_> = reports.by_ref().take(SUBMISSION_ENTRIES_MAX).collect();
            let items = chunk.iter().map(|event| Item::Event(Arc::clone(event))).collect();
            let published = self.door.publish(items, Tally::default()).await?;
            for (event, answer) in chunk.iter().zip(published.answers) {
                match answer {
                    Answer::Accepted { changes, .. } => {
                        let alarms = changes.iter().filter_map(|change| match &change.subject {
                            change::Subject::Alarm { alarm, .. } => Some(alarm),
                            _ => None,
                        });
                        self.ids.extend(alarms.filter(|alarm| alarm.key == event.key).map(|alarm| (subject(alarm), alarm.id)));
                    }
                    Answer::Duplicate => {}
                    Answer::Rejected(reason) => {
                        tracing::warn!(resource = %event.key.resource, %reason, "a finding of a collector was not taken");
                    }
                }
            }
        }
        Ok(())
    }

    fn raise(&self, finding: &Finding, lease: Option<Lease>) -> Event {
        let details = Details { attributes: finding.attributes.clone(), ..Details::default() };
        let report = Report::Raise(finding.severity);
        Event { details, lease, ..self.report(finding.subject.clone(), report, finding.text.clone()) }
    }

    fn clear(&self, subject: Subject, text: &str) -> Event {
        self.report(subject, Report::Clear, Text::new(text).expect("printable"))
    }

    fn report(&self, subject: Subject, report: Report, text: Text) -> Event {
        let Subject { resource, alarm_type, qualifier } = subject;
        Event {
            key: AlarmKey { site: self.site.clone(), resource, alarm_type, qualifier },
            report,
            text,
            details: Details::default(),
            event_time: None,
            origin: Origin { producer: Some(self.producer.clone()), sequence: None, event_id: None },
            lease: None,
            ends_at: None,
            order_by_event_time: false,
        }
    }
}

fn subject(alarm: &Alarm) -> Subject {
    let AlarmKey { resource, alarm_type, qualifier, .. } = alarm.key.clone();
    Subject { resource, alarm_type, qualifier }
}

//! The desk of one collector: it holds what was found against what stands raised, and reports the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change;
use klaxon_schemas::event::{AlarmKey, COLLECTOR_PREFIX, Details, Event, Lease, Report};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::{Producer, Site, Text};
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Answer, Item, PublishError, SUBMISSION_ENTRIES_MAX};

use super::{Finding, Heartbeat, Look, Subject, Told};

/// The name under which the collector `name` reports.
pub(super) fn producer(name: &str) -> Producer {
    Producer::new(&format!("{COLLECTOR_PREFIX}{name}")).expect("names of collectors are checked")
}

/// The names of collectors whose alarms stand raised in the store.
pub(super) fn names_in(door: &Door, site: &Site) -> Vec<String> {
    let read = door.store().read();
    let ours = read.alarms().filter(|alarm| alarm.is_active() && alarm.key.site == *site);
    let names = ours.filter_map(|alarm| alarm.producer.as_ref()?.strip_prefix(COLLECTOR_PREFIX).map(str::to_owned));
    let promises = read.heartbeats().iter().filter(|(key, _)| key.site == *site);
    let promising =
        promises.filter_map(|(_, heartbeat)| heartbeat.producer.as_ref()?.strip_prefix(COLLECTOR_PREFIX).map(str::to_owned));
    let mut names: Vec<String> = names.chain(promising).collect();
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
    /// What holds but is no alarm, because its type never clears: told once.
    logged: BTreeSet<Subject>,
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
        Self { door, site, producer, ids, logged: BTreeSet::new() }
    }

    /// What stands raised now; what others have cleared or taken away does not.
    fn raised(&self) -> BTreeMap<Subject, Arc<Alarm>> {
        let read = self.door.store().read();
        let raised = self.ids.iter().filter_map(|(subject, id)| Some((subject.clone(), Arc::clone(read.alarm(*id)?))));
        raised.filter(|(_, alarm)| alarm.is_active()).collect()
    }

    /// What was promised to be heard from.
    fn promises(&self) -> Vec<Subject> {
        let read = self.door.store().read();
        let ours = read
            .heartbeats()
            .iter()
            .filter(|(key, heartbeat)| key.site == self.site && heartbeat.producer.as_ref() == Some(&self.producer));
        ours.map(|(key, _)| about(key)).collect()
    }

    /// The same, as collectors want to know it.
    pub(super) fn told(&self) -> Told {
        Told(self.raised().into_iter().map(|(subject, alarm)| (subject, alarm.severity)).collect())
    }

    /// Reports what of `look` is new, and what of that which stands raised is not found any more.
    pub(super) async fn tell(&mut self, look: &Look) -> Result<(), PublishError> {
        let mut raised = self.raised();
        self.ids.retain(|subject, _| raised.contains_key(subject));
        let (found, logged) = self.sort(&look.findings);
        let mut reports = Vec::new();
        for (subject, finding) in &found {
            if !raised.remove(subject).is_some_and(|alarm| says(&alarm, finding)) {
                reports.push(self.raise(subject, finding, None));
            }
        }
        reports.extend(
            logged
                .iter()
                .filter(|(subject, _)| !self.logged.contains(*subject))
                .map(|(subject, finding)| self.raise(subject, finding, None)),
        );
        raised.retain(|subject, _| !look.unseen.contains(&subject.resource));
        let promised: BTreeSet<Subject> = look.heartbeats.iter().map(|heartbeat| heartbeat.subject.clone()).collect();
        // A heartbeat clears what silence has raised.
        raised.retain(|subject, _| !promised.contains(subject));
        reports.extend(look.heartbeats.iter().map(|heartbeat| {
            let Heartbeat { subject, severity, every, text } = heartbeat.clone();
            self.report(subject, Report::Heartbeat { every, severity }, text)
        }));
        let ended = self.promises().into_iter().filter(|subject| !promised.contains(subject) && !raised.contains_key(subject));
        reports.extend(ended.map(|subject| self.clear(subject, "It is not promised any more.")));
        reports.extend(raised.into_keys().map(|subject| self.clear(subject, "It is over.")));
        let logged = logged.into_keys().collect();
        self.publish(reports).await?;
        self.logged = logged;
        Ok(())
    }

    /// Findings under the names that the catalogue has for their types, each subject once and with the worst that was found;
    /// apart from them those whose type is never an alarm.
    fn sort<'a>(&self, findings: &'a [Finding]) -> (BTreeMap<Subject, &'a Finding>, BTreeMap<Subject, &'a Finding>) {
        let catalogue = self.door.store().read().catalogue();
        let (mut found, mut logged) = (BTreeMap::new(), BTreeMap::new());
        for finding in findings {
            let mut subject = finding.subject.clone();
            let entry = catalogue.as_ref().and_then(|catalogue| catalogue.get(&subject.alarm_type));
            if let Some(entry) = entry {
                subject.alarm_type = entry.id.clone();
            }
            let is_logged = entry.is_some_and(|entry| !entry.will_clear && entry.lifetime_s.is_none());
            let kind = if is_logged { &mut logged } else { &mut found };
            let worst = kind.entry(subject).or_insert(finding);
            if worst.severity < finding.severity {
                *worst = finding;
            }
        }
        (found, logged)
    }

    /// Reports that the collector itself failed. What stands raised becomes stale: nobody looks any more.
    pub(super) async fn went_blind(&mut self, fault: Finding) -> Result<(), PublishError> {
        // A promise to report again that is broken at once.
        let lease = Some(Lease::new(1).expect("within bounds"));
        let raised = self.raised();
        let mut reports = Vec::new();
        for (subject, alarm) in &raised {
            // The promise is made once: a second would put off its end.
            if alarm.stale.is_none() && alarm.engine.lease.is_none() && *subject != fault.subject {
                let attributes = alarm.details.attributes.clone();
                let finding =
                    Finding { subject: subject.clone(), severity: alarm.severity, text: alarm.text.clone(), attributes };
                reports.push(self.raise(subject, &finding, lease));
            }
        }
        if raised.get(&fault.subject).is_none_or(|alarm| !says(alarm, &fault)) {
            reports.push(self.raise(&fault.subject, &fault, None));
        }
        self.publish(reports).await
    }

    /// Clears everything: the collector is turned off.
    pub(super) async fn close(&mut self) -> Result<(), PublishError> {
        let mut told: BTreeSet<Subject> = self.raised().into_keys().collect();
        told.extend(self.promises());
        let reports = told.into_iter().map(|subject| self.clear(subject, "The collector was turned off.")).collect();
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
                        let mut alarms = changes.iter().filter_map(|change| match &change.subject {
                            change::Subject::Alarm { alarm, .. } => Some(alarm),
                            _ => None,
                        });
                        let ours = alarms.rfind(|alarm| alarm.key == event.key);
                        match ours {
                            Some(alarm) => _ = self.ids.insert(subject(alarm), alarm.id),
                            // It stood raised by somebody else, and nothing changed.
                            None if matches!(event.report, Report::Raise(_)) => self.adopt(&event.key),
                            None => {}
                        }
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

    /// Takes over the alarm with this key, if it is active.
    fn adopt(&mut self, key: &AlarmKey) {
        if self.ids.contains_key(&about(key)) {
            return;
        }
        let read = self.door.store().read();
        if let Some(alarm) = read.alarms().find(|alarm| alarm.is_active() && alarm.key == *key) {
            self.ids.insert(subject(alarm), alarm.id);
        }
    }

    fn raise(&self, subject: &Subject, finding: &Finding, lease: Option<Lease>) -> Event {
        let details = Details { attributes: finding.attributes.clone(), ..Details::default() };
        let report = Report::Raise(finding.severity);
        Event { details, lease, ..self.report(subject.clone(), report, finding.text.clone()) }
    }

    fn clear(&self, subject: Subject, text: &str) -> Event {
        self.report(subject, Report::Clear, Text::new(text).expect("printable"))
    }

    pub(super) fn report(&self, subject: Subject, report: Report, text: Text) -> Event {
        let Subject { resource, alarm_type, qualifier } = subject;
        let key = AlarmKey { site: self.site.clone(), resource, alarm_type, qualifier };
        Event::new(key, report, text).of(self.producer.clone())
    }
}

/// Whether the alarm says what the finding says: it is heard from, is as bad, and has the same words but for the numbers among
/// them. A value that moves is no news; another error, or another port, is.
fn says(alarm: &Alarm, finding: &Finding) -> bool {
    alarm.severity == finding.severity
        && alarm.stale.is_none()
        && alarm.engine.lease.is_none()
        && (finding.text.is_empty() || words(&alarm.text).eq(words(&finding.text)))
}

/// The words of a text without bare numbers.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_number = |word: &str| word.trim_matches(|sign: char| !sign.is_alphanumeric()).parse::<f64>().is_ok();
    text.split_whitespace().filter(move |word| !is_number(word))
}

fn subject(alarm: &Alarm) -> Subject {
    about(&alarm.key)
}

fn about(key: &AlarmKey) -> Subject {
    let AlarmKey { resource, alarm_type, qualifier, .. } = key.clone();
    Subject { resource, alarm_type, qualifier }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_moves_is_no_news_and_another_name_is() {
        let same = |one: &str, other: &str| words(one).eq(words(other));
        assert!(same("Processors are 91 % busy; the threshold is 90 %.", "Processors are 97 % busy; the threshold is 90 %."));
        assert!(same("97.4 % used, 3.1 GiB left", "98 % used, 2 GiB left"));
        assert!(!same("bond0 works without eth0", "bond0 works without eth1"));
        assert!(!same("no answer of 10.0.0.1", "no answer of 10.0.0.2"));
        assert!(!same("ended with 203/EXEC", "ended with 1/FAILURE"));
    }
}

//! What a correlator says by itself: what the engines are held to, and how its partitions fare.

use std::time::{Duration, Instant};

use klaxon_schemas::entry::EntryKind;
use klaxon_store::kafka::Place;

use super::Work;
use crate::own::{self, OwnAlarm, OwnStanding};

/// How often it is said again what should have been heard.
const SAY_AGAIN_WAIT: Duration = Duration::from_secs(10);

impl Work {
    /// Raises that a partition is not correlated. If that is the one where this would be said, others say so.
    pub(super) fn refuse(&self, partition: u16, why: &str) {
        self.send(Place::OfItsSite, own::raise(&self.parts.site, OwnAlarm::PartitionRefused(partition), why));
    }

    /// What the engine is held to, where it is held to something else.
    pub(super) fn tell_engine(&self, partition: u16) {
        let Some(part) = self.mine.get(&partition) else { return };
        let (_, settings, catalogue) = self.parts.held.get();
        let is_new = part.engine.cursor().catalogue.is_none();
        if is_new || *part.engine.settings() != settings {
            self.send(Place::Partition(partition), EntryKind::Settings(settings));
        }
        if part.engine.cursor().catalogue.as_ref() != Some(catalogue.digest()) {
            self.send(Place::Partition(partition), EntryKind::Bundle { digest: catalogue.digest().clone(), catalogue });
        }
    }

    /// Tells all engines when what they are held to has changed; and says again now and then what should have been heard by now:
    /// it may not have reached the brokers.
    pub(super) fn look_at_held(&mut self) {
        let (version, ..) = self.parts.held.get();
        let is_due = self.said_again.elapsed() >= SAY_AGAIN_WAIT;
        if is_due {
            self.said_again = Instant::now();
            self.tell_own();
        }
        if std::mem::replace(&mut self.held_version, version) != version || is_due {
            self.mine.keys().for_each(|partition| self.tell_engine(*partition));
        }
    }

    /// Says what nodes report of their partitions, where that is not what stands: whoever raised it may be gone.
    fn tell_own(&self) {
        let Some(standing) = self.parts.store.as_ref().map(OwnStanding::of) else { return };
        let site = &self.parts.site;
        for (partition, part) in &self.mine {
            if standing.has(site, OwnAlarm::PartitionRefused(*partition)) {
                self.clear_refused(*partition);
            }
            let settings = part.engine.settings();
            let limits = [
                (
                    OwnAlarm::PartitionFull(*partition),
                    part.engine.active_alarms(),
                    settings.active_alarms_max,
                    "alarms are active",
                ),
                (
                    OwnAlarm::PartitionHeartbeats(*partition),
                    part.engine.heartbeats(),
                    settings.heartbeats_max,
                    "programs have promised to be heard from",
                ),
            ];
            for (alarm, count, max, what) in limits {
                match own::at_limit(count, max, standing.has(site, alarm)) {
                    Some(true) => {
                        let text = format!("{count} {what} in partition {partition}; at {max} no more are taken there.");
                        self.send(Place::OfItsSite, own::raise(site, alarm, &text));
                    }
                    Some(false) => self.send(Place::OfItsSite, own::clear(site, alarm, "There is room again.")),
                    None => {}
                }
            }
        }
    }

    pub(super) fn clear_refused(&self, partition: u16) {
        let refused = OwnAlarm::PartitionRefused(partition);
        self.send(Place::OfItsSite, own::clear(&self.parts.site, refused, "It is correlated again."));
    }
}

//! What the node reports of itself, by the same door as everybody else: its disk, its limits, its journal.

use std::collections::BTreeSet;
use std::sync::Arc;

use klaxon_correlate::Engine;
use klaxon_schemas::entry::EntryKind;
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::names::{AlarmType, Door, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_store::{Room, Store};

/// An alarm about the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAlarm {
    /// Free space is below the watermark: intake is refused.
    DiskLow,
    /// As many alarms are active as there may be.
    AlarmLimit,
    /// As many reporters have promised to be heard from as may.
    HeartbeatLimit,
    /// The end of the journal was lost.
    TailMissing,
    /// An entry broke the engine.
    Quarantine,
    /// A part of the journal cannot be read.
    JournalDamaged,
    /// A partition of a journal that is kept elsewhere is not correlated.
    PartitionRefused(u16),
    /// As many alarms are active in such a partition as there may be.
    PartitionFull(u16),
    /// As many reporters have promised to be heard from in such a partition as may.
    PartitionHeartbeats(u16),
}

impl OwnAlarm {
    fn alarm_type(self) -> &'static str {
        match self {
            Self::DiskLow => "klaxon.disk-low",
            Self::AlarmLimit | Self::PartitionFull(_) => "klaxon.alarm-limit",
            Self::HeartbeatLimit | Self::PartitionHeartbeats(_) => "klaxon.heartbeat-limit",
            Self::TailMissing => "klaxon.journal-tail-missing",
            Self::Quarantine => "klaxon.quarantine",
            Self::JournalDamaged => "klaxon.journal-damaged",
            Self::PartitionRefused(_) => "klaxon.partition-refused",
        }
    }

    fn severity(self) -> Severity {
        match self {
            Self::DiskLow | Self::TailMissing | Self::JournalDamaged | Self::PartitionRefused(_) => Severity::Critical,
            Self::AlarmLimit
            | Self::HeartbeatLimit
            | Self::Quarantine
            | Self::PartitionFull(_)
            | Self::PartitionHeartbeats(_) => Severity::Major,
        }
    }

    fn resource(self) -> Resource {
        let resource = match self {
            Self::PartitionRefused(partition) | Self::PartitionFull(partition) | Self::PartitionHeartbeats(partition) => {
                Resource::new(&format!("klaxon=journal.partition={partition}"))
            }
            _ => Resource::new("klaxon=node"),
        };
        resource.expect("is a resource")
    }
}

/// The door of what the node itself reports.
pub fn door() -> Door {
    Door::new("node").expect("a door may be called so")
}

/// The report that raises `alarm`.
pub fn raise(site: &Site, alarm: OwnAlarm, text: &str) -> EntryKind {
    report(site, alarm, Report::Raise(alarm.severity()), text)
}

/// The report that clears `alarm`.
pub fn clear(site: &Site, alarm: OwnAlarm, text: &str) -> EntryKind {
    report(site, alarm, Report::Clear, text)
}

/// What stands raised in a store of what nodes report of themselves.
pub struct OwnStanding(BTreeSet<AlarmKey>);

impl OwnStanding {
    /// As the store has it now; it looks at all alarms.
    pub fn of(store: &Store) -> Self {
        let read = store.read();
        let is_own = |key: &AlarmKey| key.alarm_type.as_str().starts_with("klaxon.");
        Self(read.alarms().filter(|alarm| alarm.is_active() && is_own(&alarm.key)).map(|alarm| alarm.key.clone()).collect())
    }

    /// Whether `alarm` does.
    pub fn has(&self, site: &Site, alarm: OwnAlarm) -> bool {
        self.0.contains(&key(site, alarm))
    }
}

/// What is to be said where as many are there as there may be, or are not any more; nothing if it stands as it is. Once raised it
/// is over only when there is room for a tenth more, so that it does not flap at the limit.
pub fn at_limit(count: usize, max: usize, stands: bool) -> Option<bool> {
    let is_so = count >= if stands { max - max / 10 } else { max };
    (is_so != stands).then_some(is_so)
}

fn key(site: &Site, alarm: OwnAlarm) -> AlarmKey {
    AlarmKey {
        site: site.clone(),
        resource: alarm.resource(),
        alarm_type: AlarmType::new(alarm.alarm_type()).expect("is a type"),
        qualifier: Qualifier::new("").expect("may be empty"),
    }
}

fn report(site: &Site, alarm: OwnAlarm, report: Report, text: &str) -> EntryKind {
    let text = Text::lossy(text).expect("may be empty");
    let event = Event::new(key(site, alarm), report, text).of(Producer::new("klaxon").expect("is a name"));
    EntryKind::Event(Arc::new(event))
}

/// How things stand with the node.
#[derive(Debug)]
pub struct Standing {
    /// Whether the disk has room.
    pub room: Room,
    /// How many alarms are active.
    pub active: usize,
    /// How many may be.
    pub active_max: usize,
    /// How many reporters have promised to be heard from.
    pub heartbeats: usize,
    /// How many may.
    pub heartbeats_max: usize,
    /// What part of the journal cannot be read, in words.
    pub damage: Option<String>,
    /// Whether all of the journal was read since the start.
    pub is_checked: bool,
}

/// What has been told, so that it is told once.
#[derive(Debug, Default)]
pub struct Told {
    disk_low: bool,
    alarm_limit: bool,
    heartbeat_limit: bool,
    damaged: bool,
}

impl Told {
    /// What was told before, as the engine's alarms say: after a restart what no longer holds is cleared.
    pub fn before(site: &Site, engine: &Engine) -> Self {
        let told = |alarm| engine.find(&key(site, alarm)).is_some_and(|alarm| alarm.is_active());
        Self {
            disk_low: told(OwnAlarm::DiskLow),
            alarm_limit: told(OwnAlarm::AlarmLimit),
            heartbeat_limit: told(OwnAlarm::HeartbeatLimit),
            damaged: told(OwnAlarm::JournalDamaged),
        }
    }

    /// The reports that follow from how things stand now.
    pub fn look(&mut self, site: &Site, now: &Standing) -> Vec<EntryKind> {
        let Standing { active, active_max, heartbeats, heartbeats_max, .. } = *now;
        let low = match now.room {
            Room::Ok => None,
            Room::Low { free_bytes, watermark_bytes } => Some(format!(
                "{free_bytes} bytes are free on the disk that holds the journal, {watermark_bytes} are kept free; intake is refused."
            )),
            Room::Unread { journal_bytes, history_max_bytes } => Some(format!(
                "The journal has {journal_bytes} bytes, {history_max_bytes} are allowed, and the node above has yet to take them; intake is refused."
            )),
        };
        let is_full = at_limit(active, active_max, self.alarm_limit).unwrap_or(self.alarm_limit);
        let limit = is_full.then(|| format!("{active} alarms are active; at {active_max} no more are raised."));
        let is_full = at_limit(heartbeats, heartbeats_max, self.heartbeat_limit).unwrap_or(self.heartbeat_limit);
        let heartbeat_limit = is_full
            .then(|| format!("{heartbeats} programs have promised to be heard from; at {heartbeats_max} no more are taken."));
        let mut damage = None;
        if now.damage.is_some() || now.is_checked {
            let over = "All of the journal was read, and no damage was found.";
            damage = tell(&mut self.damaged, site, OwnAlarm::JournalDamaged, now.damage.clone(), over);
        }
        [
            damage,
            tell(&mut self.disk_low, site, OwnAlarm::DiskLow, low, "There is room on the disk again."),
            tell(&mut self.alarm_limit, site, OwnAlarm::AlarmLimit, limit, "There is room for alarms again."),
            tell(
                &mut self.heartbeat_limit,
                site,
                OwnAlarm::HeartbeatLimit,
                heartbeat_limit,
                "There is room for heartbeats again.",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn tell(told: &mut bool, site: &Site, alarm: OwnAlarm, fault: Option<String>, over: &str) -> Option<EntryKind> {
    let before = std::mem::replace(told, fault.is_some());
    match fault {
        Some(text) if !before => Some(raise(site, alarm, &text)),
        None if before => Some(clear(site, alarm, over)),
        _ => None,
    }
}

//! Several alarms in one message, for people who are called: what waits for whom, and until when.
//!
//! ```text
//! the first change ── wait ──▶ all that came with it ── interval, and wait again ──▶ all that came since
//! ```
//!
//! What waits has its numbers and is in the journal like all that waits. So this is about when things are sent and with what, and
//! nothing of it is kept: what waited when the node ended is sent at its start.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Subject;
use klaxon_schemas::event::{AlarmKey, Report};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::notify::How;
use klaxon_schemas::severity::Severity;

use super::What;

/// The most labels that alarms are grouped by.
pub const GROUP_LABELS_MAX: usize = 8;
/// The longest that a group may wait.
pub const GROUP_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The most of what else stands in a group that goes with its changes.
const STANDING_MAX: usize = 100;
/// So many groups are remembered until those are forgotten that have nothing to tell and nothing that stands.
const IDLE_MAX: usize = 1024;

/// What makes a group, and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// Alarms with the same values of these are one group; none of them, and all are.
    pub by: Vec<GroupLabel>,
    /// How long a change waits for others.
    pub wait: Duration,
    /// How long a group waits after it was sent until it is sent again.
    pub interval: Duration,
}

/// What alarms may be grouped by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupLabel {
    /// Whose they are.
    Site,
    /// What they are about.
    Resource,
    /// A part of that: the value of the element with this name.
    Element(String),
    /// Their type.
    AlarmType,
    /// Their qualifier.
    Qualifier,
    /// How urgent they are. An alarm that becomes more urgent goes to another group.
    Severity,
}

/// A text that is no [`GroupLabel`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of site, resource, resource.NAME (such as resource.host), alarm_type, qualifier, severity")]
pub struct GroupLabelError(String);

impl FromStr for GroupLabel {
    type Err = GroupLabelError;
    fn from_str(text: &str) -> Result<Self, GroupLabelError> {
        Ok(match text {
            "site" => Self::Site,
            "resource" => Self::Resource,
            "alarm_type" => Self::AlarmType,
            "qualifier" => Self::Qualifier,
            "severity" => Self::Severity,
            other => match other.strip_prefix("resource.") {
                Some(name) if !name.is_empty() => Self::Element(name.to_owned()),
                _ => return Err(GroupLabelError(text.to_owned())),
            },
        })
    }
}

impl fmt::Display for GroupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("site"),
            Self::Resource => f.write_str("resource"),
            Self::Element(name) => write!(f, "resource.{name}"),
            Self::AlarmType => f.write_str("alarm_type"),
            Self::Qualifier => f.write_str("qualifier"),
            Self::Severity => f.write_str("severity"),
        }
    }
}

impl GroupLabel {
    /// Its value; empty, where there is none.
    pub(super) fn value<'a>(&self, key: &'a AlarmKey, severity: Option<Severity>) -> &'a str {
        match self {
            Self::Site => &key.site,
            Self::Resource => key.resource.as_str(),
            Self::Element(name) => {
                let element = key.resource.elements().find(|element| element.name == Some(name));
                element.map_or("", |element| element.value)
            }
            Self::AlarmType => &key.alarm_type,
            Self::Qualifier => &key.qualifier,
            Self::Severity => severity.map_or("", Severity::as_str),
        }
    }
}

/// Which group it is: the values of its labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey(Vec<String>);

/// What else stands in a group, of what the receiver was told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The first of them; what does not fit is counted.
    pub alarms: Vec<Arc<Alarm>>,
    /// How many more.
    pub more: usize,
}

#[derive(Debug, Default)]
struct Group {
    /// Since when something waits.
    since: Option<Instant>,
    sent: Option<Instant>,
    /// It is on its way: what comes behind waits for it.
    is_busy: bool,
    standing: BTreeMap<AlarmId, Arc<Alarm>>,
}

/// The groups of one receiver.
#[derive(Debug)]
pub(super) struct Groups {
    grouping: Grouping,
    all: HashMap<GroupKey, Group>,
}

impl Groups {
    /// None yet.
    pub(super) fn new(grouping: Grouping) -> Self {
        Self { grouping, all: HashMap::new() }
    }

    /// The group of what is about an alarm or a report; what is about the delivery itself has none.
    pub(super) fn key(&self, what: &What) -> Option<GroupKey> {
        let (key, severity) = match what {
            What::Alarm { alarm, .. } => (&alarm.key, Some(alarm.severity)),
            What::Log { change } => match &change.subject {
                Subject::Event { event, .. } => match event.report {
                    Report::Log(severity) => (&event.key, Some(severity)),
                    _ => (&event.key, None),
                },
                _ => return None,
            },
            What::Digest(_) | What::Gap(_) | What::Heartbeat { .. } => return None,
        };
        Some(self.key_of(key, severity))
    }

    fn key_of(&self, key: &AlarmKey, severity: Option<Severity>) -> GroupKey {
        GroupKey(self.grouping.by.iter().map(|label| label.value(key, severity).to_owned()).collect())
    }

    /// It waits for others of its group from now on, if it has one: which that is.
    pub(super) fn wait(&mut self, what: &What, now: Instant) -> Option<GroupKey> {
        let key = self.key(what)?;
        self.all.entry(key.clone()).or_default().since.get_or_insert(now);
        Some(key)
    }

    /// Something waits no longer than until now: it has waited before.
    pub(super) fn hurry(&mut self, key: &GroupKey, now: Instant) {
        let group = self.all.entry(key.clone()).or_default();
        group.since = now.checked_sub(self.grouping.wait).or(Some(now));
    }

    /// Whether it may be sent.
    pub(super) fn is_due(&self, key: &GroupKey, now: Instant) -> bool {
        self.all.get(key).is_none_or(|group| self.due(group).is_none_or(|due| due <= now))
    }

    /// Whether it is on its way.
    pub(super) fn is_busy(&self, key: &GroupKey) -> bool {
        self.all.get(key).is_some_and(|group| group.is_busy)
    }

    fn due(&self, group: &Group) -> Option<Instant> {
        let waited = group.since? + self.grouping.wait;
        Some(group.sent.map_or(waited, |sent| waited.max(sent + self.grouping.interval)))
    }

    /// When the next becomes due behind `now`.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.all.values().filter_map(|group| self.due(group)).filter(|due| *due > now).min()
    }

    /// All of it that may be sent is; what is left waits from now on.
    pub(super) fn sent(&mut self, key: &GroupKey, is_left: bool, now: Instant) {
        let group = self.all.entry(key.clone()).or_default();
        (group.since, group.sent) = (is_left.then_some(now), Some(now));
    }

    /// It is on its way.
    pub(super) fn goes(&mut self, key: &GroupKey) {
        self.all.entry(key.clone()).or_default().is_busy = true;
    }

    /// What was sent has come back, delivered or not.
    pub(super) fn landed(&mut self, key: &GroupKey, now: Instant) {
        if let Some(group) = self.all.get_mut(key) {
            group.is_busy = false;
        }
        if self.all.len() > IDLE_MAX {
            let interval = self.grouping.interval;
            self.all.retain(|_, group| {
                let is_recent = group.sent.is_some_and(|sent| sent + interval > now);
                group.is_busy || group.since.is_some() || is_recent || !group.standing.is_empty()
            });
        }
    }

    /// The receiver knows this of the alarm now.
    pub(super) fn told(&mut self, how: How, alarm: &Arc<Alarm>) {
        // Then alarms change their groups, and nobody asks what stands in one.
        if self.grouping.by.contains(&GroupLabel::Severity) {
            return;
        }
        let group = self.all.entry(self.key_of(&alarm.key, None)).or_default();
        if how.stands() {
            group.standing.insert(alarm.id, Arc::clone(alarm));
        } else {
            group.standing.remove(&alarm.id);
        }
    }

    /// It stands for the receiver no longer, and it will not be told that.
    pub(super) fn forget(&mut self, alarm: AlarmId) {
        self.all.values_mut().for_each(|group| drop(group.standing.remove(&alarm)));
    }

    /// What else stands in the group than these.
    pub(super) fn standing(&self, key: &GroupKey, but: impl Fn(AlarmId) -> bool) -> Standing {
        let Some(group) = self.all.get(key) else { return Standing::default() };
        let mut others = group.standing.values().filter(|alarm| !but(alarm.id));
        let alarms = others.by_ref().take(STANDING_MAX).cloned().collect();
        Standing { alarms, more: others.count() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::samples::alarm;

    fn groups(by: &[&str]) -> Groups {
        let by = by.iter().map(|label| label.parse().expect("is a label")).collect();
        Groups::new(Grouping { by, wait: Duration::from_secs(30), interval: Duration::from_secs(300) })
    }

    fn raised(severity: Severity) -> What {
        What::Alarm { how: How::Raised, change: None, alarm: Arc::new(alarm(severity)), suppressed: false }
    }

    #[test]
    fn a_group_is_by_its_labels() {
        let key = |by: &[&str], severity| groups(by).key(&raised(severity)).expect("has one").0;
        assert_eq!(key(&["site", "resource.host", "alarm_type"], Severity::Major), ["north", "web-1", "disk.full"]);
        assert_eq!(key(&["resource.rack", "severity"], Severity::Minor), ["", "minor"]);
        assert!(key(&[], Severity::Major).is_empty());
        assert!("resource.".parse::<GroupLabel>().is_err() && "host".parse::<GroupLabel>().is_err());
        assert_eq!("resource.host".parse::<GroupLabel>().expect("is one").to_string(), "resource.host");
    }

    #[test]
    fn a_change_waits_for_others_and_a_group_for_its_interval() {
        let (mut groups, start) = (groups(&["site"]), Instant::now());
        let what = raised(Severity::Major);
        let key = groups.key(&what).expect("has one");
        let at = |seconds| start + Duration::from_secs(seconds);
        groups.wait(&what, at(0));
        groups.wait(&what, at(20));
        assert!(!groups.is_due(&key, at(29)) && groups.is_due(&key, at(30)));
        assert_eq!(groups.next_due(at(20)), Some(at(30)));
        groups.sent(&key, false, at(30));
        groups.goes(&key);
        assert!(groups.is_busy(&key));
        groups.landed(&key, at(31));
        groups.wait(&what, at(40));
        assert!(!groups.is_busy(&key) && !groups.is_due(&key, at(329)) && groups.is_due(&key, at(330)));
        groups.goes(&key);
        groups.landed(&key, at(331));
        assert!(groups.is_due(&key, at(331)), "not all of it could be sent, and the rest follows at once");
        groups.sent(&key, true, at(331));
        assert!(!groups.is_due(&key, at(630)) && groups.is_due(&key, at(631)), "what is left waits");
        groups.sent(&key, false, at(631));
        // Long quiet: what begins anew waits for others again.
        groups.wait(&what, at(2000));
        assert!(!groups.is_due(&key, at(2029)) && groups.is_due(&key, at(2030)));
        groups.hurry(&key, at(2001));
        assert!(groups.is_due(&key, at(2001)));
    }

    #[test]
    fn what_stands_beside_is_known_and_bounded() {
        let mut groups = groups(&[]);
        let key = groups.key(&raised(Severity::Major)).expect("has one");
        let all: Vec<Arc<Alarm>> = (0..130)
            .map(|number| Arc::new(Alarm { id: AlarmId(uuid::Uuid::from_u128(number)), ..alarm(Severity::Major) }))
            .collect();
        all.iter().for_each(|alarm| groups.told(How::Raised, alarm));
        groups.told(How::Cleared, &all[1]);
        let others = groups.standing(&key, |id| id == all[0].id);
        assert_eq!((others.alarms.len(), others.more, others.alarms[0].id), (STANDING_MAX, 28, all[2].id));
        groups.forget(all[2].id);
        let others = groups.standing(&key, |id| id == all[0].id);
        assert_eq!((others.more, others.alarms[0].id), (27, all[3].id));
    }
}

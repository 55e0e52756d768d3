//! Which alarms a list asks for, in which order, and how it goes on.
//!
//! A page ends with a cursor that holds the last alarm's place in the order: its sort key and its id. So the next page begins
//! behind it whatever has come or gone meanwhile; an alarm that moved over the cursor is seen twice or not at all.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use klaxon_schemas::access::Scope;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::history::Order;

/// The most alarms in one [`AlarmPage`].
pub const ALARMS_LIMIT_MAX: usize = 10_000;
/// The most bytes in the text of a cursor: the longest key, a resource, escaped and in hexadecimal digits, with its frame.
const CURSOR_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Which alarms are asked for; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmQuery {
    /// Of the sites that may be seen.
    pub scope: Scope,
    /// At this site.
    pub site: Option<Site>,
    /// At this resource or under it.
    pub resource: Option<Resource>,
    /// Of this type.
    pub alarm_type: Option<AlarmType>,
    /// At least this urgent.
    pub severity_min: Option<Severity>,
    /// Cleared or not; those that are not, unless said otherwise.
    pub cleared: Cleared,
    /// Acknowledged or not.
    pub acknowledged: Option<bool>,
    /// Shelved or not.
    pub shelved: Option<bool>,
    /// Of a suppressed type or not.
    pub suppressed: Option<bool>,
    /// Stale or not.
    pub stale: Option<bool>,
    /// With this text in the text, resource or type, in whatever case.
    pub text: Option<String>,
    /// This episode began not before.
    pub raised_from: Option<Timestamp>,
    /// This episode began before.
    pub raised_until: Option<Timestamp>,
    /// Last changed not before.
    pub changed_from: Option<Timestamp>,
    /// Last changed before.
    pub changed_until: Option<Timestamp>,
    /// In the order of what.
    pub sort: AlarmSort,
    /// Which way.
    pub order: Order,
    /// Only what stands behind this.
    pub after: Option<AlarmCursor>,
    /// At most so many, and at most [`ALARMS_LIMIT_MAX`].
    pub limit: usize,
}

impl Default for AlarmQuery {
    fn default() -> Self {
        Self {
            scope: Scope::all(),
            site: None,
            resource: None,
            alarm_type: None,
            severity_min: None,
            cleared: Cleared::No,
            acknowledged: None,
            shelved: None,
            suppressed: None,
            stale: None,
            text: None,
            raised_from: None,
            raised_until: None,
            changed_from: None,
            changed_until: None,
            sort: AlarmSort::Severity,
            order: Order::Descending,
            after: None,
            limit: 100,
        }
    }
}

/// Whether cleared alarms are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleared {
    /// Only those that are not cleared.
    #[default]
    No,
    /// Only those that are.
    Yes,
    /// All.
    Both,
}

/// What a list is sorted by; what is equal in it is sorted by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlarmSort {
    /// Severity, then when this episode began.
    #[default]
    Severity,
    /// When this episode began.
    RaisedAt,
    /// When it last changed.
    ChangedAt,
    /// Resource.
    Resource,
    /// Type.
    AlarmType,
    /// Site.
    Site,
    /// How many reports this episode had.
    Count,
}

/// The place of an alarm in a sorted list. As text it is hexadecimal digits that mean nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmCursor {
    pub(super) key: SortKey,
    pub(super) id: AlarmId,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of a list of alarms")]
pub struct AlarmCursorError;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SortKey {
    Severity(Severity, Timestamp),
    RaisedAt(Timestamp),
    ChangedAt(Timestamp),
    Resource(Resource),
    AlarmType(AlarmType),
    Site(Site),
    Count(u64),
}

/// One page of alarms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlarmPage {
    /// In the order that was asked for.
    pub items: Vec<Arc<Alarm>>,
    /// The cursor to go on from; absent at the end.
    pub next: Option<AlarmCursor>,
}

impl AlarmSort {
    /// What `alarm` is sorted by.
    pub(super) fn key(self, alarm: &Alarm) -> SortKey {
        match self {
            Self::Severity => SortKey::Severity(alarm.severity, alarm.raised_at),
            Self::RaisedAt => SortKey::RaisedAt(alarm.raised_at),
            Self::ChangedAt => SortKey::ChangedAt(alarm.changed_at),
            Self::Resource => SortKey::Resource(alarm.key.resource.clone()),
            Self::AlarmType => SortKey::AlarmType(alarm.key.alarm_type.clone()),
            Self::Site => SortKey::Site(alarm.key.site.clone()),
            Self::Count => SortKey::Count(alarm.count),
        }
    }

    /// How two alarms stand to each other, smallest first.
    pub(super) fn compare(self, one: &Alarm, other: &Alarm) -> Ordering {
        let by_key = match self {
            Self::Severity => one.severity.cmp(&other.severity).then_with(|| one.raised_at.cmp(&other.raised_at)),
            Self::RaisedAt => one.raised_at.cmp(&other.raised_at),
            Self::ChangedAt => one.changed_at.cmp(&other.changed_at),
            Self::Resource => one.key.resource.cmp(&other.key.resource),
            Self::AlarmType => one.key.alarm_type.cmp(&other.key.alarm_type),
            Self::Site => one.key.site.cmp(&other.key.site),
            Self::Count => one.count.cmp(&other.count),
        };
        by_key.then_with(|| one.id.cmp(&other.id))
    }
}

impl AlarmCursor {
    /// The place of `alarm` in a list sorted by `sort`.
    pub fn of(alarm: &Alarm, sort: AlarmSort) -> Self {
        Self { key: sort.key(alarm), id: alarm.id }
    }

    /// What the list that it belongs to is sorted by.
    pub fn sort(&self) -> AlarmSort {
        match self.key {
            SortKey::Severity(..) => AlarmSort::Severity,
            SortKey::RaisedAt(_) => AlarmSort::RaisedAt,
            SortKey::ChangedAt(_) => AlarmSort::ChangedAt,
            SortKey::Resource(_) => AlarmSort::Resource,
            SortKey::AlarmType(_) => AlarmSort::AlarmType,
            SortKey::Site(_) => AlarmSort::Site,
            SortKey::Count(_) => AlarmSort::Count,
        }
    }

    /// Where `alarm` stands to this place, smallest first.
    pub(super) fn place_of(&self, alarm: &Alarm) -> Ordering {
        let by_key = match &self.key {
            SortKey::Severity(severity, at) => alarm.severity.cmp(severity).then_with(|| alarm.raised_at.cmp(at)),
            SortKey::RaisedAt(at) => alarm.raised_at.cmp(at),
            SortKey::ChangedAt(at) => alarm.changed_at.cmp(at),
            SortKey::Resource(resource) => alarm.key.resource.cmp(resource),
            SortKey::AlarmType(alarm_type) => alarm.key.alarm_type.cmp(alarm_type),
            SortKey::Site(site) => alarm.key.site.cmp(site),
            SortKey::Count(count) => alarm.count.cmp(count),
        };
        by_key.then_with(|| alarm.id.cmp(&self.id))
    }
}

impl fmt::Display for AlarmCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).expect("names and numbers serialize");
        json.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AlarmCursor {
    type Err = AlarmCursorError;

    fn from_str(text: &str) -> Result<Self, AlarmCursorError> {
        let digits = text.as_bytes();
        if digits.len() > CURSOR_TEXT_BYTES_MAX || digits.len() % 2 == 1 {
            return Err(AlarmCursorError);
        }
        let mut json = Vec::with_capacity(digits.len() / 2);
        for pair in digits.chunks_exact(2) {
            let high = char::from(pair[0]).to_digit(16).ok_or(AlarmCursorError)?;
            let low = char::from(pair[1]).to_digit(16).ok_or(AlarmCursorError)?;
            json.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte"));
        }
        serde_json::from_slice(&json).map_err(|_| AlarmCursorError)
    }
}

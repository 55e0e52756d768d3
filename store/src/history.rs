//! Looking back.
use klaxon_schemas::change::{Change, ChangeKind};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;

/// The most changes in one [`HistoryPage`].
pub const HISTORY_LIMIT_MAX: usize = 1000;

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The largest or newest first.
    #[default]
    Descending,
    /// The smallest or oldest first.
    Ascending,
}

/// Which changes are asked for; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of this alarm.
    pub alarm: Option<AlarmId>,
    /// At this site.
    pub site: Option<Site>,
    /// At this resource or under it.
    pub resource: Option<Resource>,
    /// Of this type.
    pub alarm_type: Option<AlarmType>,
    /// Of one of these kinds; all if empty.
    pub kinds: Vec<ChangeKind>,
    /// At least this urgent. What has no severity is left out.
    pub severity_min: Option<Severity>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// With this text in the text, resource, type or note, in whatever case.
    pub text: Option<String>,
    /// Newest first, or oldest first.
    pub order: Order,
    /// Go on from here: only what is before it if newest first, behind it if oldest first.
    pub cursor: Option<Position>,
    /// At most so many, and at most [`HISTORY_LIMIT_MAX`].
    pub limit: usize,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self {
            alarm: None,
            site: None,
            resource: None,
            alarm_type: None,
            kinds: Vec::new(),
            severity_min: None,
            from: None,
            until: None,
            text: None,
            order: Order::Descending,
            cursor: None,
            limit: 100,
        }
    }
}

/// Some of the changes that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// In the order that was asked for.
    pub items: Vec<(Position, Change)>,
    /// The cursor to go on from; absent at the end. A page may be short, even empty, and still have one.
    pub next: Option<Position>,
}

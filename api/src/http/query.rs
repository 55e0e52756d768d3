//! The typed query parameters of the API: filters and order of the lists, their pages and cursors.

use klaxon_schemas::access::Scope;
use klaxon_schemas::change::ChangeKind;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{Actor, AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_store::{ALARMS_LIMIT_MAX, AlarmCursor, AlarmQuery, AlarmSort, Cleared, HISTORY_LIMIT_MAX, HistoryQuery, Order};
use serde::de::IntoDeserializer;
use serde::de::value::Error as WordError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::params::{FromParams, Params};

/// The longest text that is looked for.
pub(crate) const SEARCH_BYTES_MAX: usize = 256;
/// How many rows a page has unless asked for more.
pub(crate) const LIMIT_DEFAULT: usize = 100;
/// How many changes are shown with one alarm unless asked for more.
pub(crate) const ALARM_HISTORY_DEFAULT: usize = 50;

const AXIS: [(&str, Axis); 3] = [("true", Axis::True), ("false", Axis::False), ("any", Axis::Any)];
const SORTS: [(&str, Sort); 7] = [
    ("severity", Sort::Severity),
    ("raised_at", Sort::RaisedAt),
    ("changed_at", Sort::ChangedAt),
    ("resource", Sort::Resource),
    ("alarm_type", Sort::AlarmType),
    ("site", Sort::Site),
    ("count", Sort::Count),
];
const ORDERS: [(&str, Direction); 2] = [("asc", Direction::Asc), ("desc", Direction::Desc)];

/// One axis of an alarm, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Axis {
    /// It must be so.
    True,
    /// It must not be so.
    False,
    /// It does not matter.
    #[default]
    Any,
}

impl Axis {
    fn asked(self) -> Option<bool> {
        match self {
            Self::True => Some(true),
            Self::False => Some(false),
            Self::Any => None,
        }
    }
}

/// What a list of alarms is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// Severity, then when the episode began.
    #[default]
    Severity,
    /// When the episode began.
    RaisedAt,
    /// When it last changed.
    ChangedAt,
    /// Resource.
    Resource,
    /// Type.
    AlarmType,
    /// Site.
    Site,
    /// How many reports the episode had.
    Count,
}

impl From<Sort> for AlarmSort {
    fn from(sort: Sort) -> Self {
        match sort {
            Sort::Severity => Self::Severity,
            Sort::RaisedAt => Self::RaisedAt,
            Sort::ChangedAt => Self::ChangedAt,
            Sort::Resource => Self::Resource,
            Sort::AlarmType => Self::AlarmType,
            Sort::Site => Self::Site,
            Sort::Count => Self::Count,
        }
    }
}

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// The smallest or oldest first.
    Asc,
    /// The largest or newest first.
    #[default]
    Desc,
}

impl From<Direction> for Order {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Asc => Self::Ascending,
            Direction::Desc => Self::Descending,
        }
    }
}

/// Which alarms; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlarmFilter {
    /// At this site.
    pub(crate) site: Option<Site>,
    /// At this resource or under it.
    pub(crate) resource: Option<Resource>,
    /// Of this type.
    pub(crate) alarm_type: Option<AlarmType>,
    /// At least this urgent.
    pub(crate) min_severity: Option<Severity>,
    /// Of exactly this severity; may be given several times.
    #[param(required = false)]
    #[schema(required = false)]
    pub(crate) severity: Vec<Severity>,
    /// Cleared or not; those that are not, unless said otherwise.
    pub(crate) cleared: Option<Axis>,
    /// Acknowledged or not.
    pub(crate) acknowledged: Option<Axis>,
    /// Shelved or not.
    pub(crate) shelved: Option<Axis>,
    /// Of a suppressed type or not.
    pub(crate) suppressed: Option<Axis>,
    /// Stale or not.
    pub(crate) stale: Option<Axis>,
    /// With this in the text, resource or type, in whatever case.
    #[param(min_length = 1, max_length = 256)]
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) text: Option<String>,
    /// The episode began at this time or later.
    pub(crate) raised_after: Option<Timestamp>,
    /// The episode began before this time.
    pub(crate) raised_before: Option<Timestamp>,
    /// Changed at this time or later.
    pub(crate) changed_after: Option<Timestamp>,
    /// Last changed before this time.
    pub(crate) changed_before: Option<Timestamp>,
}

impl FromParams for AlarmFilter {
    fn take(params: &mut Params) -> Self {
        Self {
            site: params.one("site"),
            resource: params.one("resource"),
            alarm_type: params.one("alarm_type"),
            min_severity: params.one("min_severity"),
            severity: params
                .many("severity", |text| text.parse().map_err(|error: klaxon_schemas::severity::NoSeverity| error.to_string())),
            cleared: params.word("cleared", &AXIS),
            acknowledged: params.word("acknowledged", &AXIS),
            shelved: params.word("shelved", &AXIS),
            suppressed: params.word("suppressed", &AXIS),
            stale: params.word("stale", &AXIS),
            text: params.text("text", SEARCH_BYTES_MAX),
            raised_after: params.time("raised_after"),
            raised_before: params.time("raised_before"),
            changed_after: params.time("changed_after"),
            changed_before: params.time("changed_before"),
        }
    }
}

impl AlarmFilter {
    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether many alarms may have to be looked at to find a few.
    pub(crate) fn is_laborious(&self) -> bool {
        self.text.is_some() || !self.is_said_by_query()
    }

    /// The store's form of it. The store knows a least severity only: [`Self::picks`] tells the rest.
    pub(crate) fn query(&self) -> AlarmQuery {
        AlarmQuery {
            site: self.site.clone(),
            resource: self.resource.clone(),
            alarm_type: self.alarm_type.clone(),
            severity_min: self.min_severity.max(self.severity.iter().min().copied()),
            cleared: match self.cleared {
                None | Some(Axis::False) => Cleared::No,
                Some(Axis::True) => Cleared::Yes,
                Some(Axis::Any) => Cleared::Both,
            },
            acknowledged: self.acknowledged.and_then(Axis::asked),
            shelved: self.shelved.and_then(Axis::asked),
            suppressed: self.suppressed.and_then(Axis::asked),
            stale: self.stale.and_then(Axis::asked),
            text: self.text.clone(),
            raised_from: self.raised_after,
            raised_until: self.raised_before,
            changed_from: self.changed_after,
            changed_until: self.changed_before,
            ..AlarmQuery::default()
        }
    }

    /// Whether an alarm that the store picked by [`Self::query`] is picked.
    pub(crate) fn picks(&self, severity: Severity) -> bool {
        self.severity.is_empty() || self.severity.contains(&severity)
    }

    /// Whether the store's query says it all.
    pub(crate) fn is_said_by_query(&self) -> bool {
        match self.severity.iter().min() {
            None => true,
            Some(least) => Severity::ALL.iter().filter(|severity| *severity >= least).all(|severity| self.picks(*severity)),
        }
    }
}

/// In which order alarms are listed, and which page of them.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlarmPaging {
    /// Sorted by what; by `severity` unless said otherwise.
    #[param(inline)]
    pub(crate) sort: Option<Sort>,
    /// `desc` unless said otherwise.
    #[param(inline)]
    pub(crate) order: Option<Direction>,
    /// At most so many; 100 unless said otherwise.
    #[param(required = false, minimum = 1, maximum = 10000)]
    pub(crate) limit: usize,
    /// The `next` of the page before; with the same filters, sort and order.
    #[param(value_type = Option<String>)]
    pub(crate) cursor: Option<AlarmCursor>,
    /// Wait, at most two seconds, until the state has come to this position.
    pub(crate) at_least: Option<Position>,
}

impl FromParams for AlarmPaging {
    fn take(params: &mut Params) -> Self {
        let paging = Self {
            sort: params.word("sort", &SORTS),
            order: params.word("order", &ORDERS),
            limit: params.limit("limit", LIMIT_DEFAULT, ALARMS_LIMIT_MAX),
            cursor: params.one("cursor"),
            at_least: at_least(params),
        };
        let sort = AlarmSort::from(paging.sort.unwrap_or_default());
        if paging.cursor.as_ref().is_some_and(|cursor| cursor.sort() != sort) {
            params.refuse("cursor", "belongs to a list that is sorted by something else");
        }
        paging
    }
}

/// Filter and page of a list of alarms.
#[derive(Debug)]
pub(crate) struct AlarmList {
    /// Which alarms.
    pub(crate) filter: AlarmFilter,
    /// Which of them first.
    pub(crate) paging: AlarmPaging,
}

impl FromParams for AlarmList {
    fn take(params: &mut Params) -> Self {
        Self { filter: AlarmFilter::take(params), paging: AlarmPaging::take(params) }
    }
}

/// Which changes, in which order; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// Of this alarm.
    pub(crate) alarm: Option<AlarmId>,
    /// At this site.
    pub(crate) site: Option<Site>,
    /// At this resource or under it.
    pub(crate) resource: Option<Resource>,
    /// Of this type.
    pub(crate) alarm_type: Option<AlarmType>,
    /// Of this kind; may be given several times.
    #[param(required = false)]
    pub(crate) kind: Vec<ChangeKind>,
    /// That this person or program did, or tried to do.
    pub(crate) actor: Option<Actor>,
    /// At least this urgent.
    pub(crate) min_severity: Option<Severity>,
    /// With this in the text, resource, type or note, in whatever case.
    #[param(min_length = 1, max_length = 256)]
    pub(crate) text: Option<String>,
    /// At this time or later.
    pub(crate) from: Option<Timestamp>,
    /// Before this time.
    pub(crate) until: Option<Timestamp>,
    /// `desc`, the newest first, unless said otherwise.
    #[param(inline)]
    pub(crate) order: Option<Direction>,
    /// At most so many; 100 unless said otherwise.
    #[param(required = false, minimum = 1, maximum = 1000)]
    pub(crate) limit: usize,
    /// The `next` of the page before; with the same filters and order.
    #[param(value_type = Option<String>)]
    pub(crate) cursor: Option<Position>,
    /// Wait, at most two seconds, until the state has come to this position.
    pub(crate) at_least: Option<Position>,
}

impl FromParams for HistoryParams {
    fn take(params: &mut Params) -> Self {
        Self {
            alarm: params.read("alarm", alarm_id),
            site: params.one("site"),
            resource: params.one("resource"),
            alarm_type: params.one("alarm_type"),
            kind: params.many("kind", change_kind),
            actor: params.one("actor"),
            min_severity: params.one("min_severity"),
            text: params.text("text", SEARCH_BYTES_MAX),
            from: params.time("from"),
            until: params.time("until"),
            order: params.word("order", &ORDERS),
            limit: params.limit("limit", LIMIT_DEFAULT, HISTORY_LIMIT_MAX),
            cursor: position_cursor(params),
            at_least: at_least(params),
        }
    }
}

impl From<HistoryParams> for HistoryQuery {
    fn from(params: HistoryParams) -> Self {
        Self {
            alarm: params.alarm,
            action: None,
            actor: params.actor,
            scope: Scope::all(),
            site: params.site,
            resource: params.resource,
            alarm_type: params.alarm_type,
            kinds: params.kind,
            severity_min: params.min_severity,
            from: params.from,
            until: params.until,
            text: params.text,
            order: params.order.unwrap_or_default().into(),
            cursor: params.cursor,
            limit: params.limit,
        }
    }
}

/// As of when.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AtLeast {
    /// Wait, at most two seconds, until the state has come to this position.
    pub(crate) at_least: Option<Position>,
}

impl FromParams for AtLeast {
    fn take(params: &mut Params) -> Self {
        Self { at_least: at_least(params) }
    }
}

/// Which of an alarm's changes.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlarmHistoryParams {
    /// At most so many changes; 50 unless said otherwise.
    #[param(required = false, minimum = 1, maximum = 1000)]
    pub(crate) limit: usize,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    pub(crate) cursor: Option<Position>,
    /// Wait, at most two seconds, until the state has come to this position.
    pub(crate) at_least: Option<Position>,
}

impl FromParams for AlarmHistoryParams {
    fn take(params: &mut Params) -> Self {
        Self {
            limit: params.limit("limit", ALARM_HISTORY_DEFAULT, HISTORY_LIMIT_MAX),
            cursor: position_cursor(params),
            at_least: at_least(params),
        }
    }
}

impl AlarmHistoryParams {
    /// The changes of `alarm`, the newest first.
    pub(crate) fn query(&self, alarm: AlarmId) -> HistoryQuery {
        HistoryQuery { alarm: Some(alarm), cursor: self.cursor, limit: self.limit, ..HistoryQuery::default() }
    }
}

/// Which part of the stream, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// What stands behind this position; from now on unless said otherwise. The header `Last-Event-ID` goes before it.
    pub(crate) from: Option<Position>,
    /// At this site.
    pub(crate) site: Option<Site>,
    /// At this resource or under it.
    pub(crate) resource: Option<Resource>,
    /// Of this type.
    pub(crate) alarm_type: Option<AlarmType>,
    /// Alarms that are, or were before the change, at least this urgent.
    pub(crate) min_severity: Option<Severity>,
}

impl FromParams for StreamParams {
    fn take(params: &mut Params) -> Self {
        Self {
            from: params.number("from").map(Position),
            site: params.one("site"),
            resource: params.one("resource"),
            alarm_type: params.one("alarm_type"),
            min_severity: params.one("min_severity"),
        }
    }
}

fn at_least(params: &mut Params) -> Option<Position> {
    params.number("at_least").map(Position)
}

fn position_cursor(params: &mut Params) -> Option<Position> {
    params.read("cursor", |text| text.parse().map(Position).map_err(|_| "is no cursor of a history".to_owned()))
}

fn alarm_id(text: &str) -> Result<AlarmId, String> {
    text.parse().map(AlarmId).map_err(|_| "is no UUID".to_owned())
}

fn change_kind(text: &str) -> Result<ChangeKind, String> {
    let deserializer: serde::de::value::StrDeserializer<'_, WordError> = text.into_deserializer();
    ChangeKind::deserialize(deserializer).map_err(|_| "is no kind of change, such as raised or cleared".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Kind;
    use utoipa::openapi::path::Parameter;

    fn documented(parameters: Vec<Parameter>) -> Vec<String> {
        parameters.into_iter().map(|parameter| parameter.name).collect()
    }

    fn known<T: FromParams>() -> Vec<String> {
        let mut params = Params::default();
        T::take(&mut params);
        params.known().iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_documented_is_what_is_read() {
        let none = || None;
        assert_eq!(documented(AlarmFilter::into_params(none)), known::<AlarmFilter>());
        assert_eq!(documented(AlarmPaging::into_params(none)), known::<AlarmPaging>());
        assert_eq!(documented(HistoryParams::into_params(none)), known::<HistoryParams>());
        assert_eq!(documented(AlarmHistoryParams::into_params(none)), known::<AlarmHistoryParams>());
        assert_eq!(documented(AtLeast::into_params(none)), known::<AtLeast>());
        assert_eq!(documented(StreamParams::into_params(none)), known::<StreamParams>());
    }

    fn list(query: &str) -> Result<AlarmList, super::super::problem::Problem> {
        let mut params = Params::of_query(query)?;
        let list = AlarmList::take(&mut params);
        params.finish(Kind::InvalidParameter).map(|()| list)
    }

    #[test]
    fn filters_become_the_stores_query() {
        let asked = list("resource=host%3Dweb-1.port%3Deth0&min_severity=major&cleared=any&acknowledged=false&shelved=any")
            .expect("is sound");
        let query = asked.filter.query();
        assert_eq!(query.resource.as_ref().map(Resource::as_str), Some("host=web-1.port=eth0"));
        assert_eq!(query.severity_min, Some(Severity::Major));
        assert_eq!(query.cleared, Cleared::Both);
        assert_eq!((query.acknowledged, query.shelved, query.stale), (Some(false), None, None));
        assert_eq!(asked.paging.limit, LIMIT_DEFAULT);
        assert!(asked.filter.is_said_by_query());
    }

    #[test]
    fn exact_severities_are_bounded_by_the_least_of_them() {
        let filter = list("severity=warning&severity=major&min_severity=minor").expect("is sound").filter;
        assert_eq!(filter.query().severity_min, Some(Severity::Minor));
        assert!(!filter.is_said_by_query() && filter.picks(Severity::Major) && !filter.picks(Severity::Minor));
        let top = list("severity=critical").expect("is sound").filter;
        assert!(top.is_said_by_query() && top.query().severity_min == Some(Severity::Critical));
    }

    #[test]
    fn every_bad_parameter_is_refused() {
        for query in [
            "site=a%20b",
            "site=",
            "resource=",
            "resource=%00",
            "alarm_type=%C3%BC",
            "min_severity=cleared",
            "severity=high",
            "cleared=yes",
            "text=",
            "raised_after=now",
            "sort=id",
            "order=up",
            "limit=10001",
            "limit=1e3",
            "cursor=zz",
            "at_least=-1",
            "at_least=18446744073709551616",
            "site=a&site=b",
            "page=1",
            "cursor=7b7d",
        ] {
            assert!(list(query).is_err(), "{query}");
        }
    }

    #[test]
    fn kinds_may_be_several() {
        let mut params = Params::of_query("kind=raised&kind=severity-changed").expect("is sound");
        assert_eq!(HistoryParams::take(&mut params).kind, [ChangeKind::Raised, ChangeKind::SeverityChanged]);
        let mut params = Params::of_query("kind=exploded").expect("is sound");
        HistoryParams::take(&mut params);
        assert!(params.finish(Kind::InvalidParameter).is_err());
    }
}

//! What is asked for is read as it was meant, and all that is read is described.

use std::borrow::Cow;

use klaxon_schemas::ids::Position;
use klaxon_schemas::time::Timestamp;
use utoipa::IntoParams;
use uuid::Uuid;

use super::super::params::{FromParams, Params};
use super::super::problem::Kind;
use super::super::serve::Serves;
use super::alarms::{AlarmsAsked, SummaryAsked};
use super::asked::{Conditions, Field, LIMIT_MAX, OfLists, Paging};
use super::events::EventsAsked;
use super::is_theirs;
use super::shown::position_of;
use super::suppression::TypesAsked;

const FIELDS: [(&str, Field); 6] = [
    ("severity", Field::Severity),
    ("entity_instance_id", Field::Entity),
    ("alarm_type", Field::Type),
    ("event_log_type", Field::LogType),
    ("start", Field::Start),
    ("end", Field::End),
];

fn read<T>(query: &str, take: impl Fn(&mut Params) -> T) -> Option<T> {
    let mut params = Params::of_query(query).ok()?;
    let taken = take(&mut params);
    params.finish(Kind::InvalidParameter).ok().map(|()| taken)
}

fn conditions(query: &str) -> Option<Conditions> {
    read(query, |params| Conditions::take(params, &FIELDS))
}

/// Whether an alarm of this severity and entity is picked.
fn picks(query: &str, severity: &'static str, entity: &'static str) -> bool {
    let conditions = conditions(query).unwrap_or_else(|| panic!("{query} is sound"));
    conditions.pick(|field| match field {
        Field::Severity => Cow::Borrowed(severity),
        Field::Entity => Cow::Borrowed(entity),
        _ => Cow::Borrowed("equipment"),
    })
}

#[test]
fn every_operator_counts_and_severities_go_by_rank() {
    let severity = |operator: &str, value: &str| {
        let query = format!("q.field=severity&q.op={operator}&q.type=&q.value={value}");
        let all = ["critical", "major", "minor", "warning"];
        all.into_iter().filter(|word| picks(&query, word, "host=a")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(severity("eq", "major"), "major");
    assert_eq!(severity("ne", "major"), "critical minor warning");
    assert_eq!(severity("ge", "major"), "critical major");
    assert_eq!(severity("gt", "major"), "critical");
    assert_eq!(severity("lt", "major"), "minor warning");
    assert_eq!(severity("le", "major"), "major minor warning");
}

#[test]
fn a_part_is_enough_and_stands_for_itself() {
    let entity = |value: &str, entity| picks(&format!("q.field=entity_instance_id&q.value={value}"), "major", entity);
    assert!(entity("host%3Dcontroller", "host=controller-0") && !entity("host%3Dcontroller-1", "host=controller-0"));
    assert!(!entity("host_controller", "host=controller-0") && !entity("%25", "host=controller-0"));
    assert!(
        picks("q.field=alarm_type&q.value=equip", "major", "host=a")
            && !picks("q.field=event_log_type&q.value=equip", "major", "host=a")
            && picks("q.field=event_log_type&q.value=equipment", "major", "host=a")
    );
    let both = "q.field=severity&q.field=entity_instance_id&q.op=ne&q.op=eq&q.type=&q.type=string&q.value=minor&q.value=host";
    assert!(picks(both, "major", "host=a") && !picks(both, "minor", "host=a") && !picks(both, "major", "port=a"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    for query in [
        "q.field=severity",
        "q.value=major",
        "q.field=severity&q.value=major&q.value=minor",
        "q.field=severity&q.op=eq&q.op=eq&q.value=major",
        "q.field=severity&q.op=like&q.value=major",
        "q.field=severity&q.op=ge&q.value=high",
        "q.field=colour&q.value=red",
        "q.field=severity&q.type=colour&q.value=major",
        "q.field=severity&q.value=",
        "q.field=start&q.value=yesterday",
        "q.field=start&q.op=lt&q.value=20271225",
    ] {
        assert!(conditions(query).is_none(), "{query}");
    }
    assert!(conditions("q.field=severity&q.op=&q.type=&q.value=major").is_some());
}

#[test]
fn a_span_has_its_ends() {
    let time = |text: &str| Some(Timestamp::parse(text).expect("is a time"));
    let span = |query: &str| conditions(query).expect("is sound").span();
    let both = "q.field=start&q.field=end&q.op=eq&q.op=eq&q.type=&q.type=&q.value=20160131+10%3A23%3A45&q.value=20271225";
    assert_eq!(span(both), (time("2016-01-31T10:23:45Z"), time("2027-12-25T00:00:00.000001Z")));
    let open = "q.field=start&q.field=end&q.op=gt&q.op=lt&q.value=2016-01-31T10%3A23%3A45&q.value=20271225";
    assert_eq!(span(open), (time("2016-01-31T10:23:45.000001Z"), time("2027-12-25T00:00:00Z")));
    assert_eq!(span(""), (None, None));
}

#[test]
fn a_page_is_bounded() {
    let limit = |query: &str| read(query, Paging::take).map(|paging| paging.limit);
    assert_eq!((limit(""), limit("limit=0"), limit("limit=7")), (Some(LIMIT_MAX), Some(LIMIT_MAX), Some(7)));
    assert_eq!((limit("limit=2001"), limit("limit=9223372036854775807")), (Some(LIMIT_MAX), Some(LIMIT_MAX)));
    assert_eq!((limit("limit=-1"), limit("limit=many"), limit("marker=7")), (None, None, None));
}

#[test]
fn what_is_described_is_what_is_read() {
    let described = |parameters: Vec<utoipa::openapi::path::Parameter>| {
        let mut names: Vec<_> = parameters.into_iter().map(|parameter| parameter.name).collect();
        names.sort();
        names
    };
    fn known<T: FromParams>() -> Vec<String> {
        let mut params = Params::default();
        T::take(&mut params);
        let mut names: Vec<_> = params.known().iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    }
    let none = || None;
    let of_list = |own: Vec<_>| described([OfLists::into_params(none), own].concat());
    assert_eq!(of_list(AlarmsAsked::into_params(none)), known::<AlarmsAsked>());
    assert_eq!(of_list(EventsAsked::into_params(none)), known::<EventsAsked>());
    assert_eq!(of_list(TypesAsked::into_params(none)), known::<TypesAsked>());
    assert_eq!(described(SummaryAsked::into_params(none)), known::<SummaryAsked>());
}

#[test]
fn only_their_paths_answer_as_they_do() {
    let on_the_node = |path: &str| is_theirs(Serves::Everything, path);
    assert!(on_the_node("/v1") && on_the_node("/v1/alarms") && on_the_node("/v1/nowhere") && on_the_node("/v1.0/alarms"));
    assert!(!on_the_node("/") && !on_the_node("/v1x") && !on_the_node("/api/v1/alarms"));
    assert!(is_theirs(Serves::Starlingx, "/nowhere") && is_theirs(Serves::Dcmanager, "/"));
}

#[test]
fn only_the_uuid_of_an_event_says_where_it_stands() {
    assert_eq!(position_of(Uuid::from_u64_pair(0x8000, (1 << 63) | 77)), Some(Position(77)));
    assert_eq!((position_of(Uuid::nil()), position_of(Uuid::new_v5(&Uuid::NAMESPACE_OID, b"x"))), (None, None));
}

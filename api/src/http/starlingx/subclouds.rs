//! How many alarms each subcloud has, as Distributed Cloud's manager says it: the sites below. Of one that cannot be heard it is what
//! was known last, and since when.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_store::{ALARMS_LIMIT_MAX, AlarmQuery, StateRead};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Api;
use super::super::guard::Caller;
use super::super::params::{NoParams, Query};
use super::super::problem::Problem;
use super::super::shown::{blocking, json_sized};
use super::alarms::SummaryAnswer;
use super::fault::Always;
use crate::uplink::SiteState;

/// About how long one subcloud is when it is written.
const SUBCLOUD_BYTES: usize = 200;
/// What stands for a number that is not known.
const UNKNOWN: i64 = -1;

/// The alarms of one subcloud.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Subcloud {
    /// Its name.
    region_name: String,
    /// Made of its name.
    uuid: Uuid,
    /// -1 if nothing was ever heard of it.
    critical_alarms: i64,
    major_alarms: i64,
    minor_alarms: i64,
    warnings: i64,
    /// `critical`, `degraded`, `OK`, or `disabled` if nothing was ever heard of it.
    cloud_status: &'static str,
    /// Since when nothing is heard of it: what is said is what was known last.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_since: Option<Timestamp>,
}

/// The alarms of all subclouds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubcloudsAnswer {
    /// By name.
    alarm_summary: Vec<Subcloud>,
}

/// What nodes above a site say of it. They stand at the site, and are none of its own.
const SAID_FROM_ABOVE: [&str; 2] = ["klaxon.site.silent", "klaxon.site.doubled"];

/// How many alarms that are shown a site has of each severity, in the order of [`Severity::ALL`].
type Shown = [u64; 5];

/// The alarms of each site, without what is said of it from above.
fn counted(state: &StateRead<'_>, scope: &Scope) -> BTreeMap<Site, Shown> {
    let counts = state.counts().within(scope).sites.into_iter();
    let mut sites: BTreeMap<Site, Shown> = counts.map(|(site, counts)| (site, counts.by_severity.map(|of| of.shown))).collect();
    for alarm_type in SAID_FROM_ABOVE {
        let query = AlarmQuery {
            scope: scope.clone(),
            alarm_type: AlarmType::new(alarm_type).ok(),
            suppressed: Some(false),
            shelved: Some(false),
            limit: ALARMS_LIMIT_MAX,
            ..AlarmQuery::default()
        };
        let said = state.list(&query).items;
        for alarm in said.iter().filter(|alarm| alarm.owner.as_ref() != Some(&alarm.key.site)) {
            if let Some(shown) = sites.get_mut(&alarm.key.site) {
                let count = &mut shown[alarm.severity as usize];
                *count = count.saturating_sub(1);
            }
        }
    }
    sites
}

/// What is known of how a site can be heard.
#[derive(Default)]
struct Heard {
    never: bool,
    silent_since: Option<Timestamp>,
}

/// Count the alarms of each site below.
#[utoipa::path(
    get,
    path = "/v1.0/alarms",
    tag = "starlingx",
    operation_id = "starlingxSubclouds",
    responses((status = 200, description = "How many alarms each site below has", body = SubcloudsAnswer), Always)
)]
pub(super) async fn summary(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    blocking(move || {
        let sites = counted(&api.store().read(), caller.scope());
        let mut subclouds: BTreeMap<String, Heard> = BTreeMap::new();
        for site in api.uplinks().sites().into_iter().filter(|site| site.kind.owns()) {
            for below in site.below.iter().filter(|below| below.kind.owns()) {
                // Nothing is heard through what is not heard itself.
                let silent_since = site.silent_since.or(below.silent_since);
                subclouds.insert(below.name.to_string(), Heard { never: false, silent_since });
            }
            let never = matches!(site.state, SiteState::Awaiting | SiteState::Enrolled);
            subclouds.insert(site.name.to_string(), Heard { never, silent_since: site.silent_since });
        }
        // A site may have gone elsewhere and left its alarms.
        for site in sites.keys().filter(|site| *site != api.site()) {
            subclouds.entry(site.to_string()).or_default().never = false;
        }
        let seen = subclouds.into_iter().filter(|(name, _)| caller.scope().includes(name));
        let alarm_summary: Vec<_> = seen.map(|(name, heard)| subcloud(sites.get(name.as_str()), name, &heard)).collect();
        let bytes = 64 + alarm_summary.len() * SUBCLOUD_BYTES;
        json_sized(&SubcloudsAnswer { alarm_summary }, bytes)
    })
    .await
}

fn subcloud(shown: Option<&Shown>, name: String, heard: &Heard) -> Subcloud {
    let summary = SummaryAnswer::of(|severity: Severity| shown.map_or(0, |shown| shown[severity as usize]));
    let known = |count: u64| if heard.never { UNKNOWN } else { i64::try_from(count).unwrap_or(i64::MAX) };
    Subcloud {
        uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("klaxon site {name}").as_bytes()),
        critical_alarms: known(summary.critical),
        major_alarms: known(summary.major),
        minor_alarms: known(summary.minor),
        warnings: known(summary.warnings),
        cloud_status: if heard.never { "disabled" } else { summary.status },
        silent_since: heard.silent_since,
        region_name: name,
    }
}

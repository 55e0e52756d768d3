//! The sites whose alarms are here, as the table of sites shows them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use klaxon_schemas::names::Site;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::Value;
use klaxon_store::Counts;

use super::cells;
use super::oids::SiteColumn;
use super::snapshot::number_of;
use super::values::{gauge, maybe_time};
use crate::uplink::{SiteShown, SiteState};

/// What is asked for the nodes below, at most once a second.
pub type SitesShown = Arc<dyn Fn() -> Vec<SiteShown> + Send + Sync>;

/// The row of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteRow {
    pub(super) index: u32,
    pub(super) name: Site,
    /// How the node that owns its alarms is heard.
    pub(super) hearing: Hearing,
    /// How many alarms are active, in the order of [`Severity::ALL`].
    pub(super) active: [u64; 5],
}

/// How the node that owns a site's alarms is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It is this node.
    Own,
    /// It is a node below.
    Below { is_heard: bool, last_heard_at: Option<Timestamp>, lag_s: u64 },
    /// Nothing is known of it but its alarms.
    Unknown,
}

/// The rows of the node's own site, of all sites that `counts` has alarms of, and of the nodes below.
pub(super) fn rows(own: &Site, counts: &Counts, below: &[SiteShown]) -> Vec<SiteRow> {
    let mut sites: BTreeMap<Site, (Hearing, [u64; 5])> = BTreeMap::new();
    for (site, counts) in &counts.sites {
        sites.insert(site.clone(), (Hearing::Unknown, Severity::ALL.map(|severity| counts.of(severity).total)));
    }
    let mut hear = |site: Site, hearing: Hearing| sites.entry(site).or_insert((Hearing::Unknown, [0; 5])).0 = hearing;
    for child in below.iter().filter(|child| child.kind.owns()) {
        let last_heard_at = child.last_heard_at;
        // Of one that never joined nobody knows whether it is there.
        if matches!(child.state, SiteState::Awaiting | SiteState::Enrolled) {
            hear(klaxon_schemas::child::site_of(&child.name), Hearing::Unknown);
            continue;
        }
        let lag_s = child.lag_ms.unwrap_or(0) / 1000;
        let is_heard = matches!(child.state, SiteState::Connected | SiteState::Away);
        hear(klaxon_schemas::child::site_of(&child.name), Hearing::Below { is_heard, last_heard_at, lag_s });
        for further in child.below.iter().filter(|further| further.kind.owns()) {
            let is_heard = is_heard && further.silent_since.is_none();
            let hearing = Hearing::Below { is_heard, last_heard_at: None, lag_s };
            hear(klaxon_schemas::child::site_of(&further.name), hearing);
        }
    }
    hear(own.clone(), Hearing::Own);
    let mut taken = HashSet::new();
    let numbered = sites.into_iter().map(|(name, (hearing, active))| {
        let index = number_of(&name, |number| taken.insert(number));
        SiteRow { index, hearing, name, active }
    });
    let mut rows: Vec<_> = numbered.collect();
    rows.sort_by_key(|row| row.index);
    rows
}

impl SiteRow {
    pub(super) fn cell(&self, column: SiteColumn, now: Timestamp) -> Value {
        let of = |severity: Severity| gauge(self.active[severity as usize]);
        let (reachable, heard_at, lag_s) = match self.hearing {
            Hearing::Own => (1, Some(now), 0),
            Hearing::Below { is_heard: true, last_heard_at, lag_s } => (1, last_heard_at, lag_s),
            // What is shown of it is as old as that.
            Hearing::Below { is_heard: false, last_heard_at, lag_s } => {
                let unheard_us = last_heard_at.map_or(0, |at| now.micros_since(at));
                (2, last_heard_at, lag_s.max(u64::try_from(unheard_us / 1_000_000).unwrap_or(0)))
            }
            // Of other sites a node knows no more than the alarms.
            Hearing::Unknown => (3, None, 0),
        };
        match column {
            SiteColumn::Index => Value::Gauge32(self.index),
            SiteColumn::Name => cells::site(&self.name),
            SiteColumn::Reachable => Value::Integer(reachable),
            SiteColumn::LastHeardAt => maybe_time(heard_at),
            SiteColumn::LagSeconds => gauge(lag_s),
            SiteColumn::Critical => of(Severity::Critical),
            SiteColumn::Major => of(Severity::Major),
            SiteColumn::Minor => of(Severity::Minor),
            SiteColumn::Warning => of(Severity::Warning),
            SiteColumn::Indeterminate => of(Severity::Indeterminate),
        }
    }
}

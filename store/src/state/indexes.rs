//! What lists and counts are answered from without looking at every alarm. All of it is kept up with each change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use klaxon_schemas::access::Scope;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::{AlarmType, ChildName, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;

use super::via::ViaIndex;

/// How many alarms there are of what kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that are not cleared, by site. A site without any is not listed.
    pub sites: BTreeMap<Site, SiteCounts>,
    /// How many cleared ones are kept, by site. A site without any is not listed.
    pub cleared: BTreeMap<Site, u64>,
}

impl Counts {
    /// Those of the sites within `scope`.
    pub fn within(mut self, scope: &Scope) -> Self {
        if !scope.is_all() {
            self.sites.retain(|site, _| scope.includes(site));
            self.cleared.retain(|site, _| scope.includes(site));
        }
        self
    }

    /// How many cleared ones are kept.
    pub fn cleared(&self) -> u64 {
        self.cleared.values().sum()
    }
}

/// The alarms of one site that are not cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SiteCounts {
    /// By severity, in the order of [`Severity::ALL`].
    pub by_severity: [SeverityCounts; 5],
}

/// Alarms that are not cleared: all, and how many of them are what; one alarm may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeverityCounts {
    /// All.
    pub total: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Shelved.
    pub shelved: u64,
    /// Of a suppressed type.
    pub suppressed: u64,
    /// Stale.
    pub stale: u64,
    /// Neither shelved nor of a suppressed type: what a list shows unless asked for more.
    pub shown: u64,
}

impl SiteCounts {
    /// Those of one severity.
    pub fn of(&self, severity: Severity) -> &SeverityCounts {
        &self.by_severity[severity as usize]
    }

    /// Of all severities together.
    pub fn total(&self) -> SeverityCounts {
        let mut total = SeverityCounts::default();
        for counts in &self.by_severity {
            total.total += counts.total;
            total.acknowledged += counts.acknowledged;
            total.shelved += counts.shelved;
            total.suppressed += counts.suppressed;
            total.stale += counts.stale;
            total.shown += counts.shown;
        }
        total
    }

    fn is_empty(&self) -> bool {
        self.by_severity.iter().all(|counts| counts.total == 0)
    }
}

/// The order in which lists go unless asked otherwise.
pub(super) type OrderKey = (Severity, Timestamp, AlarmId);

/// All indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    pub(super) active: BTreeSet<OrderKey>,
    pub(super) cleared: BTreeSet<OrderKey>,
    pub(super) sites: BTreeMap<Site, SiteIndex>,
    pub(super) types: HashMap<AlarmType, TypeIndex>,
    pub(super) acknowledged: BTreeSet<AlarmId>,
    pub(super) shelved: BTreeSet<AlarmId>,
    pub(super) stale: BTreeSet<AlarmId>,
    pub(super) via: BTreeMap<ChildName, ViaIndex>,
}

/// The alarms of one site.
#[derive(Debug, Default)]
pub(super) struct SiteIndex {
    /// In the order of their resources' texts, in which a subtree is a range.
    pub(super) places: BTreeSet<(Resource, AlarmId)>,
    counts: SiteCounts,
    cleared: u64,
}

/// The alarms of one type.
#[derive(Debug, Default)]
pub(super) struct TypeIndex {
    pub(super) ids: BTreeSet<AlarmId>,
    /// Those that are not cleared: how many, and how many of them are shelved, by site and severity.
    active: BTreeMap<Site, [(u64, u64); 5]>,
}

/// What the indexes and counts see of an alarm beside its key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Facets {
    cleared: bool,
    severity: Severity,
    raised_at: Timestamp,
    acknowledged: bool,
    shelved: bool,
    stale: bool,
}

impl Facets {
    fn of(alarm: &Alarm) -> Self {
        Self {
            cleared: alarm.cleared.is_some(),
            severity: alarm.severity,
            raised_at: alarm.raised_at,
            acknowledged: alarm.acknowledged.is_some(),
            shelved: alarm.shelved.is_some(),
            stale: alarm.stale.is_some(),
        }
    }
}

impl Indexes {
    /// An alarm came, went, or is another than it was.
    pub(super) fn change(&mut self, old: Option<&Alarm>, new: Option<&Alarm>) {
        match (old, new) {
            (Some(old), Some(new)) if old.key == new.key && old.via == new.via && old.owner == new.owner => {
                let (was, is) = (Facets::of(old), Facets::of(new));
                if was != is {
                    self.order(old, was, false);
                    self.count(old, was, false);
                    self.order(new, is, true);
                    self.count(new, is, true);
                }
            }
            (old, new) => {
                if let Some(old) = old {
                    self.remove(old);
                }
                if let Some(new) = new {
                    self.insert(new);
                }
            }
        }
    }

    fn insert(&mut self, alarm: &Alarm) {
        let facets = Facets::of(alarm);
        self.order(alarm, facets, true);
        let site = self.sites.entry(alarm.key.site.clone()).or_default();
        site.places.insert((alarm.key.resource.clone(), alarm.id));
        self.types.entry(alarm.key.alarm_type.clone()).or_default().ids.insert(alarm.id);
        if let Some(via) = &alarm.via {
            self.via.entry(via.clone()).or_default().note(alarm, true);
        }
        self.count(alarm, facets, true);
    }

    fn remove(&mut self, alarm: &Alarm) {
        let facets = Facets::of(alarm);
        self.order(alarm, facets, false);
        self.count(alarm, facets, false);
        if let Some(site) = self.sites.get_mut(&alarm.key.site) {
            site.places.remove(&(alarm.key.resource.clone(), alarm.id));
            if site.places.is_empty() {
                self.sites.remove(&alarm.key.site);
            }
        }
        if let Some(via) = &alarm.via
            && let Some(index) = self.via.get_mut(via)
        {
            index.note(alarm, false);
            if index.is_empty() {
                self.via.remove(via);
            }
        }
        if let Some(of_type) = self.types.get_mut(&alarm.key.alarm_type) {
            of_type.ids.remove(&alarm.id);
            if of_type.ids.is_empty() {
                self.types.remove(&alarm.key.alarm_type);
            }
        }
    }

    fn order(&mut self, alarm: &Alarm, facets: Facets, present: bool) {
        let set = if facets.cleared { &mut self.cleared } else { &mut self.active };
        let key = (facets.severity, facets.raised_at, alarm.id);
        if present {
            set.insert(key);
        } else {
            set.remove(&key);
        }
        let marks = [
            (facets.acknowledged, &mut self.acknowledged),
            (facets.shelved, &mut self.shelved),
            (facets.stale, &mut self.stale),
        ];
        for (_, marked) in marks.into_iter().filter(|(has, _)| *has) {
            if present {
                marked.insert(alarm.id);
            } else {
                marked.remove(&alarm.id);
            }
        }
    }

    fn count(&mut self, alarm: &Alarm, facets: Facets, present: bool) {
        let step = |number: &mut u64| *number = if present { *number + 1 } else { number.saturating_sub(1) };
        if facets.cleared {
            if let Some(site) = self.sites.get_mut(&alarm.key.site) {
                step(&mut site.cleared);
            }
            return;
        }
        if let Some(site) = self.sites.get_mut(&alarm.key.site) {
            let counts = &mut site.counts.by_severity[facets.severity as usize];
            step(&mut counts.total);
            let marks = [
                (facets.acknowledged, &mut counts.acknowledged),
                (facets.shelved, &mut counts.shelved),
                (facets.stale, &mut counts.stale),
            ];
            marks.into_iter().filter(|(has, _)| *has).for_each(|(_, number)| step(number));
        }
        if let Some(index) = alarm.via.as_ref().and_then(|via| self.via.get_mut(via)) {
            index.count(alarm, facets.severity, facets.stale, present);
        }
        if let Some(of_type) = self.types.get_mut(&alarm.key.alarm_type) {
            let (total, shelved) = &mut of_type.active.entry(alarm.key.site.clone()).or_default()[facets.severity as usize];
            step(total);
            if facets.shelved {
                step(shelved);
            }
        }
    }

    /// The counts, where `suppressed` types are suppressed.
    pub(super) fn counts<'a>(&self, suppressed: impl Iterator<Item = &'a AlarmType>) -> Counts {
        let mut sites: BTreeMap<Site, SiteCounts> = self
            .sites
            .iter()
            .filter(|(_, index)| !index.counts.is_empty())
            .map(|(site, index)| (site.clone(), index.counts))
            .collect();
        for counts in sites.values_mut().flat_map(|site| &mut site.by_severity) {
            counts.shown = counts.total - counts.shelved;
        }
        for of_type in suppressed.filter_map(|alarm_type| self.types.get(alarm_type)) {
            for (site, by_severity) in &of_type.active {
                let Some(counts) = sites.get_mut(site) else { continue };
                for (counts, (total, shelved)) in counts.by_severity.iter_mut().zip(by_severity) {
                    counts.suppressed += total;
                    counts.shown -= total - shelved;
                }
            }
        }
        let cleared = self.sites.iter().filter(|(_, index)| index.cleared > 0);
        Counts { sites, cleared: cleared.map(|(site, index)| (site.clone(), index.cleared)).collect() }
    }
}

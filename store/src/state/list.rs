//! Answering a list: from the order that is kept if that is likely to fill the page soon, else from the smallest set of
//! alarms that holds all that can match.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::Site;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use uuid::Uuid;

use super::State;
use super::indexes::{OrderKey, SiteIndex};
use super::query::{ALARMS_LIMIT_MAX, AlarmCursor, AlarmPage, AlarmQuery, AlarmSort, Cleared, SortKey};
use crate::history::Order;

/// A set of at most this many alarms is looked through rather than the order.
const CANDIDATES_FEW: usize = 1000;

/// A text to be found in whatever case.
#[derive(Debug)]
pub(crate) struct Needle(String);

impl Needle {
    /// Finds `text`.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    /// Whether it is in `words`.
    pub(crate) fn is_in(&self, words: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        if words.is_ascii() {
            let (words, needle) = (words.as_bytes(), self.0.as_bytes());
            return words.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
        }
        words.to_lowercase().contains(&self.0)
    }
}

impl State {
    /// One page of the alarms that `query` asks for.
    pub fn list(&self, query: &AlarmQuery) -> AlarmPage {
        let limit = query.limit.clamp(1, ALARMS_LIMIT_MAX);
        let needle = query.text.as_deref().map(Needle::new);
        let matches = |alarm: &Alarm| self.matches(query, needle.as_ref(), alarm);
        let mut items = match self.candidates(query, limit) {
            None => self.ordered(query).filter(|alarm| matches(alarm)).take(limit + 1).cloned().collect(),
            Some(candidates) => sorted(query, limit, candidates.into_iter().filter(|alarm| matches(alarm)).collect()),
        };
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| AlarmCursor::of(last, query.sort));
        AlarmPage { items, next }
    }

    /// The alarm under `key`, if there is one; it may be cleared.
    pub fn find(&self, key: &AlarmKey) -> Option<&Arc<Alarm>> {
        self.at(&key.site, &key.resource).find(|alarm| alarm.key == *key)
    }

    /// The alarms at exactly this resource, cleared ones with them.
    pub fn at<'a>(&'a self, site: &Site, resource: &Resource) -> impl Iterator<Item = &'a Arc<Alarm>> + use<'a> {
        let bounds = (resource.clone(), AlarmId(Uuid::nil()))..=(resource.clone(), AlarmId(Uuid::max()));
        let found = self.indexes.sites.get(site).map(|index| index.places.range(bounds));
        found.into_iter().flatten().filter_map(|(_, id)| self.alarm(*id))
    }

    /// The alarms at resources whose text begins with `text`, cleared ones with them, in the order of these texts.
    pub fn beginning<'a>(&'a self, site: &Site, text: &'a str) -> impl Iterator<Item = &'a Arc<Alarm>> + use<'a> {
        let index = self.indexes.sites.get(site);
        // What is no resource is no beginning of one.
        let from = Resource::new(text).ok().map(|resource| (resource, AlarmId(Uuid::nil())));
        let found = index.zip(from).map(|(index, from)| index.places.range(from..));
        let found = found.into_iter().flatten().take_while(move |(place, _)| place.as_str().starts_with(text));
        found.filter_map(|(_, id)| self.alarm(*id))
    }

    fn matches(&self, query: &AlarmQuery, needle: Option<&Needle>, alarm: &Alarm) -> bool {
        let key = &alarm.key;
        let is = |asked: Option<bool>, is: bool| asked.is_none_or(|asked| asked == is);
        (match query.cleared {
            Cleared::No => alarm.cleared.is_none(),
            Cleared::Yes => alarm.cleared.is_some(),
            Cleared::Both => true,
        }) && query.severity_min.is_none_or(|least| alarm.severity >= least)
            && is(query.acknowledged, alarm.acknowledged.is_some())
            && is(query.shelved, alarm.shelved.is_some())
            && query.stale.is_none_or(|asked| asked == self.stale(alarm).is_some())
            && query.raised_from.is_none_or(|from| alarm.raised_at >= from)
            && query.raised_until.is_none_or(|until| alarm.raised_at < until)
            && query.changed_from.is_none_or(|from| alarm.changed_at >= from)
            && query.changed_until.is_none_or(|until| alarm.changed_at < until)
            && query.scope.includes(&key.site)
            && query.site.as_ref().is_none_or(|site| *site == key.site)
            && query.alarm_type.as_ref().is_none_or(|alarm_type| *alarm_type == key.alarm_type)
            && query.resource.as_ref().is_none_or(|resource| resource.contains(&key.resource))
            && query.suppressed.is_none_or(|asked| asked == self.is_suppressed(&key.alarm_type))
            && needle.is_none_or(|needle| {
                needle.is_in(&alarm.text) || needle.is_in(key.resource.as_str()) || needle.is_in(&key.alarm_type)
            })
    }

    /// All that can match, or nothing if the order is to be followed instead.
    fn candidates(&self, query: &AlarmQuery, limit: usize) -> Option<Vec<&Arc<Alarm>>> {
        let all = self.alarms.len();
        let in_order = query.sort == AlarmSort::Severity;
        // Following the order looks at about limit * all / set alarms until the page is full.
        let cheap = |set: usize| !in_order || set <= CANDIDATES_FEW || set <= limit.saturating_mul(all) / set;
        let marks = [(query.acknowledged, &self.indexes.acknowledged), (query.shelved, &self.indexes.shelved)];
        let marked = marks.into_iter().filter(|(asked, _)| *asked == Some(true)).map(|(_, ids)| ids);
        let smallest = marked.min_by_key(|ids| ids.len());
        let is_stale = query.stale == Some(true);
        let silent = if is_stale { self.maybe_silent_len() } else { 0 };
        // What is stale for a node's silence is not marked so.
        let stale = silent + self.indexes.stale.len();
        if is_stale && cheap(stale) && smallest.is_none_or(|ids| stale < ids.len()) {
            let ids: BTreeSet<_> = self.indexes.stale.iter().copied().chain(self.maybe_silent()).collect();
            return Some(self.by_ids(ids.into_iter()));
        }
        if let Some(ids) = smallest.filter(|ids| cheap(ids.len())) {
            return Some(self.by_ids(ids.iter().copied()));
        }
        let of_type = query.alarm_type.as_ref().map(|alarm_type| self.indexes.types.get(alarm_type));
        let asked_sites = query.site.as_ref().map(std::slice::from_ref).or(query.scope.sites());
        let of_sites: Option<Vec<&SiteIndex>> =
            asked_sites.map(|sites| sites.iter().filter_map(|site| self.indexes.sites.get(site)).collect());
        let type_len = of_type.map(|index| index.map_or(0, |index| index.ids.len()));
        let site_len = of_sites.as_ref().map(|sites| sites.iter().map(|site| site.places.len()).sum::<usize>());

        if let Some(resource) = &query.resource {
            let sites = match &of_sites {
                Some(sites) => sites.clone(),
                None => self.indexes.sites.values().collect(),
            };
            let most = if in_order { CANDIDATES_FEW.max(type_len.map_or(usize::MAX, |len| len / 2)) } else { usize::MAX };
            let ids = sites.into_iter().flat_map(|site| subtree(site, resource));
            let mut found = Vec::new();
            for id in ids {
                if found.len() >= most && !cheap(found.len()) {
                    break;
                }
                found.push(id);
            }
            if found.len() < most || !in_order || cheap(found.len()) {
                return Some(self.by_ids(found.into_iter()));
            }
        }
        match (type_len, site_len) {
            (Some(types), sites) if cheap(types) && sites.is_none_or(|sites| types <= sites) => {
                Some(self.by_ids(of_type.flatten().into_iter().flat_map(|index| index.ids.iter().copied())))
            }
            (_, Some(sites)) if cheap(sites) => {
                let places = of_sites.iter().flatten().flat_map(|index| &index.places);
                Some(self.by_ids(places.map(|(_, id)| *id)))
            }
            _ if in_order => None,
            _ => Some(self.alarms().collect()),
        }
    }

    fn by_ids(&self, ids: impl Iterator<Item = AlarmId>) -> Vec<&Arc<Alarm>> {
        ids.filter_map(|id| self.alarm(id)).collect()
    }

    /// The alarms in the order that is kept, from the cursor on.
    fn ordered<'a>(&'a self, query: &AlarmQuery) -> Box<dyn Iterator<Item = &'a Arc<Alarm>> + 'a> {
        let after = query.after.as_ref().and_then(|cursor| match cursor.key {
            SortKey::Severity(severity, at) => Some((severity, at, cursor.id)),
            _ => None,
        });
        let descending = query.order == Order::Descending;
        let range = |wanted: bool, set: &'a BTreeSet<OrderKey>| {
            let bounds = match after {
                None => (Bound::Unbounded, Bound::Unbounded),
                Some(after) if descending => (Bound::Unbounded, Bound::Excluded(after)),
                Some(after) => (Bound::Excluded(after), Bound::Unbounded),
            };
            wanted.then(|| set.range(bounds)).into_iter().flatten()
        };
        let active = range(query.cleared != Cleared::Yes, &self.indexes.active);
        let cleared = range(query.cleared != Cleared::No, &self.indexes.cleared);
        let alarm = |key: &OrderKey| self.alarm(key.2);
        if descending {
            // Below the least severity that is asked for nothing can match.
            let least = query.severity_min.unwrap_or(Severity::Indeterminate);
            let keys = merge(active.rev(), cleared.rev(), Ordering::Greater);
            Box::new(keys.take_while(move |key| key.0 >= least).filter_map(alarm))
        } else {
            Box::new(merge(active, cleared, Ordering::Less).filter_map(alarm))
        }
    }
}

/// Two sorted sequences as one; `first` is how what comes first compares to the other.
fn merge<'a>(
    one: impl Iterator<Item = &'a OrderKey>,
    other: impl Iterator<Item = &'a OrderKey>,
    first: Ordering,
) -> impl Iterator<Item = &'a OrderKey> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(left), Some(right)) if left.cmp(right) == first => one.next(),
        (_, Some(_)) => other.next(),
        (_, None) => one.next(),
    })
}

/// The alarms at `resource` and under it. Their texts begin with its text, so they are within a range; what else is in that
/// range is a longer name, not a part of the subtree.
fn subtree<'a>(site: &'a SiteIndex, resource: &'a Resource) -> impl Iterator<Item = AlarmId> + 'a {
    let start = (resource.clone(), AlarmId(Uuid::nil()));
    site.places
        .range(start..)
        .take_while(|(place, _)| place.as_str().starts_with(resource.as_str()))
        .filter(|(place, _)| resource.contains(place))
        .map(|(_, id)| *id)
}

/// The first `limit` and one of `found` behind the cursor, sorted.
fn sorted(query: &AlarmQuery, limit: usize, mut found: Vec<&Arc<Alarm>>) -> Vec<Arc<Alarm>> {
    let turn = |ordering: Ordering| match query.order {
        Order::Ascending => ordering,
        Order::Descending => ordering.reverse(),
    };
    if let Some(after) = &query.after {
        found.retain(|alarm| turn(after.place_of(alarm)) == Ordering::Greater);
    }
    let compare = |one: &&Arc<Alarm>, other: &&Arc<Alarm>| turn(query.sort.compare(one, other));
    if found.len() > limit + 1 {
        found.select_nth_unstable_by(limit, compare);
        found.truncate(limit + 1);
    }
    found.sort_unstable_by(compare);
    found.into_iter().cloned().collect()
}

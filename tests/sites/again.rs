//! Who is told what by a centre that was restored; and what is known there of a site that was, twice.

use std::collections::{BTreeMap, BTreeSet};

use klaxon_api::notify::{How, What};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;

use super::facts::facts_of;
use super::hits::Hits;
use super::inside::Told;
use super::schedules::{TYPE, World};

/// An episode: whose, of which resource, since when.
pub(crate) type Began = (String, String, Timestamp);

/// A restore of the centre.
pub(crate) struct Restore {
    /// How much had been told before.
    pub(crate) told: usize,
    /// What was over by then, of which its backup knows nothing.
    pub(crate) is_over: BTreeSet<Began>,
    /// What begins later was not told of before.
    pub(crate) claimed: Timestamp,
}

/// What this history knows of.
pub(crate) fn began(history: &[Change]) -> BTreeSet<Began> {
    let known = history.iter().filter_map(|change| match &change.subject {
        Subject::Alarm { alarm, .. } => {
            let owner = alarm.owner.as_ref()?;
            Some((owner.as_str().to_owned(), alarm.key.resource.as_str().to_owned(), alarm.event_time?))
        }
        _ => None,
    });
    known.collect()
}

impl World {
    /// What was over at its site, of all that is not `known`.
    pub(crate) fn over_and_unknown(&self, known: &BTreeSet<Began>) -> BTreeSet<Began> {
        let of_site = |at: usize| {
            let (name, ledger) = self.ledger(at);
            let raised = ledger.sure.keys().filter(|(_, kind, _)| *kind == ChangeKind::Raised);
            let over =
                raised.filter(|(resource, _, began)| ledger.stands.get(resource).is_none_or(|episode| episode.began != *began));
            let mut over: Vec<_> = over.map(|(resource, _, began)| (name.to_owned(), resource.clone(), *began)).collect();
            // Below a region it is over for the centre when the region knows.
            if let Some(region) = self.region(at) {
                let (known, stands) = (began(&region.history()), facts_of(region, Some(name)));
                over.retain(|one| known.contains(one) && stands.get(&one.1).is_none_or(|(_, since)| *since != one.2));
            }
            over
        };
        (0..self.count()).flat_map(of_site).filter(|episode| !known.contains(episode)).collect()
    }

    /// Nobody is told what was over before the restore, unless the backup has it, nor ever what was over before anybody above knew.
    /// What stands is told, and by each life of the centre once at most; what began in its last life exactly once.
    pub(crate) fn check_told_again(&mut self) {
        let mut raised: BTreeMap<(usize, Began), u64> = BTreeMap::new();
        let mut all: BTreeMap<Began, u64> = BTreeMap::new();
        let last = self.restores.last().expect("it was restored").claimed;
        for (at, one) in self.told.all().iter().enumerate() {
            let What::Alarm { how, alarm, change, .. } = &one.what else { continue };
            if change.as_ref().is_some_and(|change| change.kind == ChangeKind::Acknowledged) {
                continue;
            }
            let (Some(owner), Some(began)) = (&alarm.owner, alarm.event_time) else { continue };
            if !matches!(how, How::Raised | How::Changed) {
                continue;
            }
            let episode = (owner.as_str().to_owned(), alarm.key.resource.as_str().to_owned(), began);
            *all.entry(episode.clone()).or_default() += 1;
            if self.is_taken_back(owner.as_str()) {
                continue;
            }
            let life = self.restores.iter().filter(|restore| restore.told <= at).count();
            let is_over = life > 0 && self.restores[life - 1].is_over.contains(&episode);
            assert!(!is_over, "was over before the centre was restored, and is told: {episode:?}");
            if *how == How::Raised {
                let count = raised.entry((life, episode)).or_default();
                *count += 1;
                assert!(*count == 1, "told of as raised twice since the centre was restored: {alarm:?}");
            }
        }
        for at in 0..self.count() {
            let (name, ledger) = self.ledger(at);
            let count = |resource: &String, began: Timestamp| {
                all.get(&(name.to_owned(), resource.clone(), began)).copied().unwrap_or(0)
            };
            for (resource, began) in &ledger.past {
                assert_eq!(count(resource, *began), 0, "{name}: {resource} since {began} was past, and is told");
            }
            let mut fresh = 0;
            for (resource, episode) in &ledger.stands {
                let count = count(resource, episode.began);
                // A site that was restored numbers episodes as before, and nobody is told again of what he knows.
                let is_known = || all.keys().any(|(of, on, _)| of == name && on == resource);
                let is_told = count > 0 || (self.was_restored(name) && is_known());
                assert!(is_told, "{name}: {resource} stands, and nobody was told");
                if episode.began > last && episode.is_plain && !self.is_taken_back(name) {
                    assert_eq!(count, 1, "{name}: {resource} since {} began behind the restore", episode.began);
                    fresh += 1;
                }
            }
            let past = ledger.past.len() as u64;
            (self.hits.fresh, self.hits.past_restored) = (self.hits.fresh + fresh, self.hits.past_restored + past);
        }
        self.hits.after_restore += self.restores.iter().map(|restore| restore.is_over.len() as u64).sum::<u64>();
    }
}

/// What the first so many that were told said of an alarm.
pub(crate) fn told_of(told: &Told, first: usize) -> BTreeSet<(AlarmId, Severity)> {
    told.look(|all| {
        let said = all.iter().take(first).filter_map(|one| match &one.what {
            What::Alarm { alarm, .. } => Some((alarm.id, alarm.severity)),
            _ => None,
        });
        said.collect()
    })
}

/// As what each alarm stands by what was told of it last, if it does, and where in what was told that is.
pub(crate) fn believed(told: &Told) -> BTreeMap<AlarmId, (Option<Severity>, usize)> {
    told.look(|all| {
        let mut last = BTreeMap::new();
        for (at, one) in all.iter().enumerate() {
            if let What::Alarm { how, alarm, .. } = &one.what
                && *alarm.key.alarm_type == *TYPE
            {
                let severity = match how {
                    How::Raised | How::Changed => Some(alarm.severity),
                    How::Left | How::Cleared | How::Retired => None,
                };
                last.insert(alarm.id, (severity, at));
            }
        }
        last
    })
}

/// A site is restored, something happens at it, and it is restored again, before anybody hears of it.
pub(crate) fn restored_twice() -> Hits {
    let mut world = World::new(2);
    world.report(0, 40);
    world.back_up(0);
    world.report(0, 40);
    world.calm();
    world.cut(0);
    world.restore(0);
    world.report(0, 60);
    world.back_up(0);
    world.restore(0);
    world.report(0, 40);
    world.calm();
    world.check();
    world.close()
}

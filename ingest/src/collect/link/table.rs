//! All links, kept by what the kernel tells and dumps, with what became of each.
//!
//! A dump runs while links change, and its answers come in portions that may be older than a change told in between. So what
//! was told since the dump began counts, and the dump's word on that link does not.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use super::wire::{Link, State};

/// A link, and what became of it since it was first seen.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) link: Link,
    pub(super) state: State,
    /// Since when it is in this state without a break.
    pub(super) since: Duration,
    /// When it was first seen.
    pub(super) first_seen: Duration,
    /// Whether it was seen to work.
    pub(super) was_up: bool,
    downs: VecDeque<Duration>,
}

impl Track {
    fn new(now: Duration, link: Link) -> Self {
        let state = link.state();
        Self { link, state, since: now, first_seen: now, was_up: state == State::Up, downs: VecDeque::new() }
    }

    /// Takes in that it is as `link` says. A break that was over before it could be seen is in the kernel's count.
    fn update(&mut self, now: Duration, link: Link, downs_kept: usize) {
        let state = link.state();
        let is_meant_up = self.state != State::Off && state != State::Off;
        let counted = match (self.link.carrier_downs, link.carrier_downs) {
            (Some(before), Some(after)) if is_meant_up => after.wrapping_sub(before),
            _ => 0,
        };
        let seen = u32::from(self.state == State::Up && state == State::Down);
        let downs = usize::try_from(counted.max(seen)).unwrap_or(usize::MAX).min(downs_kept);
        self.downs.extend(std::iter::repeat_n(now, downs));
        self.downs.drain(..self.downs.len().saturating_sub(downs_kept));
        if state != self.state || downs > 0 {
            self.since = now;
        }
        self.was_up |= state == State::Up;
        self.state = state;
        self.link = link;
    }

    /// How often it went down within `window`, as far as that is kept.
    pub(super) fn downs(&self, now: Duration, window: Duration) -> usize {
        self.downs.iter().filter(|at| now.saturating_sub(**at) < window).count()
    }

    /// When it went down the `nth` last time; 0 is the last.
    pub(super) fn down_at(&self, nth: usize) -> Option<Duration> {
        self.downs.iter().rev().nth(nth).copied()
    }
}

/// A dump under way.
#[derive(Debug, Default)]
struct Dump {
    named: HashSet<u32>,
    told_since: HashSet<u32>,
    is_interrupted: bool,
}

/// All links, by their index.
#[derive(Debug)]
pub(super) struct Table {
    tracks: BTreeMap<u32, Track>,
    dump: Option<Dump>,
    downs_kept: usize,
    links_max: usize,
    is_over_full: bool,
}

impl Table {
    /// Keeps the last `downs_kept` times that a link went down.
    pub(super) fn new(downs_kept: usize, links_max: usize) -> Self {
        Self { tracks: BTreeMap::new(), dump: None, downs_kept, links_max, is_over_full: false }
    }

    /// Each link once, by its name.
    pub(super) fn by_name(&self) -> BTreeMap<&str, &Track> {
        self.tracks.values().map(|track| (track.link.name.as_str(), track)).collect()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Track> {
        self.tracks.get(&index)
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.values()
    }

    pub(super) fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether there were more links than are kept.
    pub(super) fn is_over_full(&self) -> bool {
        self.is_over_full
    }

    /// The kernel tells that a link is so. Returns whether anything is new.
    pub(super) fn told(&mut self, now: Duration, link: Link) -> bool {
        if let Some(dump) = &mut self.dump {
            dump.told_since.insert(link.index);
        }
        self.put(now, link)
    }

    /// The kernel tells that a link is gone. Returns whether it was there.
    pub(super) fn gone(&mut self, index: u32) -> bool {
        if let Some(dump) = &mut self.dump {
            dump.told_since.insert(index);
        }
        self.tracks.remove(&index).is_some()
    }

    pub(super) fn begin_dump(&mut self) {
        self.dump = Some(Dump::default());
    }

    /// One link of a dump. Returns whether anything is new.
    pub(super) fn dumped(&mut self, now: Duration, link: Link) -> bool {
        let Some(dump) = &mut self.dump else { return false };
        dump.named.insert(link.index);
        if dump.told_since.contains(&link.index) {
            return false;
        }
        self.put(now, link)
    }

    /// Links came and went while the dump ran: it may have missed some.
    pub(super) fn dump_was_interrupted(&mut self) {
        if let Some(dump) = &mut self.dump {
            dump.is_interrupted = true;
        }
    }

    /// Ends a dump: what it did not name is gone. Returns whether it named all, and whether anything is new.
    pub(super) fn end_dump(&mut self) -> (bool, bool) {
        let Some(dump) = self.dump.take() else { return (false, false) };
        if dump.is_interrupted {
            return (false, false);
        }
        let before = self.tracks.len();
        self.tracks.retain(|index, _| dump.named.contains(index) || dump.told_since.contains(index));
        self.is_over_full = dump.named.len() > self.links_max;
        (true, self.tracks.len() != before)
    }

    fn put(&mut self, now: Duration, link: Link) -> bool {
        let is_full = self.tracks.len() >= self.links_max;
        match self.tracks.get_mut(&link.index) {
            Some(track) if track.link == link => false,
            Some(track) => {
                track.update(now, link, self.downs_kept);
                true
            }
            None if is_full => {
                self.is_over_full = true;
                true
            }
            None => {
                self.tracks.insert(link.index, Track::new(now, link));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, state: State) -> Link {
        Link::test(index, name, None, state)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_told_while_a_dump_runs_is_newer_than_the_dump() {
        let mut table = Table::new(7, 10);
        table.told(at(1), link(1, "old", State::Up));
        table.begin_dump();
        table.told(at(2), link(2, "a", State::Down));
        assert!(table.gone(1));
        assert!(table.told(at(2), link(4, "new", State::Up)));
        assert!(!table.dumped(at(3), link(1, "old", State::Up)), "it is gone");
        assert!(!table.dumped(at(3), link(2, "a", State::Up)), "it went down since");
        assert!(table.dumped(at(3), link(3, "b", State::Up)));
        assert_eq!(table.end_dump(), (true, false));
        let states: Vec<_> = table.by_name().into_iter().map(|(name, track)| (name, track.state)).collect();
        assert_eq!(states, [("a", State::Down), ("b", State::Up), ("new", State::Up)]);
    }

    #[test]
    fn a_whole_dump_takes_away_what_it_does_not_name_and_a_broken_one_does_not() {
        let mut table = Table::new(7, 10);
        table.told(at(1), link(1, "a", State::Up));
        table.begin_dump();
        table.dump_was_interrupted();
        assert_eq!((table.end_dump(), table.len()), ((false, false), 1));
        table.begin_dump();
        assert_eq!((table.end_dump(), table.len()), ((true, true), 0));
    }

    #[test]
    fn a_break_that_nobody_saw_is_in_the_count() {
        let mut table = Table::new(3, 10);
        table.told(at(1), link(1, "a", State::Up));
        table.told(at(5), Link { carrier_downs: Some(2), ..link(1, "a", State::Up) });
        assert_eq!((table.tracks[&1].downs(at(5), at(10)), table.tracks[&1].since), (2, at(5)));
        table.told(at(6), Link { carrier_downs: Some(3), ..link(1, "a", State::Down) });
        assert_eq!(table.tracks[&1].downs(at(6), at(10)), 3);
        table.told(at(7), Link { carrier_downs: Some(900), ..link(1, "a", State::Up) });
        assert_eq!(table.tracks[&1].downs(at(7), at(10)), 3, "no more are kept");
        assert_eq!(table.tracks[&1].downs(at(18), at(10)), 0);
    }

    #[test]
    fn an_operator_who_takes_a_link_down_does_not_make_it_flap() {
        let mut table = Table::new(7, 10);
        table.told(at(1), link(1, "a", State::Up));
        table.told(at(2), Link { carrier_downs: Some(1), ..link(1, "a", State::Off) });
        table.told(at(3), Link { carrier_downs: Some(2), ..link(1, "a", State::Up) });
        assert_eq!(table.tracks[&1].downs(at(3), at(10)), 0);
    }

    #[test]
    fn there_are_no_more_links_than_that() {
        let mut table = Table::new(7, 2);
        for index in 1..=3 {
            table.told(at(1), link(index, &format!("l{index}"), State::Up));
        }
        assert_eq!((table.len(), table.is_over_full()), (2, true));
        table.begin_dump();
        table.dumped(at(2), link(1, "l1", State::Up));
        table.end_dump();
        assert_eq!((table.len(), table.is_over_full()), (1, false));
    }
}

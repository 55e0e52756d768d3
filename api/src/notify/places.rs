//! How far the changes of a journal were looked at that is kept elsewhere: a place in each of its partitions, which is the same in
//! all copies of it. Positions are not: each copy has the partitions interleaved in its own way.

use std::collections::{BTreeMap, VecDeque};

use klaxon_schemas::change::Place;
use klaxon_schemas::ids::Position;

/// The places, as the walk goes on and as they are kept behind it.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What was looked at.
    at: BTreeMap<u16, i64>,
    /// What of it was kept.
    kept: BTreeMap<u16, i64>,
    /// In between, in the order of the positions in this copy.
    between: VecDeque<(Position, u16, i64)>,
}

impl Places {
    /// All before `at` was looked at.
    pub(super) fn new(at: BTreeMap<u16, i64>) -> Self {
        Self { kept: at.clone(), at, between: VecDeque::new() }
    }

    /// Notes the change at `position`; whether it was not looked at before.
    pub(super) fn look(&mut self, position: Position, place: Place) -> bool {
        let at = self.at.entry(place.partition).or_default();
        let is_new = place.next > *at;
        if is_new {
            *at = place.next;
            self.between.push_back((position, place.partition, place.next));
        }
        is_new
    }

    /// What stands up to `position`, where the copy has come `to`, is left out.
    pub(super) fn jump(&mut self, position: Position, to: impl IntoIterator<Item = (u16, i64)>) {
        for (partition, next) in to {
            let at = self.at.entry(partition).or_default();
            if next > *at {
                *at = next;
                self.between.push_back((position, partition, next));
            }
        }
    }

    /// The places of what was looked at up to `position`. It is not asked for less afterwards.
    pub(super) fn up_to(&mut self, position: Position) -> BTreeMap<u16, i64> {
        let count = self.between.partition_point(|(at, ..)| *at <= position);
        self.kept.extend(self.between.drain(..count).map(|(_, partition, next)| (partition, next)));
        self.kept.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: u16, from: i64, next: i64) -> Place {
        Place { partition, from, next }
    }

    #[test]
    fn a_change_is_looked_at_once_wherever_this_copy_has_it() {
        let mut places = Places::new(BTreeMap::from([(0, 5), (1, 9)]));
        assert!(!places.look(Position(20), place(1, 7, 9)));
        assert!(places.look(Position(21), place(0, 5, 7)));
        assert!(!places.look(Position(21), place(0, 5, 7)));
        assert!(places.look(Position(22), place(1, 9, 11)));
        assert!(places.look(Position(23), place(2, 0, 1)));
        assert_eq!(places.up_to(Position(21)), [(0, 7), (1, 9)].into());
        places.jump(Position(30), [(0, 7), (1, 40)]);
        assert!(!places.look(Position(31), place(1, 38, 40)));
        assert_eq!(places.up_to(Position(23)), [(0, 7), (1, 11), (2, 1)].into());
        assert_eq!(places.up_to(Position(30)), [(0, 7), (1, 40), (2, 1)].into());
    }
}

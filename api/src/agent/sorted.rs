//! A sorted map whose copies share what did not change: chunks of rows, each copied only if it is written while a copy has it.
//!
//! The tables are followed in one place and read in many. Publishing copies the list of chunks; a change then copies one chunk
//! of at most [`CHUNK_ROWS_MAX`] rows, once. Reading is two binary searches, without a lock; the one for the chunk stays within
//! the list, because a hundred thousand rows do not fit into a processor's caches.

use std::sync::Arc;

/// The most rows of a chunk.
const CHUNK_ROWS_MAX: usize = 128;

/// The map.
#[derive(Debug, Clone)]
pub(super) struct Sorted<K, V> {
    /// None of them is empty.
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Chunk<K, V> {
    /// The key of its last row.
    last: K,
    rows: Arc<Vec<(K, V)>>,
}

impl<K: Copy, V> Chunk<K, V> {
    fn new(rows: Vec<(K, V)>) -> Self {
        let (last, _) = rows.last().expect("no chunk is empty");
        Self { last: *last, rows: Arc::new(rows) }
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Copy, V: Clone> Sorted<K, V> {
    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The row under `key`.
    pub(super) fn get(&self, key: K) -> Option<&V> {
        let (found, value) = self.first_not(|other| *other < key)?;
        (*found == key).then_some(value)
    }

    /// The first row whose key is not `before`: of which that is true and then false, in the order of the keys.
    pub(super) fn first_not(&self, before: impl Fn(&K) -> bool) -> Option<(&K, &V)> {
        let at = self.chunks.partition_point(|chunk| before(&chunk.last));
        let rows = &self.chunks.get(at)?.rows;
        let (key, value) = &rows[rows.partition_point(|(key, _)| before(key))];
        Some((key, value))
    }

    /// All rows, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.rows.iter()).map(|(key, value)| (key, value))
    }

    /// Puts a row in, and gives the one that was there before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunks.partition_point(|chunk| chunk.last < key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.push(key, value);
            return None;
        };
        let rows = Arc::make_mut(&mut chunk.rows);
        let place = rows.partition_point(|(other, _)| *other < key);
        if rows[place].0 == key {
            return Some(std::mem::replace(&mut rows[place].1, value));
        }
        rows.insert(place, (key, value));
        if rows.len() > CHUNK_ROWS_MAX {
            let behind = rows.split_off(rows.len() / 2);
            chunk.last = rows.last().expect("half of the rows are left").0;
            self.chunks.insert(at + 1, Chunk::new(behind));
        }
        self.len += 1;
        None
    }

    /// Puts a row in behind all: a chunk that is full stays full, so that what only grows at its end is dense.
    fn push(&mut self, key: K, value: V) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.rows.len() < CHUNK_ROWS_MAX => {
                Arc::make_mut(&mut chunk.rows).push((key, value));
                chunk.last = key;
            }
            _ => {
                let mut rows = Vec::with_capacity(CHUNK_ROWS_MAX);
                rows.push((key, value));
                self.chunks.push(Chunk::new(rows));
            }
        }
        self.len += 1;
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.chunks.partition_point(|chunk| chunk.last < key);
        let chunk = self.chunks.get_mut(at)?;
        let place = chunk.rows.binary_search_by(|(other, _)| other.cmp(&key)).ok()?;
        let rows = Arc::make_mut(&mut chunk.rows);
        let (_, value) = rows.remove(place);
        self.len -= 1;
        match rows.last() {
            None => {
                self.chunks.remove(at);
            }
            Some((last, _)) => {
                chunk.last = *last;
                if rows.len() < CHUNK_ROWS_MAX / 4 {
                    self.merge(at);
                }
            }
        }
        Some(value)
    }

    /// Puts a small chunk together with one beside it, if that has room.
    fn merge(&mut self, at: usize) {
        let has_room = |one: usize| {
            let pair = self.chunks.get(one).zip(self.chunks.get(one + 1));
            pair.is_some_and(|(one, other)| one.rows.len() + other.rows.len() <= CHUNK_ROWS_MAX / 2)
        };
        let Some(one) = [at.checked_sub(1), Some(at)].into_iter().flatten().find(|one| has_room(*one)) else { return };
        let other = self.chunks.remove(one + 1);
        let chunk = &mut self.chunks[one];
        Arc::make_mut(&mut chunk.rows).extend(other.rows.iter().cloned());
        chunk.last = other.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_stay_as_they_were(
            steps in prop::collection::vec((0u32..2000, any::<bool>()), 1..3000),
            ask in 0u32..2000,
        ) {
            let (mut sorted, mut plain) = (Sorted::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, (key, put)) in steps.into_iter().enumerate() {
                if put {
                    prop_assert_eq!(sorted.insert(key, number), plain.insert(key, number));
                } else {
                    prop_assert_eq!(sorted.remove(key), plain.remove(&key));
                }
                if number % 500 == 0 {
                    copies.push((sorted.clone(), plain.clone()));
                }
            }
            copies.push((sorted, plain));
            for (sorted, plain) in copies {
                prop_assert_eq!(sorted.len(), plain.len());
                prop_assert!(sorted.iter().eq(plain.iter()));
                prop_assert_eq!(sorted.get(ask), plain.get(&ask));
                prop_assert_eq!(sorted.first_not(|key| *key <= ask), plain.range(ask + 1..).next());
                prop_assert!(sorted.chunks.iter().all(|chunk| (1..=CHUNK_ROWS_MAX).contains(&chunk.rows.len())));
                prop_assert!(sorted.chunks.iter().all(|chunk| chunk.rows.last().is_some_and(|(key, _)| *key == chunk.last)));
            }
        }
    }

    #[test]
    fn what_grows_at_its_end_is_dense_and_what_shrinks_gives_room_back() {
        let mut sorted = Sorted::default();
        for key in 0..10_000 {
            sorted.insert(key, ());
        }
        assert_eq!(sorted.chunks.len(), 10_000_usize.div_ceil(CHUNK_ROWS_MAX));
        for key in (0..10_000).filter(|key| key % 50 != 0) {
            sorted.remove(key);
        }
        assert_eq!(sorted.len(), 200);
        assert!(sorted.chunks.len() < 20, "{} chunks", sorted.chunks.len());
    }
}

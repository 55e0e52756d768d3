//! A sorted map whose copies share what did not change: chunks of rows, each copied only if it is written while a copy has it.
//!
//! The tables are followed in one place and read in many. Publishing copies the list of chunks; a change then copies one chunk
//! of at most [`CHUNK_ROWS_MAX`] rows, once. Reading is two binary searches, without a lock.

use std::sync::Arc;

/// The most rows of a chunk.
const CHUNK_ROWS_MAX: usize = 128;

/// The map.
#[derive(Debug, Clone)]
pub(super) struct Sorted<K, V> {
    /// None of them is empty.
    chunks: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
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
        let at = self.chunks.partition_point(|chunk| before(&last(chunk).0));
        let chunk = self.chunks.get(at)?;
        let (key, value) = &chunk[chunk.partition_point(|(key, _)| before(key))];
        Some((key, value))
    }

    /// All rows, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// Puts a row in, and gives the one that was there before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunks.partition_point(|chunk| last(chunk).0 < key);
        if at == self.chunks.len() {
            // Behind all: a chunk that is full stays full, so that what only grows at its end is dense.
            match self.chunks.last_mut() {
                Some(chunk) if chunk.len() < CHUNK_ROWS_MAX => Arc::make_mut(chunk).push((key, value)),
                _ => {
                    let mut chunk = Vec::with_capacity(CHUNK_ROWS_MAX);
                    chunk.push((key, value));
                    self.chunks.push(Arc::new(chunk));
                }
            }
            self.len += 1;
            return None;
        }
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let place = chunk.partition_point(|(other, _)| *other < key);
        if chunk[place].0 == key {
            return Some(std::mem::replace(&mut chunk[place].1, value));
        }
        chunk.insert(place, (key, value));
        if chunk.len() > CHUNK_ROWS_MAX {
            let behind = chunk.split_off(chunk.len() / 2);
            self.chunks.insert(at + 1, Arc::new(behind));
        }
        self.len += 1;
        None
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.chunks.partition_point(|chunk| last(chunk).0 < key);
        let chunk = self.chunks.get(at)?;
        let place = chunk.binary_search_by(|(other, _)| other.cmp(&key)).ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let (_, value) = chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() < CHUNK_ROWS_MAX / 4
            && self.chunks.get(at + 1).is_some_and(|next| next.len() < CHUNK_ROWS_MAX / 2)
        {
            let next = self.chunks.remove(at + 1);
            Arc::make_mut(&mut self.chunks[at]).extend(next.iter().cloned());
        }
        Some(value)
    }
}

fn last<K, V>(chunk: &[(K, V)]) -> &(K, V) {
    chunk.last().expect("no chunk is empty")
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
                prop_assert!(sorted.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_ROWS_MAX));
            }
        }
    }

    #[test]
    fn what_grows_at_its_end_is_dense_and_what_shrinks_gives_room_back() {
        let mut sorted = Sorted::default();
        (0..10_000).for_each(|key| drop(sorted.insert(key, ())));
        assert_eq!(sorted.chunks.len(), 10_000_usize.div_ceil(CHUNK_ROWS_MAX));
        (0..10_000).filter(|key| key % 50 != 0).for_each(|key| drop(sorted.remove(key)));
        assert_eq!(sorted.len(), 200);
        assert!(sorted.chunks.len() < 20, "{} chunks", sorted.chunks.len());
    }
}

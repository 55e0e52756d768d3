//! Counted shares: how many of something each of several has at the moment, within a limit for one and a limit for all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

/// Who has how many. Cloning shares it.
#[derive(Debug)]
pub(crate) struct Shares<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One that somebody has; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share<K: Hash + Eq> {
    shares: Shares<K>,
    of: K,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// One more for `of`, if it has fewer than `most` and all together fewer than `all`.
    pub(crate) fn take(&self, of: K, most: usize, all: usize) -> Option<Share<K>> {
        let mut counts = self.0.lock().expect("nobody panics while holding it");
        let count = counts.get(&of).copied().unwrap_or_default();
        if count >= most || all < usize::MAX && counts.values().sum::<usize>() >= all {
            return None;
        }
        counts.insert(of.clone(), count + 1);
        Some(Share { shares: self.clone(), of })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock().expect("nobody panics while holding it");
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_limit_and_so_have_all() {
        let shares = Shares::default();
        let one = shares.take("a", 2, 3).expect("is the first");
        let _two = shares.take("a", 2, 3).expect("is the second");
        assert!(shares.take("a", 2, 3).is_none(), "a third of one");
        let _three = shares.take("b", 2, 3).expect("is another's");
        assert!(shares.take("c", 2, 3).is_none(), "a fourth of all");
        drop(one);
        assert!(shares.take("a", 2, 3).is_some());
    }
}

//! A bounded number of connections: when another one comes, the one that was quiet for the longest time has to go. Programs keep theirs
//! open for days and make a new one when it is gone, so nobody who reports is shut out by those who do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Those that there are.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<(u64, HashMap<u64, Taken>)>,
}

#[derive(Debug)]
struct Taken {
    /// Since when it waits for a request; nothing while it works at one.
    quiet_since: Option<Instant>,
    gone: CancellationToken,
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    gone: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), taken: Mutex::default() })
    }

    /// A place for one more, if there is one, or another one can go.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.1.len() >= self.most {
            let quiet = taken.1.iter().filter_map(|(number, one)| Some((one.quiet_since?, *number)));
            let (_, number) = quiet.min()?;
            let longest = taken.1.remove(&number)?;
            longest.gone.cancel();
        }
        taken.0 += 1;
        let (number, gone) = (taken.0, CancellationToken::new());
        taken.1.insert(number, Taken { quiet_since: Some(Instant::now()), gone: gone.clone() });
        Some(Place { places: Arc::clone(self), number, gone })
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Taken>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether it waits for a request from now on, or works at one. Says whether the place is still its own.
    pub(super) fn note(&self, is_quiet: bool) -> bool {
        let mut taken = self.places.lock();
        let own = taken.1.get_mut(&self.number);
        own.map(|own| own.quiet_since = is_quiet.then(Instant::now)).is_some()
    }

    /// Returns when it has to go.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_quiet_for_the_longest_time_goes_and_who_works_stays() {
        let places = Places::new(2);
        let first = places.take().expect("there is room");
        let second = places.take().expect("there is room");
        assert!(first.note(false), "it works");
        let third = places.take().expect("the second one goes");
        assert!(!first.gone.is_cancelled() && second.gone.is_cancelled() && !second.note(false));
        assert!(third.note(false));
        assert!(places.take().is_none(), "both work");
        drop(second);
        assert!(places.take().is_none(), "its place was taken already");
        drop(first);
        assert!(places.take().is_some());
    }
}

//! What was answered, by kind and time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

/// What was answered since the start, by the first digit of the status.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    by_class: [AtomicU64; 5],
    micros: AtomicU64,
    turned_away: AtomicU64,
}

impl Responses {
    /// Counts one answer and how long it took to begin.
    pub(crate) fn count(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.by_class[class].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts one connection that was closed because its host has too many.
    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were closed because their host had too many.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// How many answers began with each digit, and how long all took.
    pub(crate) fn totals(&self) -> ([u64; 5], Duration) {
        let by_class = std::array::from_fn(|class| self.by_class[class].load(Ordering::Relaxed));
        (by_class, Duration::from_micros(self.micros.load(Ordering::Relaxed)))
    }
}

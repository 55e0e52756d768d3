//! Pacing of datagrams.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How many go out at once before they are paced.
const BURST: u32 = 16;

/// Lets so many a second pass, and a few at once: the buffer of a receiver's socket holds little, and nobody tells when it is full.
pub(super) struct Pace {
    gap: Duration,
    /// When the next would pass if they had always come one by one.
    next: Mutex<Instant>,
}

impl Pace {
    /// So many a second.
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self { gap: Duration::from_secs(1) / rate.get(), next: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn.
    pub(super) async fn wait(&self) {
        let due = self.due(Instant::now()).await;
        tokio::time::sleep_until(due).await;
    }

    /// When the next one passes, of those that ask at `now`.
    async fn due(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().await;
        let due = (*next).max(now.checked_sub(self.gap * (BURST - 1)).unwrap_or(now));
        *next = due + self.gap;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_few_pass_at_once_and_then_so_many_a_second() {
        let pace = Pace::new(NonZeroU32::new(200).expect("is not zero"));
        let now = Instant::now() + Duration::from_secs(10);
        for _ in 0..BURST {
            assert!(pace.due(now).await <= now);
        }
        for number in 1..=200 {
            assert_eq!(pace.due(now).await, now + Duration::from_millis(5) * number);
        }
    }
}

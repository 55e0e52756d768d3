//! How much backlog of all nodes below is on its way to the journal at one time.
//!
//! When a thousand sites come back together, what each has to tell is large messages, and the journal takes what came first
//! first. So few of them are unfolded and queued at a time, each in its turn: what happens meanwhile, a small message, finds a
//! short queue, and memory does not grow with the number of those who come back.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From this size on, unfolded, a message waits for its share.
const LARGE_BYTES: u64 = 16 * 1024;
/// How much large messages hold together, unfolded. One that is larger waits until it is alone.
const AT_ONCE_KIB: u32 = 2 * 1024;

/// What large messages may hold.
pub(super) struct Bulk(Arc<Semaphore>);

impl Default for Bulk {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE_KIB as usize)))
    }
}

impl Bulk {
    /// The share that `message` is to wait for, in the order in which they are asked for; nothing if it is small. The share is
    /// given back when it is dropped.
    pub(super) fn share(
        &self,
        message: &[u8],
    ) -> Option<impl Future<Output = Option<OwnedSemaphorePermit>> + Send + Sync + 'static> {
        // A size that is not said, or not to be believed, is as large as can be; what it unfolds to is checked when it is read.
        let bytes = super::codec::unfolded_bytes(message).map_or(u64::MAX, |bytes| bytes as u64);
        let share = u32::try_from(bytes / 1024).unwrap_or(AT_ONCE_KIB).min(AT_ONCE_KIB);
        let room = Arc::clone(&self.0);
        (bytes >= LARGE_BYTES).then_some(async move { room.acquire_many_owned(share).await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        zstd::bulk::compress(&vec![b' '; bytes], 1).expect("compresses")
    }

    #[tokio::test]
    async fn large_messages_wait_for_each_other_in_their_order_and_small_ones_for_nobody() {
        let bulk = Bulk::default();
        assert!(bulk.share(&message(1_000)).is_none());
        let huge = bulk.share(&message(8 * 1024 * 1024)).expect("is large").await;
        let mut first = Box::pin(bulk.share(&message(1024 * 1024)).expect("is large"));
        let mut second = Box::pin(bulk.share(b"no zstd").expect("may be anything"));
        let mut third = Box::pin(bulk.share(&message(20_000)).expect("is large"));
        for waiting in [first.as_mut().now_or_never(), second.as_mut().now_or_never(), third.as_mut().now_or_never()] {
            assert!(waiting.is_none());
        }
        drop(huge);
        let first = first.await;
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second.await);
        assert!(third.await.is_some());
    }
}

//! Waiting for what may not be under way at all.

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinHandle};

/// The outcome, or never, if there is nothing to wait for.
pub(super) async fn of<T>(save: &mut Option<BoxFuture<'static, T>>) -> T {
    match save {
        Some(save) => save.await,
        None => std::future::pending().await,
    }
}

/// What the thread found, or never, if none is at work.
pub(super) async fn joined<T>(work: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    let Some(handle) = work else { return std::future::pending().await };
    let outcome = handle.await;
    *work = None;
    outcome
}

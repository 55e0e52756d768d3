//! The thread that reads what is to be copied, and sees whether the brokers answer.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use klaxon_store::Store;
use klaxon_store::kafka::{Copy, Copying, Record};
use klaxon_store::publish::Publisher;
use tokio_util::sync::CancellationToken;

use super::{FRAME_RECORDS_MAX, GATHER_WAIT};

/// How long is waited for the next record before it is looked whether to stop.
const POLL_WAIT: Duration = Duration::from_millis(200);

/// Reads what is to be copied, until nobody takes it any more.
pub(super) fn read(
    copy: &Copy,
    records: &mpsc::SyncSender<Vec<Record>>,
    wake: &Publisher,
    store: &Store,
    stop: &CancellationToken,
) {
    let answers = |answers: bool| match (store.note_original(answers), answers) {
        (true, true) => tracing::info!("the brokers answer"),
        (true, false) => tracing::warn!("the brokers do not answer; what is shown is as old as that"),
        (false, _) => {}
    };
    let is_away = || store.original().is_some_and(|original| original.reached_since.is_none());
    while !stop.is_cancelled() {
        let mut batch = Vec::new();
        let mut until = Instant::now() + POLL_WAIT;
        while batch.len() < FRAME_RECORDS_MAX {
            match copy.poll(until.saturating_duration_since(Instant::now())) {
                Copying::Record(record) => {
                    if batch.is_empty() {
                        until = Instant::now() + GATHER_WAIT;
                    }
                    batch.push(record);
                }
                Copying::Nothing => break,
                Copying::Away => answers(false),
                Copying::Trouble(error) => tracing::debug!(%error, "trouble with the brokers"),
            }
        }
        if batch.is_empty() {
            if is_away() && copy.is_there() {
                answers(true);
            }
            continue;
        }
        // With a full one it is not known how much more there is.
        if batch.len() < FRAME_RECORDS_MAX {
            answers(true);
        }
        if records.send(batch).is_err() {
            return;
        }
        wake.wake();
    }
}

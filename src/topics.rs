//! Whether the topics of a Kafka are as they must be. Nothing is done with a Kafka before that is known: what is produced to, say,
//! other partitions than the correlators think would be acknowledged and never correlated.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klaxon_schemas::error::chain;
use klaxon_store::kafka::{Cluster, Finding, Weight, check};
use tokio_util::sync::CancellationToken;

use crate::correlator::stops_within;

/// When topics that are not as they must be are looked at again, and brokers that do not answer are asked again.
const RETRY_WAIT: Duration = Duration::from_secs(2);
/// How long is waited before it is looked whether to stop.
const STOP_LOOK: Duration = Duration::from_millis(200);

/// What is known of the topics. They are looked at when the node starts, again and again until they are as they must be.
#[derive(Debug, Clone)]
pub struct Topics(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    standing: Mutex<Standing>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Standing {
    /// No broker has answered yet.
    #[default]
    Unknown,
    /// They must not be worked with, and why.
    Amiss(String),
    Good,
}

impl Topics {
    /// Looks at them, on a thread of its own.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn look(cluster: Cluster, stop: CancellationToken) -> std::io::Result<Self> {
        let topics = Self(Arc::default());
        let looked = topics.clone();
        std::thread::Builder::new().name("topics".to_owned()).spawn(move || looked.look_until_good(&cluster, &stop))?;
        Ok(topics)
    }

    /// Waits until they are good; false if the node is to stop before.
    pub fn are_good(&self, stop: &CancellationToken) -> bool {
        let mut standing = self.lock();
        while !matches!(*standing, Standing::Good) {
            if stop.is_cancelled() {
                return false;
            }
            standing = self.0.changed.wait_timeout(standing, STOP_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What is amiss with them, if that is why nothing is done.
    pub fn amiss(&self) -> Option<String> {
        match &*self.lock() {
            Standing::Amiss(what) => Some(what.clone()),
            Standing::Unknown | Standing::Good => None,
        }
    }

    fn look_until_good(&self, cluster: &Cluster, stop: &CancellationToken) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be had at the start");
        let mut said = None;
        loop {
            let found = runtime.block_on(check(cluster)).inspect_err(|error| {
                let reason = chain(error);
                if said.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "the topics cannot be looked at; it is tried again");
                    said = Some(reason);
                }
            });
            if let Ok(found) = found {
                let is_wrong = |finding: &&Finding| finding.weight == Weight::Wrong;
                let wrong: Vec<String> = found.findings.iter().filter(is_wrong).map(ToString::to_string).collect();
                if wrong.is_empty() {
                    *self.lock() = Standing::Good;
                    return self.0.changed.notify_all();
                }
                let what = wrong.join("; ");
                if self.amiss().as_ref() != Some(&what) {
                    tracing::error!(%what, "nothing is done with these topics; see klaxon kafka check and init");
                    *self.lock() = Standing::Amiss(what);
                }
            }
            if stops_within(stop, RETRY_WAIT) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What follows the journal, wherever that is: one loop where it is the node's own, and where it is in a Kafka one for each part
//! that the node has in it. They block, so each has a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::Context as _;
use klaxon_api::http::{MetricKind, MetricsText};
use klaxon_api::notify::{IsOurs, Receivers};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::state::StateKey;
use klaxon_store::Store;
use klaxon_store::publish::Publisher;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, JournalKind};
use crate::follow::{Follow, FollowError, FollowStatus, Parts};

/// What was started.
pub(crate) struct Started {
    /// The loops.
    pub(crate) loops: Loops,
    /// What they tell of themselves.
    pub(crate) status: LoopStatus,
    /// How the receivers are shared, if other nodes have some of them.
    pub(crate) share: Option<Share>,
}

/// The loops that run. If one ends, however it does, the node stops.
#[derive(Default)]
pub(crate) struct Loops(Vec<JoinHandle<Result<(), FollowError>>>);

/// What the loops tell of themselves.
#[derive(Clone)]
pub(crate) enum LoopStatus {
    /// The one loop of a node's own journal.
    Own(Arc<FollowStatus>),
    /// The parts that a node has in a journal that is kept elsewhere.
    #[cfg(feature = "kafka")]
    Kafka {
        /// As a correlator, if it is one.
        correlator: Option<Arc<crate::correlator::CorrelatorStatus>>,
        /// As a replica.
        replica: Arc<crate::replica::ReplicaStatus>,
    },
}

/// Tells whoever divides the receivers which there are.
pub(crate) type TellReceivers = Box<dyn FnOnce(Receivers) + Send>;

/// What makes the receivers those of several nodes, which share them.
pub(crate) struct Share {
    /// Which run here.
    pub(crate) is_ours: IsOurs,
    /// To be told of them once they are set.
    pub(crate) told: Option<TellReceivers>,
}

/// Starts what follows the journal that the configuration names.
///
/// # Errors
/// The configuration contradicts itself, or what was kept cannot be gone on with.
pub(crate) fn start(
    config: &Config,
    catalogue: &Arc<Catalogue>,
    parts: Parts,
    publisher: &Publisher,
    stop: &CancellationToken,
) -> anyhow::Result<Started> {
    check_folder(&parts.store, config.journal.kind == JournalKind::Kafka)?;
    #[cfg(feature = "kafka")]
    {
        let cluster = config.journal.cluster().map_err(|(key, reason)| anyhow::anyhow!("{key}: {reason}"))?;
        if let Some(cluster) = cluster {
            return start_kafka(config, (cluster, Arc::clone(catalogue)), parts, publisher.clone(), stop);
        }
    }
    let _ = publisher;
    let status = LoopStatus::Own(Arc::clone(&parts.status));
    let follow = Follow::start(parts, config.engine.settings(), Arc::clone(catalogue))?;
    let mut loops = Loops::default();
    loops.spawn("follow", stop, move || follow.run())?;
    Ok(Started { loops, status, share: None })
}

/// What is kept in a folder is a node's own journal, or a copy of one in a Kafka: neither can be gone on with as the other.
fn check_folder(store: &Store, is_kafka: bool) -> anyhow::Result<()> {
    let read = store.read();
    let has = |is_it: fn(&StateKey) -> bool| read.state().records().any(|(key, _)| is_it(key));
    let is_copy = has(|key| matches!(key, StateKey::Partition(_)));
    match is_kafka {
        false if is_copy => {
            anyhow::bail!(
                "store.dir: is a copy of a journal in a Kafka; set journal.kind = \"kafka\", or give it an empty folder"
            )
        }
        true if !is_copy && has(|key| matches!(key, StateKey::Settings)) => {
            anyhow::bail!("store.dir: has a journal of its own; a node whose journal is in a Kafka begins with an empty folder")
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "kafka")]
fn start_kafka(
    config: &Config,
    (cluster, catalogue): (klaxon_store::kafka::Cluster, Arc<Catalogue>),
    parts: Parts,
    wake: Publisher,
    stop: &CancellationToken,
) -> anyhow::Result<Started> {
    use crate::correlator::{self, Correlator};
    use crate::notifiers;
    use crate::replica::{self, Replica};
    use crate::topics::Topics;
    let held = Arc::new(crate::held::Held::new(config.engine.settings(), catalogue));
    let topics = Topics::look(cluster.clone(), stop.clone())?;
    let (mut loops, name) = (Loops::default(), &config.journal.node_name);
    let mut of_correlator = None;
    if config.journal.correlate {
        let status = of_correlator.insert(Arc::default());
        let correlator = Correlator::start(correlator::Parts {
            cluster: cluster.clone(),
            name: name.clone(),
            site: config.node.site.clone(),
            held: Arc::clone(&held),
            store: Some(parts.store.clone()),
            status: Arc::clone(status),
            topics: topics.clone(),
            stop: stop.clone(),
        })?;
        loops.spawn("correlate", stop, move || correlator.run().map_err(FollowError::Kafka))?;
    }
    let (mut keeper, mut share) = (None, Share { is_ours: Box::new(|_| false), told: None });
    if config.journal.notify {
        let (notifier, end, of_receivers) =
            notifiers::notifier(cluster.clone(), name, parts.store.clone(), wake.clone(), topics.clone(), stop.clone());
        loops.spawn("notify", stop, move || notifier.run().map_err(FollowError::Kafka))?;
        let notifiers::Share { is_ours, receivers } = of_receivers;
        // The notifier may have ended: then the node stops.
        let tell = move |all| drop(receivers.send((all, tokio::runtime::Handle::current())));
        (keeper, share) = (Some(end), Share { is_ours, told: Some(Box::new(tell)) });
    }
    let of_replica = Arc::default();
    let replica = Replica::start(replica::Parts {
        cluster,
        site: parts.site,
        spool: config.journal.spool,
        store: parts.store,
        writer: parts.writer,
        intake: parts.intake,
        control: parts.control,
        held,
        wake,
        keeper,
        status: Arc::clone(&of_replica),
        topics,
        stop: stop.clone(),
    })?;
    loops.spawn("replica", stop, move || Ok(replica.run()?))?;
    let status = LoopStatus::Kafka { correlator: of_correlator, replica: of_replica };
    Ok(Started { loops, status, share: Some(share) })
}

impl Loops {
    fn spawn(
        &mut self,
        name: &str,
        stop: &CancellationToken,
        run: impl FnOnce() -> Result<(), FollowError> + Send + 'static,
    ) -> std::io::Result<()> {
        let ended = stop.clone().drop_guard();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ended = ended;
            run()
        })?;
        self.0.push(thread);
        Ok(())
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// One broke, or did not end as it should.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        for thread in self.0 {
            let ended = thread.join().map_err(|_| anyhow::anyhow!("the journalling loop broke; see the log"))?;
            ended.context("the journalling loop ended")?;
        }
        Ok(())
    }
}

/// A name, what it counts, and the count.
type Row<'a> = (&'a str, &'a str, &'a AtomicU64);

const APPLIED: (&str, &str) = ("klaxon_engine_entries_applied_total", "Journal entries applied.");
const QUARANTINED: (&str, &str) =
    ("klaxon_engine_entries_quarantined_total", "Entries that broke the engine and were put aside.");

impl LoopStatus {
    /// Writes what they count.
    pub(crate) fn metrics(&self, text: &mut MetricsText) {
        match self {
            Self::Own(status) => {
                let counters: [Row<'_>; 5] = [
                    (APPLIED.0, APPLIED.1, &status.applied),
                    (QUARANTINED.0, QUARANTINED.1, &status.quarantined),
                    (
                        "klaxon_engine_alarms_uncatalogued_total",
                        "Episodes raised of types that the catalogue does not know.",
                        &status.uncatalogued,
                    ),
                    (
                        "klaxon_engine_batches_ahead_total",
                        "Batches whose entries were durable before their results.",
                        &status.ran_ahead,
                    ),
                    ("klaxon_journal_appends_refused_total", "Frames for which there was no room.", &status.appends_failed),
                ];
                write(text, MetricKind::Counter, &counters);
            }
            #[cfg(feature = "kafka")]
            Self::Kafka { correlator, replica } => {
                if let Some(status) = correlator {
                    let counters: [Row<'_>; 5] = [
                        (APPLIED.0, APPLIED.1, &status.applied),
                        (QUARANTINED.0, QUARANTINED.1, &status.quarantined),
                        ("klaxon_kafka_transactions_total", "Transactions committed.", &status.committed),
                        (
                            "klaxon_kafka_transactions_aborted_total",
                            "Transactions that came to nothing; what was in them was applied anew.",
                            &status.aborted,
                        ),
                        (
                            "klaxon_kafka_records_rejected_total",
                            "Records of the events that are no entries, or stand where they do not belong.",
                            &status.rejected,
                        ),
                    ];
                    write(text, MetricKind::Counter, &counters);
                    let gauges: [Row<'_>; 2] = [
                        ("klaxon_kafka_partitions", "Partitions that this node correlates.", &status.partitions),
                        (
                            "klaxon_kafka_partitions_refused",
                            "Partitions that are this node's and that it cannot correlate; see the log.",
                            &status.left_alone,
                        ),
                    ];
                    write(text, MetricKind::Gauge, &gauges);
                }
                let counters: [Row<'_>; 3] = [
                    ("klaxon_kafka_records_produced_total", "Entries that the brokers have acknowledged.", &replica.produced),
                    ("klaxon_kafka_records_copied_total", "Records of changes and state that were copied.", &replica.copied),
                    ("klaxon_kafka_records_unread_total", "Records of changes and state that cannot be read.", &replica.unread),
                ];
                write(text, MetricKind::Counter, &counters);
                let gauges: [Row<'_>; 1] = [(
                    "klaxon_kafka_partitions_newer",
                    "Partitions that are not copied any more: a newer program writes there.",
                    &replica.left_alone,
                )];
                write(text, MetricKind::Gauge, &gauges);
            }
        }
    }
}

fn write(text: &mut MetricsText, kind: MetricKind, rows: &[Row<'_>]) {
    for (name, help, value) in rows {
        text.family(name, kind, help);
        text.sample(name, &[], value.load(Ordering::Relaxed));
    }
}

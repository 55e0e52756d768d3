//! All receivers of a node: started, changed and removed as the settings say, each a task of its own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use klaxon_schemas::ids::{Epoch, Seq};
use klaxon_schemas::names::{Follower, Site};
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::Door;
use klaxon_store::publish::{Item, Lane, PublishError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::load::leftovers;
use super::receiver::{self, Command, wall};
use super::unreachable;
use super::{
    Counters, Delivered, Notification, ReceiverConfig, ReceiverShown, ReceiverState, ResendError, SendError, Sink, SinkLimits,
};

/// The most commands that wait for one receiver.
const COMMANDS_MAX: usize = 16;
/// How long the removal of a receiver's records is tried. What remains is removed when the settings are applied next.
const REMOVE_WAIT: Duration = Duration::from_secs(10);
/// How long to wait before the journal is asked again.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// How long until a receiver whose task ended unasked is started again.
const RESTART_WAIT: Duration = Duration::from_secs(5);

/// Of how many notifications that were given up it is known why.
const GIVEN_UP_MAX: usize = 64;

/// Makes the sink of a receiver. The error says what is wrong, in words and without secrets.
pub type SinkBuilder = Box<dyn Fn(&ReceiverConfig) -> Result<Arc<dyn Sink>, String> + Send + Sync>;

/// Whether a receiver is this node's, where several nodes share them.
pub type IsOurs = Box<dyn Fn(&Follower) -> bool + Send + Sync>;

/// All receivers. Cloning shares them.
#[derive(Clone)]
pub struct Receivers(Arc<Inner>);

struct Inner {
    door: Door,
    site: Site,
    build: SinkBuilder,
    /// Which of them run here; all, if no other node has any.
    is_ours: Option<IsOurs>,
    /// All that are set, wherever they run.
    all: Mutex<BTreeMap<Follower, ReceiverConfig>>,
    running: Mutex<BTreeMap<Follower, Running>>,
    /// Held while settings are applied.
    applying: tokio::sync::Mutex<()>,
}

struct Running {
    config: ReceiverConfig,
    status: Arc<Status>,
    /// To the task as it was started last.
    commands: Arc<Mutex<mpsc::Sender<Command>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How a receiver stands, as its task last said.
#[derive(Debug, Default)]
pub(super) struct Status(Mutex<StatusNow>);

/// What a task says of itself.
#[derive(Debug)]
pub(super) struct StatusNow {
    pub(super) state: ReceiverState,
    pub(super) since: Timestamp,
    pub(super) last_error: Option<(String, Timestamp)>,
    pub(super) last_reached: Option<Timestamp>,
    pub(super) epoch: Epoch,
    pub(super) assigned: u64,
    pub(super) confirmed: u64,
    pub(super) oldest_kept: Option<u64>,
    pub(super) told: u64,
    pub(super) realigning: bool,
    pub(super) read_seq: Option<Seq>,
    pub(super) read_mirrored: u64,
    /// What was looked at and is not settled.
    pub(super) to_tell: u64,
    /// When the oldest of it happened.
    pub(super) oldest_at: Option<Timestamp>,
    pub(super) counters: Counters,
    /// The last numbers that were given up, and why.
    given_up: VecDeque<(Epoch, u64, String)>,
}

impl StatusNow {
    /// The receiver refuses this for good.
    pub(super) fn give_up(&mut self, epoch: Epoch, number: u64, why: &str) {
        if self.given_up.len() == GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back((epoch, number, why.to_owned()));
    }
}

impl Default for StatusNow {
    fn default() -> Self {
        Self {
            state: ReceiverState::Starting,
            since: wall(),
            last_error: None,
            last_reached: None,
            epoch: Epoch::default(),
            assigned: 0,
            confirmed: 0,
            oldest_kept: None,
            told: 0,
            realigning: false,
            read_seq: None,
            read_mirrored: 0,
            to_tell: 0,
            oldest_at: None,
            counters: Counters::default(),
            given_up: VecDeque::new(),
        }
    }
}

impl Status {
    pub(super) fn lock(&self) -> MutexGuard<'_, StatusNow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its task ended, and is started again in a while.
    fn broke(&self, reason: &str) {
        let (mut now, at) = (self.lock(), wall());
        now.last_error = Some((format!("the receiver's task ended and is started again: {reason}"), at));
        if now.state != ReceiverState::Unreachable {
            (now.state, now.since) = (ReceiverState::Retrying, at);
        }
    }
}

/// One value about one receiver, or about all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverMetric {
    /// The name of the metric.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// It only grows.
    pub is_counter: bool,
    /// Of which receiver it is.
    pub receiver: String,
    /// The value.
    pub value: u64,
}

/// A receiver whose sink cannot be made: its backlog waits until the settings are right.
struct Broken(String);

impl Sink for Broken {
    fn limits(&self) -> SinkLimits {
        SinkLimits { window: 1, batch_max: 1 }
    }

    fn send(&self, _batch: Vec<Notification>) -> BoxFuture<'_, Result<Delivered, SendError>> {
        Box::pin(async { Err(SendError::Unreachable(self.0.clone())) })
    }
}

impl Receivers {
    /// None yet. `door` is the node's own: what is kept and the node's alarms about receivers come in by it.
    pub fn new(door: Door, site: Site, build: SinkBuilder) -> Self {
        Self::of(door, site, build, None)
    }

    /// None yet. Nodes whose journal is kept elsewhere share the receivers: only those run here that are this node's, and what is
    /// kept of one that is not is nobody's here.
    pub fn shared(door: Door, site: Site, build: SinkBuilder, is_ours: IsOurs) -> Self {
        Self::of(door, site, build, Some(is_ours))
    }

    fn of(door: Door, site: Site, build: SinkBuilder, is_ours: Option<IsOurs>) -> Self {
        let (all, running, applying) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::new(()));
        Self(Arc::new(Inner { door, site, build, is_ours, all, running, applying }))
    }

    fn is_shared(&self) -> bool {
        self.0.is_ours.is_some()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Follower, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs these and no others. Who is as before is not touched; who is gone is forgotten, with what was kept of it. Returns who
    /// is new, other than before or gone, also where only a secret or what a file held is other.
    pub async fn apply(&self, configs: Vec<ReceiverConfig>) -> BTreeSet<Follower> {
        let _one_at_a_time = self.0.applying.lock().await;
        let wanted: BTreeMap<Follower, ReceiverConfig> =
            configs.into_iter().map(|config| (config.name.clone(), config)).collect();
        *self.0.all.lock().unwrap_or_else(PoisonError::into_inner) = wanted.clone();
        self.run(wanted).await
    }

    /// Where nodes share the receivers: runs those of the ones applied last that are this node's now, and lets the others end. When
    /// it returns, what they have confirmed is kept.
    pub async fn divide(&self) {
        let _one_at_a_time = self.0.applying.lock().await;
        let all = self.0.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.run(all).await;
    }

    async fn run(&self, all: BTreeMap<Follower, ReceiverConfig>) -> BTreeSet<Follower> {
        let mut wanted = all.clone();
        wanted.retain(|name, _| self.0.is_ours.as_ref().is_none_or(|is_ours| is_ours(name)));
        let changed: Vec<_> = {
            let mut running = self.running();
            let is_other = |name: &Follower, one: &Running| wanted.get(name) != Some(&one.config) || one.task.is_finished();
            let other = |(name, one): (&Follower, &Running)| is_other(name, one).then(|| name.clone());
            let names: Vec<_> = running.iter().filter_map(other).collect();
            names.into_iter().filter_map(|name| running.remove(&name)).collect()
        };
        let mut touched: BTreeSet<Follower> = changed.iter().map(|one| one.config.name.clone()).collect();
        let gone: Vec<Follower> = touched.iter().filter(|name| !all.contains_key(*name)).cloned().collect();
        end(changed).await;
        if self.is_shared() {
            self.forget_gone(gone).await;
        } else {
            self.forget_others(&wanted).await;
        }
        let stands = unreachable::standing(self.0.door.store(), &self.0.site);
        let mut running = self.running();
        for (name, config) in wanted {
            if let Entry::Vacant(place) = running.entry(name) {
                touched.insert(place.key().clone());
                let alarm_stands = stands.contains(place.key());
                place.insert(self.start(config, alarm_stands));
            }
        }
        touched
    }

    /// Lets all receivers end, keeping what they have confirmed.
    pub async fn stop(&self) {
        let _one_at_a_time = self.0.applying.lock().await;
        let all = std::mem::take(&mut *self.running());
        end(all.into_values().collect()).await;
    }

    fn start(&self, config: ReceiverConfig, alarm_stands: bool) -> Running {
        let sink = (self.0.build)(&config).unwrap_or_else(|reason| {
            tracing::error!(receiver = %config.name, reason, "the receiver cannot be told anything");
            Arc::new(Broken(reason))
        });
        let status = Arc::<Status>::default();
        // Each start of the task puts its own in.
        let commands = Arc::new(Mutex::new(mpsc::channel(COMMANDS_MAX).0));
        let stop = CancellationToken::new();
        let watched = Watched {
            config: config.clone(),
            site: self.0.site.clone(),
            shared: self.is_shared(),
            door: self.0.door.clone(),
            sink,
            status: Arc::clone(&status),
            commands: Arc::clone(&commands),
            stop: stop.clone(),
        };
        let first = watched.start(alarm_stands);
        let task = tokio::spawn(watched.run(first));
        Running { config, status, commands, stop, task }
    }

    /// Removes what is kept of receivers that are not wanted, and their alarms. Other followers' cursors stay.
    async fn forget_others(&self, wanted: &BTreeMap<Follower, ReceiverConfig>) {
        let store = self.0.door.store();
        let gone: Vec<Follower> = {
            let state = store.read();
            let is_receiver =
                |name: &Follower| state.state().followers().get(name).is_none_or(|followed| followed.delivery.is_some());
            let keepers = state.state().keepers().into_keys();
            keepers.filter(|name| !wanted.contains_key(name) && is_receiver(name)).collect()
        };
        let until = tokio::time::Instant::now() + REMOVE_WAIT;
        // A receiver that begins anew under an old name must not find what is left of that.
        let new: Vec<Follower> = {
            let (state, running) = (store.read(), self.running());
            let is_new = |name: &&Follower| !running.contains_key(*name) && !state.state().followers().contains_key(*name);
            wanted.keys().filter(is_new).cloned().collect()
        };
        for name in gone.into_iter().chain(new) {
            if tokio::time::timeout_at(until, self.forget(&name)).await.is_err() {
                tracing::warn!(receiver = %name, "what was kept of the receiver cannot be removed yet");
            }
        }
        let stale = unreachable::standing(store, &self.0.site).into_iter().filter(|name| !wanted.contains_key(name));
        for name in stale {
            let report = unreachable::report(&self.0.site, &name, None);
            if let Err(error) = unreachable::publish(&self.0.door, report).await {
                tracing::warn!(receiver = %name, %error, "the alarm about the receiver cannot be cleared yet");
            }
        }
    }

    /// Removes what is kept of these, which ran here and are not set any more. Of others it is not known whether another node has
    /// them.
    async fn forget_gone(&self, gone: Vec<Follower>) {
        let until = tokio::time::Instant::now() + REMOVE_WAIT;
        for name in gone {
            if tokio::time::timeout_at(until, self.forget(&name)).await.is_err() {
                tracing::warn!(receiver = %name, "what was kept of the receiver cannot be removed");
            }
            let report = unreachable::report(&self.0.site, &name, None);
            if unreachable::standing(self.0.door.store(), &self.0.site).contains(&name)
                && let Err(error) = unreachable::publish(&self.0.door, report).await
            {
                tracing::warn!(receiver = %name, %error, "the alarm about the receiver cannot be cleared yet");
            }
        }
    }

    async fn forget(&self, name: &Follower) {
        while let Some(keep) = leftovers(self.0.door.store(), name) {
            let item = Item::Keep(Arc::new(keep));
            let outcome = match self.0.door.submit(vec![item], &Lane::default()).await {
                Ok(mut pending) => pending.outcome().await.map(drop),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {}
                Err(PublishError::Stopping) => return,
                Err(_) => tokio::time::sleep(RETRY_WAIT).await,
            }
        }
    }

    /// Sends the notifications of `name` from number `from` on again, under their numbers. How many that are.
    pub async fn resend(&self, name: &Follower, from: u64) -> Result<u64, ResendError> {
        let commands = self.running().get(name).map(|running| lock(&running.commands).clone());
        let commands = commands.ok_or(ResendError::NoSuchReceiver)?;
        let (answer, answered) = oneshot::channel();
        commands.send(Command::Resend { from, answer }).await.map_err(|_| ResendError::Stopping)?;
        answered.await.unwrap_or(Err(ResendError::Stopping))
    }

    /// How each of them stands, by name.
    pub fn list(&self) -> Vec<ReceiverShown> {
        let store = self.0.door.store();
        let last = last(store, self.is_shared());
        let now = wall();
        let running = self.running();
        running.iter().map(|(name, one)| shown(name, &one.config, &one.status.lock(), last, now)).collect()
    }

    /// How the receiver `name` stands.
    pub fn get(&self, name: &Follower) -> Option<ReceiverShown> {
        let store = self.0.door.store();
        let last = last(store, self.is_shared());
        let running = self.running();
        running.get(name).map(|one| shown(name, &one.config, &one.status.lock(), last, wall()))
    }

    /// Why the receiver `name` was not told what stands under this number of the numbering that runs, if it refused that lately.
    pub fn given_up(&self, name: &Follower, number: u64) -> Option<String> {
        let running = self.running();
        let status = running.get(name)?.status.lock();
        let found = status.given_up.iter().find(|(epoch, given_up, _)| (*epoch, *given_up) == (status.epoch, number));
        found.map(|(_, _, why)| why.clone())
    }

    /// What is set of the receiver `name`.
    pub fn config(&self, name: &Follower) -> Option<ReceiverConfig> {
        self.running().get(name).map(|one| one.config.clone())
    }

    /// What is counted and measured, all values of a metric one after the other.
    pub fn metrics(&self) -> Vec<ReceiverMetric> {
        let shown = self.list();
        let mut rows = Vec::with_capacity(METRICS.len() * shown.len());
        for (name, help, is_counter, value) in METRICS {
            rows.extend(shown.iter().map(|one| ReceiverMetric {
                name,
                help,
                is_counter,
                receiver: one.name.to_string(),
                value: value(one),
            }));
        }
        rows
    }
}

/// Name, help, whether it only grows, and where it stands.
type Metric = (&'static str, &'static str, bool, fn(&ReceiverShown) -> u64);

const METRICS: [Metric; 13] = [
    ("klaxon_receivers_notifications_sent_total", "Notifications handed to the sink, each try.", true, |one| one.counters.sent),
    ("klaxon_receivers_notifications_confirmed_total", "Notifications that were confirmed.", true, |one| {
        one.counters.confirmed
    }),
    ("klaxon_receivers_notifications_retried_total", "Notifications handed over again after a failure.", true, |one| {
        one.counters.retried
    }),
    (
        "klaxon_receivers_notifications_refused_total",
        "Notifications given up because the receiver refuses them.",
        true,
        |one| one.counters.refused,
    ),
    ("klaxon_receivers_notifications_resent_total", "Notifications sent again on request.", true, |one| one.counters.resent),
    ("klaxon_receivers_backlogs_folded_total", "Backlogs that became a digest.", true, |one| one.counters.folded),
    ("klaxon_receivers_changes_folded_total", "Changes that are told of in digests only.", true, |one| {
        one.counters.folded_changes
    }),
    ("klaxon_receivers_gaps_total", "Gaps that were told of.", true, |one| one.counters.gaps),
    ("klaxon_receivers_heartbeats_total", "Heartbeats that were confirmed.", true, |one| one.counters.heartbeats),
    ("klaxon_receivers_lag_changes", "Changes that are yet to be told, or found not to be told.", false, |one| one.lag_changes),
    ("klaxon_receivers_lag_seconds", "The age of the oldest that is yet to be told.", false, |one| one.lag_s),
    ("klaxon_receivers_told_alarms", "Alarms that stand as far as the receiver was told.", false, |one| one.told),
    ("klaxon_receivers_reachable", "Whether the last delivery was confirmed.", false, |one| {
        u64::from(one.state == ReceiverState::Ok)
    }),
];

/// How far the journal is.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// The numbering; nothing if those of the receivers are their own.
    epoch: Option<Epoch>,
    seq: Seq,
    mirrored: u64,
}

fn last(store: &klaxon_store::Store, shared: bool) -> Last {
    let state = store.read();
    let (seq, mirrored) = (state.cursor().last_seq, state.cursor().mirrored);
    Last { epoch: (!shared).then(|| store.epoch()), seq, mirrored }
}

fn shown(name: &Follower, config: &ReceiverConfig, status: &StatusNow, last: Last, now: Timestamp) -> ReceiverShown {
    // Changes of other sites are not numbered here.
    let of_others = || last.mirrored.saturating_sub(status.read_mirrored);
    let is_same = last.epoch.is_none_or(|epoch| status.epoch == epoch);
    let unread = status.read_seq.filter(|_| is_same).map_or(0, |read| last.seq.0.saturating_sub(read.0) + of_others());
    let lag_us = status.oldest_at.map_or(0, |at| now.micros_since(at));
    ReceiverShown {
        name: name.clone(),
        kind: config.sink.kind(),
        target: config.sink.target(),
        state: status.state,
        since: status.since,
        last_error: status.last_error.as_ref().map(|(error, _)| error.clone()),
        last_error_at: status.last_error.as_ref().map(|(_, at)| *at),
        last_reached_at: status.last_reached,
        lag_changes: unread + status.to_tell,
        lag_s: u64::try_from(lag_us / 1_000_000).unwrap_or(0),
        epoch: status.epoch,
        assigned: status.assigned,
        confirmed: status.confirmed,
        oldest_kept: status.oldest_kept,
        told: status.told,
        realigning: status.realigning,
        counters: status.counters,
    }
}

fn lock(commands: &Mutex<mpsc::Sender<Command>>) -> MutexGuard<'_, mpsc::Sender<Command>> {
    commands.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a receiver's task is started with, each time.
struct Watched {
    config: ReceiverConfig,
    site: Site,
    shared: bool,
    door: Door,
    sink: Arc<dyn Sink>,
    status: Arc<Status>,
    commands: Arc<Mutex<mpsc::Sender<Command>>>,
    stop: CancellationToken,
}

impl Watched {
    fn start(&self, alarm_stands: bool) -> JoinHandle<()> {
        let (commands, asked) = mpsc::channel(COMMANDS_MAX);
        *lock(&self.commands) = commands;
        tokio::spawn(receiver::run(receiver::Parts {
            config: self.config.clone(),
            site: self.site.clone(),
            shared: self.shared,
            door: self.door.clone(),
            sink: Arc::clone(&self.sink),
            status: Arc::clone(&self.status),
            commands: asked,
            // It may end by itself; that is not to stop.
            stop: self.stop.child_token(),
            alarm_stands,
        }))
    }

    /// Watches the task and starts it again if it ends unasked.
    async fn run(self, mut task: JoinHandle<()>) {
        let name = &self.config.name;
        loop {
            let ended = task.await;
            if self.stop.is_cancelled() {
                if let Err(error) = ended {
                    tracing::error!(receiver = %name, %error, "a receiver broke");
                }
                return;
            }
            let reason = ended.map_or_else(|error| error.to_string(), |()| "nothing more is taken or committed".to_owned());
            tracing::error!(receiver = %name, reason, "a receiver's task ended unasked; it is started again");
            self.status.broke(&reason);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_WAIT) => {}
            }
            let alarm_stands = unreachable::standing(self.door.store(), &self.site).contains(name);
            task = self.start(alarm_stands);
        }
    }
}

/// Stops them side by side.
async fn end(receivers: Vec<Running>) {
    receivers.iter().for_each(|one| one.stop.cancel());
    for one in receivers {
        if let Err(error) = one.task.await {
            tracing::error!(receiver = %one.config.name, %error, "a receiver broke");
        }
    }
}

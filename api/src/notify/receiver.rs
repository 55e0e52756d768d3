//! One receiver at work: a task that plans, keeps, sends, and settles.
//!
//! ```text
//! planner ─▶ numbers ─▶ kept (durable) ─▶ queue ─▶ sink ─▶ settled ─▶ kept with the next step, or soon
//! ```
//!
//! At most one step is on its way to the journal, and what is settled meanwhile rides in the next; so the more there is to
//! tell, the more shares one sync. It plans no further than a small batch ahead, and nothing while the receiver is away.

mod again;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::Site;
use klaxon_schemas::notify::{Delivery, How};
use klaxon_schemas::state::Followed;
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::Door;
use klaxon_store::publish::{Answer, Item, Keep, Lane, PublishError, Published};
use klaxon_store::{Page, ReadError, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::group::Groups;
use super::ledger::Ledger;
use super::load::load;
use super::planner::{Need, PAGE_ITEMS_MAX, Planned, Planner, Reached};
use super::queue::{Parcel, Queue};
use super::reach::{Rate, Reach, chance};
use super::restore::restore;
use super::set::Status;
use super::unreachable::Alarm;
use super::wait::{joined, of};
use super::{
    Counters, Delivered, Notification, ReceiverConfig, ResendError, SEND_TIME_MAX, SendError, Sink, SinkLimits, Standing, What,
};

/// The fewest notifications that are given their numbers ahead of being sent.
const AHEAD_MIN: usize = 64;
/// The most.
const AHEAD_MAX: usize = 512;
/// The most steps that are kept together: with what they were told and stand for, they fit into one item.
const STEP_MAX: usize = 256;
/// The most numbers from the first that is not settled to the last given out: each record names those settled in between.
const OPEN_MAX: u64 = 2048;
/// How often a notification is tried that the receiver refuses.
const REFUSALS_MAX: u32 = 5;
/// How often one fails while others are confirmed, until that counts as refused.
const OUTDONE_MAX: u32 = 20;
/// How often, if nothing else can be told until it is settled.
const BLOCKING_TRIES_MAX: u32 = 10;
/// How long what was confirmed waits for something to share its sync with.
const CONFIRM_WAIT: Duration = Duration::from_millis(100);
/// How often it is kept how far changes were looked at that are not told.
const PASSED_OVER_WAIT: Duration = Duration::from_secs(30);
/// How many records that are no changes (repeats, heartbeats) are passed over until that is kept.
const PASSED_OVER_MAX: u64 = 100_000;
/// How long to wait after the journal did not take something, or could not be read.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);
/// How long a receiver that stops waits for what is on its way.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What is asked of a receiver.
#[derive(Debug)]
pub(super) enum Command {
    /// To send again from this number on. The answer is how many that are.
    Resend { from: u64, answer: oneshot::Sender<Result<u64, ResendError>> },
}

/// What a receiver is made of.
pub(super) struct Parts {
    pub(super) config: ReceiverConfig,
    pub(super) site: Site,
    /// Other nodes may go on with the receiver.
    pub(super) shared: bool,
    pub(super) door: Door,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) status: Arc<Status>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: CancellationToken,
    /// Whether its alarm stands from before.
    pub(super) alarm_stands: bool,
}

/// What is on its way to the journal.
struct Saving {
    keep: Arc<Keep>,
    parcels: Vec<Parcel>,
    reached: Reached,
}

type SaveOutcome = Result<Published, PublishError>;

/// The task's own.
pub(super) struct Receiver {
    config: ReceiverConfig,
    site: Site,
    shared: bool,
    door: Door,
    store: Store,
    sink: Arc<dyn Sink>,
    limits: SinkLimits,
    ahead: usize,
    status: Arc<Status>,
    commands: mpsc::Receiver<Command>,
    stop: CancellationToken,
    committed: watch::Receiver<Position>,
    filter: String,

    planner: Planner,
    ledger: Ledger,
    queue: Queue,
    groups: Option<Groups>,
    reach: Reach,
    rate: Option<Rate>,
    alarm: Alarm,
    counters: Counters,
    /// The last number that is kept, and so may have been sent.
    durable: u64,
    /// Something was given out before the start and not settled.
    has_left_over: bool,
    /// How many deliveries were confirmed, heartbeats aside.
    deliveries: u64,
    /// When what each number is about happened, for those that are not settled.
    open_since: BTreeMap<u64, Timestamp>,

    flight: JoinSet<Result<Delivered, SendError>>,
    under_way: HashMap<Id, Vec<Parcel>>,
    saving: Option<Saving>,
    save: Option<BoxFuture<'static, SaveOutcome>>,
    save_from: Option<Instant>,
    saved: Reached,
    saved_at: Instant,
    /// Something is to be kept by then.
    keep_due: Option<Instant>,
    /// The most steps in the next item.
    step_max: usize,
    /// Records of an earlier numbering, to be deleted with the first of this one.
    old_records: Vec<u64>,
    reading: Option<JoinHandle<Result<Page, ReadError>>>,
    read_from: Option<Instant>,
    /// The next number to be sent again, up to which, and what of it is being read.
    again: Option<(u64, u64)>,
    reading_again: Option<JoinHandle<Vec<Parcel>>>,
    heartbeat_at: Option<Instant>,
}

/// The wall clock.
pub(super) fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().saturating_add_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Runs a receiver until it is stopped.
pub(super) async fn run(parts: Parts) {
    let (name, stop, sink) = (parts.config.name.clone(), parts.stop.clone(), Arc::clone(&parts.sink));
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        receiver = Receiver::load(parts) => {
            let mut receiver = receiver;
            receiver.work().await;
            receiver.finish().await;
        }
    }
    sink.close().await;
    tracing::debug!(receiver = %name, "the receiver stopped");
}

impl Receiver {
    /// As it was kept, or new.
    async fn load(parts: Parts) -> Self {
        let Parts { config, site, shared, door, sink, status, commands, stop, alarm_stands } = parts;
        let store = door.store().clone();
        let limits = sink.limits();
        let limits = SinkLimits { window: limits.window.max(1), batch_max: limits.batch_max.max(1) };
        let ahead = limits.window.saturating_mul(limits.batch_max).saturating_mul(4).clamp(AHEAD_MIN, AHEAD_MAX);
        let committed = store.committed();
        let (planner, ledger, old) = load(&config, &site, &store, shared);
        let now = Instant::now();
        let mut receiver = Self {
            filter: config.filter.digest(),
            site,
            shared,
            sink,
            limits,
            ahead,
            status,
            commands,
            stop,
            committed,
            saved: planner.reached(),
            planner,
            durable: ledger.assigned,
            has_left_over: false,
            ledger,
            queue: Queue::default(),
            groups: config.group.clone().map(Groups::new),
            reach: Reach::new(config.backoff, wall()),
            rate: config.rate.map(|rate| Rate::new(rate.get(), now)),
            alarm: Alarm::new(alarm_stands),
            counters: Counters::default(),
            deliveries: 0,
            open_since: BTreeMap::new(),
            flight: JoinSet::new(),
            under_way: HashMap::new(),
            saving: None,
            save: None,
            save_from: None,
            saved_at: now,
            keep_due: Some(now),
            step_max: STEP_MAX,
            old_records: Vec::new(),
            reading: None,
            read_from: None,
            again: None,
            reading_again: None,
            heartbeat_at: config.heartbeat.map(|every| now + every),
            config,
            door,
            store,
        };
        if alarm_stands {
            receiver.reach.unreachable(wall());
        }
        receiver.begin(old).await;
        receiver
    }

    /// What was given out and is not settled goes first: under its number, or, in a new numbering, under a new one behind the gap.
    async fn begin(&mut self, old: Option<Ledger>) {
        let unsettled = old.as_ref().unwrap_or(&self.ledger).unsettled();
        let (store, now) = (self.store.clone(), wall());
        let read = tokio::task::spawn_blocking(move || {
            let restored = unsettled.into_iter().map(|(number, entry)| (number, restore(&store, &entry, now), entry));
            restored.collect::<Vec<_>>()
        });
        let restored = read.await.unwrap_or_default();
        self.planner.restored(restored.iter().map(|(_, what, _)| what));
        self.know_groups();
        match old {
            None => {
                self.has_left_over = !restored.is_empty();
                for (number, what, _) in restored {
                    self.enqueue(Parcel::new(number, what, false));
                }
                // It has waited before.
                self.queue.hurry_groups(self.groups.as_mut(), Instant::now());
            }
            Some(mut old) => {
                self.drop_settled(&mut old).await;
                self.step_max = STEP_MAX + restored.len();
                self.old_records = old.record_keys().collect();
                restored.into_iter().for_each(|(_, what, entry)| self.planner.tell_again(what, entry));
            }
        }
    }

    /// What stands for the receiver, group by group.
    fn know_groups(&mut self) {
        let Some(groups) = &mut self.groups else { return };
        let state = self.store.read();
        for alarm in self.planner.standing().filter_map(|id| state.alarm(id)).filter(|alarm| alarm.is_active()) {
            groups.told(How::Changed, &state.state().as_told(alarm));
        }
    }

    /// Deletes what an earlier numbering has settled, in pieces; the rest goes with the first step of the new one.
    async fn drop_settled(&mut self, old: &mut Ledger) {
        old.end();
        loop {
            let outbox = old.trim();
            if outbox.is_empty() {
                return;
            }
            let followed = self.store.read().state().followers().get(&self.config.name).cloned();
            let keep = Arc::new(Keep { follower: self.config.name.clone(), followed, told: Vec::new(), outbox });
            while let Err(error) = submit(&self.door, Arc::clone(&keep)).await {
                if error == PublishError::Stopping {
                    return;
                }
                tokio::time::sleep(JOURNAL_WAIT).await;
            }
        }
    }

    async fn work(&mut self) {
        loop {
            let now = Instant::now();
            self.committed.borrow_and_update();
            let need = self.plan(now);
            self.keep(now);
            self.dispatch(now);
            self.look_after_alarm(now);
            self.show();
            let wake = self.next_wake(now);
            let wait = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(command) = self.commands.recv() => self.obey(command),
                outcome = of(&mut self.save) => self.kept(outcome, Instant::now()),
                Some(outcome) = self.flight.join_next_with_id() => {
                    self.landed(outcome);
                    while let Some(outcome) = self.flight.try_join_next_with_id() {
                        self.landed(outcome);
                    }
                }
                page = joined(&mut self.reading) => self.read(page),
                parcels = joined(&mut self.reading_again) => self.read_again(parcels),
                () = self.alarm.reported() => {}
                moved = self.committed.changed(), if need == Some(Need::Commit) => {
                    if moved.is_err() {
                        return;
                    }
                }
                () = wait => {}
            }
        }
    }

    /// Nothing gets through, or it is not known to since a restart before which something was on its way, and there is something
    /// to try it with. So what a receiver misses is one backlog, however often the node is restarted meanwhile.
    fn is_stuck(&self) -> bool {
        let is_away = self.reach.is_away() || (self.reach.is_failing() && self.flight.is_empty());
        let is_unknown = self.has_left_over && self.reach.last_reached.is_none();
        (is_away || is_unknown) && self.queue.len() > 0
    }

    /// How many more may be given their numbers; while nothing gets through, one where it may be because of what is tried.
    fn room(&self) -> usize {
        let open = OPEN_MAX.saturating_sub(self.ledger.assigned - self.ledger.confirmed);
        let room = self.ahead.saturating_sub(self.queue.len()).min(usize::try_from(open).unwrap_or(usize::MAX));
        if self.is_stuck() { room.min(usize::from(self.queue.is_worn())) } else { room }
    }

    /// Plans ahead, unless the receiver is away. What is needed to go on, if it was planned.
    fn plan(&mut self, now: Instant) -> Option<Need> {
        let (room, is_stuck) = (self.room(), self.is_stuck());
        let must_wait = (is_stuck && room == 0)
            || self.again.is_some()
            || self.reading.is_some()
            || self.read_from.is_some_and(|from| from > now);
        if must_wait {
            return None;
        }
        self.read_from = None;
        let need = if is_stuck {
            self.planner.plan_probe(&self.store, wall())
        } else {
            self.planner.plan(&self.store, room.max(1), wall())
        };
        if let Need::Journal(after) = need {
            let store = self.store.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || store.changes_after(after, PAGE_ITEMS_MAX)));
        }
        Some(need)
    }

    fn read(&mut self, page: Result<Result<Page, ReadError>, tokio::task::JoinError>) {
        let failure = match page {
            Ok(Ok(page)) => return self.planner.feed(&self.store, page, wall()),
            Ok(Err(error)) => self.planner.failed(&self.store, error).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failure {
            tracing::error!(receiver = %self.config.name, %error, "the changes cannot be read; it is tried again");
            self.reach.note(format!("the changes cannot be read: {error}"), wall());
            self.read_from = Some(Instant::now() + JOURNAL_WAIT);
        }
    }

    /// Sends a step to the journal, if there is one and none is on its way.
    fn keep(&mut self, now: Instant) {
        if self.save.is_some() {
            return;
        }
        if self.saving.is_some() {
            if self.save_from.is_none_or(|from| from <= now) {
                self.submit();
            }
            return;
        }
        let steps = self.take_steps();
        let passed_over = self.planner.passed_over().filter(|_| steps.is_empty());
        let is_due = self.keep_due.is_some_and(|due| due <= now);
        let is_worth_it = passed_over.is_some_and(|reached| self.is_worth_keeping(reached))
            && now.saturating_duration_since(self.saved_at) >= PASSED_OVER_WAIT;
        if steps.is_empty() && !is_due && !is_worth_it {
            return;
        }
        let reached = steps.last().map(|step| step.reached).or(passed_over).unwrap_or(self.saved);
        self.saving = Some(self.step(steps, reached));
        self.keep_due = None;
        self.submit();
    }

    /// Whether it is far enough from what was kept.
    fn is_worth_keeping(&self, reached: Reached) -> bool {
        let is_further = reached.seq != self.saved.seq || (self.shared && reached.mirrored != self.saved.mirrored);
        is_further || reached.position.0.saturating_sub(self.saved.position.0) > PASSED_OVER_MAX
    }

    fn take_steps(&mut self) -> Vec<Planned> {
        // The first step of a new numbering takes all that was under way in the old one, whatever room there is.
        let room = if self.step_max > STEP_MAX { self.step_max } else { self.room() };
        let (mut steps, mut tells) = (Vec::new(), 0);
        while tells < room
            && steps.len() < self.step_max
            && let Some(step) = self.planner.take()
        {
            tells += usize::from(step.tell.is_some());
            steps.push(step);
        }
        self.step_max = STEP_MAX;
        steps
    }

    /// Numbers what is told, and says what is to be kept.
    fn step(&mut self, steps: Vec<Planned>, reached: Reached) -> Saving {
        let (mut entries, mut whats, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            if let Some((what, entry)) = step.tell {
                entries.push((entry, step.reached.position));
                whats.push(what);
            } else if let (Some(groups), Some((alarm, None))) = (&mut self.groups, &step.told) {
                groups.forget(*alarm);
            }
            told.extend(step.told);
        }
        let (numbers, mut outbox) = self.ledger.assign(entries);
        let parcels = numbers.into_iter().zip(whats).map(|(number, what)| Parcel::new(number, what, false)).collect();
        outbox.extend(self.ledger.trim());
        let fresh = |first: &u64| outbox.iter().all(|(put, _)| put != first);
        let gone: Vec<_> = std::mem::take(&mut self.old_records).into_iter().filter(fresh).map(|first| (first, None)).collect();
        outbox.extend(gone);
        let delivery = Delivery {
            epoch: self.ledger.epoch,
            assigned: self.ledger.assigned,
            confirmed: self.ledger.confirmed,
            confirmed_above: self.ledger.confirmed_above(),
            read: reached.position,
            read_seq: reached.seq,
            read_mirrored: reached.mirrored,
            places: self.planner.places_at(reached.position),
            filter: self.filter.clone(),
            realign: reached.realign,
        };
        let position = self.ledger.needs_behind(reached.position);
        let followed = Some(Followed { position, delivery: Some(Box::new(delivery)) });
        Saving { keep: Arc::new(Keep { follower: self.config.name.clone(), followed, told, outbox }), parcels, reached }
    }

    fn submit(&mut self) {
        let Some(saving) = &self.saving else { return };
        let (door, keep) = (self.door.clone(), Arc::clone(&saving.keep));
        self.save_from = None;
        self.save = Some(Box::pin(async move { submit(&door, keep).await }));
    }

    /// What was kept may be sent.
    fn kept(&mut self, outcome: SaveOutcome, now: Instant) {
        self.save = None;
        let failure = match outcome {
            Ok(published) => match published.answers.into_iter().next() {
                Some(Answer::Rejected(rejection)) => Some(rejection.to_string()),
                _ => None,
            },
            Err(PublishError::Stopping) => return self.stop.cancel(),
            Err(error) => Some(error.to_string()),
        };
        match failure {
            None => {
                let Some(saving) = self.saving.take() else { return };
                (self.saved, self.saved_at) = (saving.reached, now);
                saving.parcels.into_iter().for_each(|parcel| self.enqueue(parcel));
            }
            Some(error) => {
                tracing::warn!(receiver = %self.config.name, %error, "what it is to be told cannot be kept yet; it waits");
                self.reach.note(format!("what it is to be told cannot be kept: {error}"), wall());
                self.save_from = Some(now + JOURNAL_WAIT);
            }
        }
    }

    fn enqueue(&mut self, mut parcel: Parcel) {
        if let Some(groups) = &mut self.groups {
            parcel.group = groups.wait(&parcel.what, Instant::now());
        }
        self.durable = self.durable.max(parcel.number);
        self.open_since.insert(parcel.number, parcel.what.happened_at().unwrap_or_else(wall));
        self.queue.push(parcel);
    }

    /// How many deliveries may be under way.
    fn window(&self) -> usize {
        if self.reach.is_away() { 1 } else { self.limits.window }
    }

    /// Hands over as much as sink, rate and the receiver's state allow.
    fn dispatch(&mut self, now: Instant) {
        self.beat(now);
        let is_early = self.reach.not_before().is_some_and(|from| from > now);
        if is_early && (self.groups.is_some() || !self.queue.has_fresh()) {
            return;
        }
        let (is_away, window, is_full) = (self.reach.is_away(), self.window(), self.room() == 0);
        while self.flight.len() < window {
            let (allowed, max) = (self.rate.as_mut().map_or(usize::MAX, |rate| rate.allows(now)), self.limits.batch_max);
            let batch = match &mut self.groups {
                _ if allowed == 0 => Vec::new(),
                Some(groups) => self.queue.take_group(now, max, groups, is_full),
                None if is_away => self.queue.take_probe(now, is_early).into_iter().collect(),
                None => self.queue.take(now, max.min(allowed)),
            };
            if batch.is_empty() {
                return;
            }
            if let Some(rate) = &mut self.rate {
                // A group is one message, however much is in it.
                rate.take(if self.groups.is_some() { 1 } else { batch.len() });
            }
            self.hand_over(batch);
        }
    }

    fn hand_over(&mut self, batch: Vec<Parcel>) {
        let beside = self.beside(&batch);
        let notifications: Vec<Notification> = batch.iter().map(|parcel| self.notification(parcel, &beside)).collect();
        self.counters.sent += batch.len() as u64;
        self.counters.retried += batch.iter().filter(|parcel| parcel.tries > 0).count() as u64;
        let sink = Arc::clone(&self.sink);
        let handle = self.flight.spawn(async move {
            let sending = tokio::time::timeout(SEND_TIME_MAX, sink.send(notifications)).await;
            sending.unwrap_or_else(|_| Err(SendError::Unreachable(format!("no answer within {}s", SEND_TIME_MAX.as_secs()))))
        });
        self.under_way.insert(handle.id(), batch);
    }

    /// What else stands in the group of these.
    fn beside(&self, batch: &[Parcel]) -> Option<Arc<Standing>> {
        let key = batch.first()?.group.as_ref()?;
        let here: HashSet<AlarmId> = batch.iter().filter_map(|parcel| parcel.what.alarm()).collect();
        Some(Arc::new(self.groups.as_ref()?.standing(key, |id| here.contains(&id))))
    }

    fn notification(&self, parcel: &Parcel, beside: &Option<Arc<Standing>>) -> Notification {
        Notification {
            receiver: self.config.name.clone(),
            epoch: self.ledger.epoch,
            delivery_seq: parcel.number,
            resent: parcel.resent,
            what: parcel.what.clone(),
            beside: beside.clone(),
        }
    }

    /// Lets the receiver hear that it can be reached. One that is away and has nothing to be told is found again by it.
    fn beat(&mut self, now: Instant) {
        let (Some(every), Some(at)) = (self.config.heartbeat, self.heartbeat_at) else { return };
        let is_beating = self.under_way.values().flatten().any(|parcel| matches!(parcel.what, What::Heartbeat { .. }));
        let is_full = self.flight.len() >= self.window();
        if at > now || is_beating || is_full || self.reach.not_before().is_some_and(|from| from > now) {
            return;
        }
        self.heartbeat_at = Some(now + every);
        // What has no durable number yet was not sent, and is not missed.
        let last = self.durable;
        self.hand_over(vec![Parcel::new(last, What::Heartbeat { last }, false)]);
    }

    fn landed(&mut self, outcome: Result<(Id, Result<Delivered, SendError>), tokio::task::JoinError>) {
        let (id, outcome) = match outcome {
            Ok(landed) => landed,
            Err(error) => (error.id(), Err(SendError::Unreachable(format!("the delivery broke: {error}")))),
        };
        let Some(batch) = self.under_way.remove(&id) else { return };
        if let (Some(groups), Some(Parcel { group: Some(key), alone: false, .. })) = (&mut self.groups, batch.first()) {
            groups.landed(key, Instant::now());
        }
        match outcome {
            Ok(delivered) => self.delivered(batch, delivered),
            Err(SendError::Unreachable(error)) => self.not_delivered(batch, &error),
            Err(SendError::Refused(error)) => self.refused(batch, &error),
        }
    }

    fn reached(&mut self) {
        if self.reach.reached(wall()) {
            tracing::info!(receiver = %self.config.name, "the receiver is reached again");
            self.queue.hurry();
        }
        self.alarm.want(false);
    }

    fn delivered(&mut self, batch: Vec<Parcel>, delivered: Delivered) {
        let is_confirmed = delivered == Delivered::Confirmed;
        if is_confirmed {
            self.reached();
            self.deliveries += u64::from(batch.iter().any(|parcel| !matches!(parcel.what, What::Heartbeat { .. })));
        }
        for parcel in batch {
            if matches!(parcel.what, What::Heartbeat { .. }) {
                self.counters.heartbeats += u64::from(is_confirmed);
                continue;
            }
            self.counters.confirmed += u64::from(is_confirmed);
            self.counters.resent += u64::from(parcel.resent && is_confirmed);
            if let (Some(groups), What::Alarm { how, alarm, .. }, false) = (&mut self.groups, &parcel.what, parcel.resent) {
                groups.told(*how, alarm);
            }
            self.settle(&parcel);
        }
    }

    fn settle(&mut self, parcel: &Parcel) {
        self.queue.done(parcel);
        if !parcel.resent && self.ledger.settle(parcel.number) {
            self.open_since.remove(&parcel.number);
            self.keep_due.get_or_insert_with(|| Instant::now() + CONFIRM_WAIT);
        }
    }

    fn not_delivered(&mut self, batch: Vec<Parcel>, error: &str) {
        let now = Instant::now();
        if !self.reach.is_failing() && batch.iter().all(|parcel| parcel.tries == 0) {
            tracing::warn!(receiver = %self.config.name, error, "the receiver cannot be reached; it is tried again");
        }
        self.reach.failed(error.to_owned(), now, wall(), chance());
        if self.reach.is_away() {
            self.planner.is_away();
        }
        let (is_one, is_grouped, chance) = (batch.len() == 1, self.groups.is_some(), chance());
        let most_tries = batch.iter().map(|parcel| parcel.tries.saturating_add(1)).max().unwrap_or(1);
        for mut parcel in batch.into_iter().filter(|parcel| !matches!(parcel.what, What::Heartbeat { .. })) {
            let is_outdone = parcel.tries > 0 && self.deliveries > parcel.confirmed_then;
            parcel.tries = parcel.tries.saturating_add(1);
            parcel.outdone += u32::from(is_outdone && is_one);
            parcel.confirmed_then = self.deliveries;
            // A group stays together while it may be the receiver's fault.
            parcel.alone |= !is_one && (!is_grouped || is_outdone);
            // At that bound the receiver has taken most of what came behind it.
            let is_blocking =
                parcel.number == self.ledger.confirmed + 1 && self.ledger.assigned - self.ledger.confirmed >= OPEN_MAX;
            if parcel.outdone >= OUTDONE_MAX || (is_blocking && parcel.tries >= BLOCKING_TRIES_MAX) {
                let (number, tries) = (parcel.number, parcel.tries);
                self.reach.note(format!("number {number} is given up after {tries} tries: {error}"), wall());
                self.give_up(&parcel, error);
                continue;
            }
            let tries = if is_grouped { most_tries } else { parcel.tries };
            let not_before = now + self.config.backoff.after(tries, chance);
            self.queue.again(parcel, not_before);
        }
    }

    /// It will never be taken.
    fn give_up(&mut self, parcel: &Parcel, error: &str) {
        self.counters.refused += 1;
        self.status.lock().give_up(self.ledger.epoch, parcel.number, error);
        tracing::error!(
            receiver = %self.config.name, delivery_seq = parcel.number, tries = parcel.tries, error,
            "the receiver never takes a notification; it is given up"
        );
        if let (Some(groups), What::Alarm { how, alarm, .. }) = (&mut self.groups, &parcel.what)
            && !how.stands()
        {
            groups.forget(alarm.id);
        }
        self.settle(parcel);
    }

    fn refused(&mut self, batch: Vec<Parcel>, error: &str) {
        let now = Instant::now();
        self.reached();
        self.reach.note(format!("refused: {error}"), wall());
        let is_one = batch.len() == 1;
        for mut parcel in batch.into_iter().filter(|parcel| !matches!(parcel.what, What::Heartbeat { .. })) {
            parcel.tries = parcel.tries.saturating_add(1);
            if !is_one {
                parcel.alone = true;
                self.queue.again(parcel, now);
                continue;
            }
            parcel.refusals += 1;
            if parcel.refusals < REFUSALS_MAX {
                let not_before = now + self.config.backoff.after(parcel.refusals, chance());
                self.queue.again(parcel, not_before);
                continue;
            }
            self.give_up(&parcel, error);
        }
    }

    fn look_after_alarm(&mut self, now: Instant) {
        if self.reach.alarm_at(self.config.unreachable_after).is_some_and(|at| at <= now) {
            self.reach.unreachable(wall());
            self.alarm.want(true);
        }
        let words = || {
            let after = self.config.unreachable_after.as_secs();
            let error = self.reach.last_error.as_ref().map_or("it does not say why", |(error, _)| error.as_str());
            let (kind, target) = (self.config.sink.kind(), self.config.sink.target());
            format!("The receiver {} ({kind} to {target}) was not reached for {after} seconds: {error}", self.config.name)
        };
        self.alarm.report(&self.door, &self.site, &self.config.name, words, now);
    }

    /// When something is to be done by itself. What is due already waits for something else to end.
    fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        if self.again.is_some() {
            self.read_on_again();
        }
        let rate = self.rate.as_ref().filter(|_| self.queue.waiting() > 0).map(Rate::next);
        let passed_over = self.planner.passed_over().filter(|reached| self.is_worth_keeping(*reached));
        let times = [
            self.reach.not_before(),
            self.reach.alarm_at(self.config.unreachable_after),
            self.queue.next_due(now),
            self.groups.as_ref().and_then(|groups| groups.next_due(now)),
            rate,
            self.heartbeat_at,
            self.keep_due,
            self.save_from,
            self.read_from,
            self.alarm.next(),
            passed_over.map(|_| self.saved_at + PASSED_OVER_WAIT),
        ];
        times.into_iter().flatten().filter(|at| *at > now).min()
    }

    fn show(&mut self) {
        let happened = self.planner.happened;
        (self.counters.folded, self.counters.folded_changes, self.counters.gaps) =
            (happened.folded, happened.folded_changes, happened.gaps);
        let mut shown = self.status.lock();
        shown.state = self.reach.state;
        shown.since = self.reach.since;
        if shown.last_error != self.reach.last_error {
            shown.last_error = self.reach.last_error.clone();
        }
        shown.last_reached = self.reach.last_reached;
        shown.epoch = self.ledger.epoch;
        (shown.assigned, shown.confirmed, shown.oldest_kept) =
            (self.ledger.assigned, self.ledger.confirmed, self.ledger.oldest());
        shown.told = self.planner.told_len() as u64;
        shown.realigning = self.planner.reached().realign.is_some() || self.saved.realign.is_some();
        (shown.read_seq, shown.read_mirrored) = (self.planner.reached().seq, self.planner.reached().mirrored);
        shown.to_tell = (self.planner.planned() + self.open_since.len()) as u64;
        shown.oldest_at = self.open_since.first_key_value().map(|(_, at)| *at);
        shown.counters = self.counters;
    }

    /// Waits a little for what is on its way, and keeps what was settled.
    async fn finish(mut self) {
        let until = tokio::time::Instant::now() + STOP_WAIT;
        while let Ok(Some(outcome)) = tokio::time::timeout_at(until, self.flight.join_next_with_id()).await {
            self.landed(outcome);
        }
        if self.save.is_some() {
            let Ok(outcome) = tokio::time::timeout_at(until, of(&mut self.save)).await else { return };
            self.kept(outcome, Instant::now());
        }
        if self.saving.is_none() {
            let reached = if self.planner.planned() == 0 { self.planner.passed_over() } else { None };
            let reached = reached.unwrap_or(self.saved);
            if self.keep_due.is_some() || reached != self.saved {
                self.saving = Some(self.step(Vec::new(), reached));
            }
        }
        if self.saving.is_some() {
            self.submit();
            // If it cannot be kept, what was confirmed just now is sent once more after the start.
            let _ = tokio::time::timeout_at(until, of(&mut self.save)).await;
        }
        self.show();
    }
}

async fn submit(door: &Door, keep: Arc<Keep>) -> SaveOutcome {
    door.submit(vec![Item::Keep(keep)], &Lane::default()).await?.outcome().await
}

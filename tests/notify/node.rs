//! A store with the loop that fills it and receivers that follow it, and a world of sinks that remember what reached them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use klaxon::follow::{Control, Follow, FollowError, FollowStatus, Parts};
use klaxon_api::notify::webhook::{Secret, Word};
use klaxon_api::notify::{
    Backoff, Delivered, How, Notification, ReceiverConfig, ReceiverShown, Receivers, SendError, Sink, SinkConfig, SinkLimits,
    Start, WebhookConfig, What,
};
use klaxon_schemas::action::{Action, AlarmVerb, Target, Verb};
use klaxon_schemas::alarm::{Alarm, ChangeNumber};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::ids::{ActionId, AlarmId, Epoch};
use klaxon_schemas::names::{AlarmType, Follower, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::Settings;
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{self, Item, Publisher};
use klaxon_store::{Store, StoreConfig};
use tokio::runtime::Runtime;

/// How long a test waits for a state before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a delivery.
pub(crate) enum Mode {
    /// It is confirmed.
    Up,
    /// Nobody is there.
    Down,
    /// It is received, and no answer comes back.
    Hang,
    /// It is received and the confirmation lost, not received at all, or late, as the numbers fall.
    Chaos(u64),
    /// Nobody is there, and for log events there are no words.
    Wordless,
    /// What the function says is refused for good.
    Refuse(fn(&Notification) -> bool),
    /// What the function says is answered as if the receiver were broken; everything else is confirmed.
    Choke(fn(&Notification) -> bool),
}

/// Where the notifications of one receiver arrive.
pub(crate) struct Wire {
    /// In the order of arrival, with repeats.
    pub(crate) arrived: Vec<Notification>,
    /// What was confirmed.
    pub(crate) confirmed: BTreeSet<(Epoch, u64)>,
    pub(crate) heartbeats: u64,
    /// How many there were no words for.
    pub(crate) wordless: usize,
    pub(crate) mode: Mode,
    pub(crate) limits: SinkLimits,
    /// So often the receiver's task panics when it starts.
    pub(crate) panics: u32,
}

/// All wires, by the receiver's name. They outlive the node.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<HashMap<String, Wire>>>);

impl World {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Wire>> {
        self.0.lock().expect("nobody panics while holding it")
    }

    pub(crate) fn on<T>(&self, name: &str, work: impl FnOnce(&mut Wire) -> T) -> T {
        // One at a time, so that a test can tell in which order alarms are told.
        let limits = SinkLimits { window: 1, batch_max: 1 };
        let wire = || Wire {
            arrived: Vec::new(),
            confirmed: BTreeSet::new(),
            heartbeats: 0,
            wordless: 0,
            mode: Mode::Up,
            limits,
            panics: 0,
        };
        work(self.lock().entry(name.to_owned()).or_insert_with(wire))
    }

    pub(crate) fn set(&self, name: &str, mode: Mode) {
        self.on(name, |wire| wire.mode = mode);
    }

    pub(crate) fn arrived(&self, name: &str) -> Vec<Notification> {
        self.on(name, |wire| wire.arrived.clone())
    }

    /// What arrived, each once, in few words: `raised major disk.full`.
    pub(crate) fn told(&self, name: &str) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let arrived = self.arrived(name);
        let first = arrived.iter().filter(|one| seen.insert((one.epoch, one.delivery_seq)));
        first.map(|one| words(&one.what)).collect()
    }
}

pub(crate) fn words(what: &What) -> String {
    match what {
        What::Alarm { how, alarm, .. } => format!("{} {} {}", how.as_str(), alarm.severity, alarm.key.resource),
        What::Log { .. } => "log".to_owned(),
        What::Digest(digest) => format!("digest {} {}", digest.changes, digest.came_and_went),
        What::Gap(gap) => format!("gap {:?}", gap.reason).to_lowercase(),
        What::Heartbeat { last } => format!("heartbeat {last}"),
    }
}

struct Recorder {
    name: String,
    world: World,
    /// Another one after each start, so that a schedule is not repeated.
    dice: Mutex<u64>,
}

impl Recorder {
    fn roll(&self) -> u64 {
        let mut dice = self.dice.lock().expect("nobody panics while holding it");
        *dice = mix(*dice);
        *dice
    }
}

/// The next of a sequence of numbers without a pattern (SplitMix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

enum Fate {
    Confirm,
    Lose,
    Keep,
    Never,
    Refuse,
    Nothing,
}

impl Sink for Recorder {
    fn limits(&self) -> SinkLimits {
        let (limits, panics) = self.world.on(&self.name, |wire| {
            let panics = wire.panics;
            wire.panics = panics.saturating_sub(1);
            (wire.limits, panics > 0)
        });
        assert!(!panics, "a sink that breaks");
        limits
    }

    fn send(&self, batch: Vec<Notification>) -> Pin<Box<dyn Future<Output = Result<Delivered, SendError>> + Send + '_>> {
        Box::pin(async move {
            let roll = self.roll();
            let late = self.world.on(&self.name, |wire| matches!(wire.mode, Mode::Chaos(_)));
            if late {
                tokio::time::sleep(Duration::from_micros(roll % 3_000)).await;
            }
            let fate = self.world.on(&self.name, |wire| {
                let fate = match wire.mode {
                    Mode::Up => Fate::Confirm,
                    Mode::Wordless if batch.iter().all(|one| matches!(one.what, What::Log { .. })) => Fate::Nothing,
                    Mode::Down | Mode::Wordless => Fate::Lose,
                    Mode::Hang => Fate::Never,
                    Mode::Chaos(seed) => match (mix(seed ^ roll)) % 10 {
                        0 | 1 => Fate::Lose,
                        2 => Fate::Keep,
                        _ => Fate::Confirm,
                    },
                    Mode::Refuse(refused) if batch.iter().any(refused) => Fate::Refuse,
                    Mode::Choke(choking) if batch.iter().any(choking) => Fate::Lose,
                    Mode::Refuse(_) | Mode::Choke(_) => Fate::Confirm,
                };
                if matches!(fate, Fate::Confirm) {
                    wire.confirmed.extend(
                        batch
                            .iter()
                            .filter(|one| !matches!(one.what, What::Heartbeat { .. }))
                            .map(|one| (one.epoch, one.delivery_seq)),
                    );
                }
                if matches!(fate, Fate::Nothing) {
                    wire.wordless += batch.len();
                }
                if !matches!(fate, Fate::Lose | Fate::Refuse | Fate::Nothing) {
                    for one in batch {
                        match one.what {
                            What::Heartbeat { .. } => wire.heartbeats += 1,
                            _ => wire.arrived.push(one),
                        }
                    }
                }
                fate
            });
            match fate {
                Fate::Confirm => Ok(Delivered::Confirmed),
                Fate::Nothing => Ok(Delivered::Nothing),
                Fate::Lose => Err(SendError::Unreachable("nobody is there".to_owned())),
                Fate::Keep => Err(SendError::Unreachable("no answer".to_owned())),
                Fate::Refuse => Err(SendError::Refused("not that".to_owned())),
                Fate::Never => std::future::pending().await,
            }
        })
    }
}

/// A receiver that is quick to try again.
pub(crate) fn receiver(name: &str) -> ReceiverConfig {
    let sink = SinkConfig::Webhook(Box::new(WebhookConfig::new(Word::Said(Secret("http://test.invalid/".to_owned())))));
    ReceiverConfig {
        backoff: Backoff { min: Duration::from_millis(5), max: Duration::from_millis(40) },
        fold_after: None,
        start: Start::Active,
        ..ReceiverConfig::new(name.parse().expect("valid"), sink)
    }
}

/// The part of a node that tells.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) receivers: Receivers,
    pub(crate) control: mpsc::Sender<Control>,
    publisher: Publisher,
    door: Door,
    follow: Option<JoinHandle<Result<(), FollowError>>>,
    runtime: Option<Runtime>,
    actions: std::cell::Cell<u64>,
}

pub(crate) fn site() -> Site {
    Site::new("plant").expect("valid")
}

impl Node {
    pub(crate) fn open(dir: &Path, world: &World) -> Self {
        Self::open_with(StoreConfig { segment_bytes: 256 * 1024, ..StoreConfig::new(PathBuf::from(dir)) }, world)
    }

    pub(crate) fn open_with(config: StoreConfig, world: &World) -> Self {
        let (store, writer, report) = Store::open(StoreConfig { free_space_watermark_bytes: 0, ..config }).expect("opens");
        let (publisher, intake) = publish::queue();
        let (control, asked) = mpsc::channel();
        let status = Arc::<FollowStatus>::default();
        let parts =
            Parts { site: site(), is_agent: false, store: store.clone(), writer, report, intake, control: asked, status };
        let follow = Follow::start(parts, Settings::default(), Arc::new(Catalogue::built_in())).expect("starts");
        let follow = std::thread::spawn(move || follow.run());
        let door = |name: &str| Door::new(name.parse().expect("a word"), publisher.clone(), store.clone());
        let sinks = world.clone();
        let build = move |config: &ReceiverConfig| {
            let (name, world) = (config.name.to_string(), sinks.clone());
            let dice = Mutex::new(mix(Instant::now().elapsed().subsec_nanos().into()));
            Ok(Arc::new(Recorder { name, world, dice }) as Arc<dyn Sink>)
        };
        let receivers = Receivers::new(door("node"), site(), Box::new(build));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds");
        let first_action = store.read().position().0;
        Self {
            receivers,
            control,
            door: door("test"),
            publisher,
            follow: Some(follow),
            runtime: Some(runtime),
            actions: std::cell::Cell::new(first_action),
            store,
        }
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("only closing takes it").block_on(work)
    }

    pub(crate) fn apply(&self, configs: impl IntoIterator<Item = ReceiverConfig>) {
        self.block_on(self.receivers.apply(configs.into_iter().collect()));
    }

    /// Ends in good order.
    pub(crate) fn close(mut self) {
        self.block_on(self.receivers.stop());
        self.end();
    }

    /// Ends as if killed: what is not in the journal is lost.
    pub(crate) fn crash(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        self.publisher.close();
        if let Some(follow) = self.follow.take() {
            follow.join().expect("does not panic").expect("closes");
        }
    }

    pub(crate) fn publish(&self, items: Vec<Item>) {
        self.block_on(self.door.publish(items, Tally::default())).expect("is taken");
    }

    pub(crate) fn raise(&self, resource: &str, severity: Severity) {
        self.publish(vec![report(resource, Report::Raise(severity))]);
    }

    pub(crate) fn clear(&self, resource: &str) {
        self.publish(vec![report(resource, Report::Clear)]);
    }

    pub(crate) fn act(&self, verb: Verb) {
        self.actions.set(self.actions.get() + 1);
        let id: ActionId =
            serde_json::from_str(&format!("\"00000000-0000-4000-8000-{:012x}\"", self.actions.get())).expect("is one");
        let action = Action { id, actor: "op".parse().expect("valid"), from: None, ordered_at: None, expires_at: None, verb };
        self.publish(vec![Item::Action(Arc::new(action))]);
    }

    pub(crate) fn on(&self, resource: &str, verb: AlarmVerb) {
        if let Some(alarm) = self.alarm(resource) {
            self.act(Verb::OnAlarms(vec![Target { id: alarm.id, raise_seq: None }], verb));
        }
    }

    pub(crate) fn alarm(&self, resource: &str) -> Option<Arc<Alarm>> {
        self.store.read().alarms().find(|alarm| alarm.key.resource.as_str() == resource).cloned()
    }

    pub(crate) fn shown(&self, name: &str) -> ReceiverShown {
        self.receivers.get(&Follower::new(name).expect("valid")).expect("is there")
    }

    /// Waits until it holds.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "{what}: {:#?}", self.receivers.list());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the receiver has been told everything and confirmed it.
    pub(crate) fn quiet(&self, name: &str) {
        self.wait(&format!("{name} is told all"), || {
            let shown = self.shown(name);
            let is_read = shown.epoch == self.store.epoch();
            is_read && shown.lag_changes == 0 && shown.assigned == shown.confirmed && !shown.realigning
        });
    }

    /// What stands and passes, with its severity.
    pub(crate) fn standing(&self, config: &ReceiverConfig) -> BTreeMap<AlarmId, Severity> {
        let state = self.store.read();
        let passes = |alarm: &&Arc<Alarm>| config.filter.passes(alarm, state.is_suppressed(&alarm.key.alarm_type));
        state.alarms().filter(passes).map(|alarm| (alarm.id, alarm.severity)).collect()
    }
}

pub(crate) fn key(resource: &str) -> AlarmKey {
    let kind = resource.rsplit('=').next().and_then(|last| last.chars().next()).unwrap_or('a');
    AlarmKey {
        site: site(),
        resource: Resource::new(resource).expect("valid"),
        alarm_type: AlarmType::new(&format!("test.{kind}")).expect("valid"),
        qualifier: "".parse().expect("valid"),
    }
}

pub(crate) fn report(resource: &str, report: Report) -> Item {
    Item::Event(Arc::new(Event::new(key(resource), report, Text::new("it happened").expect("valid"))))
}

pub(crate) fn in_an_hour() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::default().saturating_add_micros((since.as_micros() + 3_600_000_000) as i64)
}

/// What a receiver believes to stand, after what arrived: each number once, as it first came. Checks on the way that a number
/// never meant two things, that none is missing, and that the numbers about one alarm came in order.
pub(crate) fn picture(arrived: &[Notification]) -> BTreeMap<AlarmId, Severity> {
    let mut meant: BTreeMap<(Epoch, u64), String> = BTreeMap::new();
    let mut last: HashMap<AlarmId, (Epoch, u64)> = HashMap::new();
    let mut shown: HashMap<AlarmId, ChangeNumber> = HashMap::new();
    let mut stands = BTreeMap::new();
    for one in arrived {
        let number = (one.epoch, one.delivery_seq);
        let meaning = match &one.what {
            What::Alarm { alarm, how, .. } => format!("{how:?} {} {:?} {:?}", alarm.id, alarm.severity, alarm.last_change),
            other => format!("{other:?}"),
        };
        if let Some(before) = meant.get(&number) {
            assert_eq!(*before, meaning, "number {number:?} means two things");
            continue;
        }
        meant.insert(number, meaning.clone());
        if let What::Alarm { alarm, how, .. } = &one.what {
            let before = last.insert(alarm.id, number);
            assert!(before < Some(number), "{number:?} came behind {before:?}");
            let before = shown.insert(alarm.id, alarm.last_change);
            assert!(before <= Some(alarm.last_change), "{number:?} says what was, {before:?} was told: {meaning}");
            match how {
                How::Raised | How::Changed => stands.insert(alarm.id, alarm.severity),
                How::Left | How::Cleared | How::Retired => stands.remove(&alarm.id),
            };
        }
    }
    let mut by_epoch: BTreeMap<Epoch, u64> = BTreeMap::new();
    for (epoch, number) in meant.keys() {
        let last = by_epoch.entry(*epoch).or_default();
        assert_eq!(*number, *last + 1, "a number is missing in epoch {epoch}");
        *last = *number;
    }
    stands
}

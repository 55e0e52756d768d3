//! Nodes above and below each other in one process: stores, the loops that fill them, and both ends of the uplinks as they are in
//! a node.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use klaxon::follow::{Follow, FollowError, FollowStatus, Parts};
use klaxon::uplink::{Backoff, Kept, Plan, Token, Uplink, UplinkNeeds};
use klaxon_api::http::{Api, HttpConfig, Listening, Parts as ApiParts, Serves, Trust, serve};
use klaxon_api::notify::webhook::{Secret, Word};
use klaxon_api::notify::{
    Backoff as Pauses, Delivered, Notification, ReceiverConfig, Receivers, SendError, Sink, SinkConfig, SinkLimits, Start,
    WebhookConfig,
};
use klaxon_api::uplink::{SitesConfig, Uplinks, new_token};
use klaxon_ingest::own::OwnAlarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::Change;
use klaxon_schemas::child::{Child, ChildEvent, ChildFact, ChildKind, Join};
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::names::{ChildName, Site};
use klaxon_schemas::state::{Settings, StateKey, StateRecord};
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{self, Item, PublishError, Published, Publisher};
use klaxon_store::{HistoryQuery, Order, Store, StoreConfig};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What reached the one who is told. It outlives the node.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    all: Vec<Notification>,
    numbers: BTreeSet<(Epoch, u64)>,
}

impl Told {
    /// Each once, as it first came.
    pub(crate) fn all(&self) -> Vec<Notification> {
        self.look(<[_]>::to_vec)
    }

    /// The same, without a copy.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&[Notification]) -> T) -> T {
        at(&self.0.lock().expect("nobody panics while holding it").all)
    }

    fn hear(&self, batch: Vec<Notification>) {
        let mut heard = self.0.lock().expect("nobody panics while holding it");
        for one in batch {
            if heard.numbers.insert((one.epoch, one.delivery_seq)) {
                heard.all.push(one);
            }
        }
    }
}

struct Recorder(Told);

impl Sink for Recorder {
    fn limits(&self) -> SinkLimits {
        SinkLimits { window: 16, batch_max: 8 }
    }

    fn send(&self, batch: Vec<Notification>) -> Pin<Box<dyn Future<Output = Result<Delivered, SendError>> + Send + '_>> {
        self.0.hear(batch);
        Box::pin(std::future::ready(Ok(Delivered::Confirmed)))
    }
}

/// How a node is to be.
pub(crate) struct Design<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) site: &'a str,
    pub(crate) kind: ChildKind,
    /// Where the node above is, and with what it is joined the first time.
    pub(crate) above: Option<(SocketAddr, &'a str)>,
    /// Who is told.
    pub(crate) told: Option<&'a Told>,
    /// How much history it keeps.
    pub(crate) history_max_bytes: u64,
    /// How often its keeper looks.
    pub(crate) keep_every: Duration,
    /// What its threads are called: by that they have a wall clock of their own.
    pub(crate) threads: &'a str,
}

/// A node.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) uplinks: Uplinks,
    pub(crate) receivers: Option<Receivers>,
    door: Door,
    publisher: Publisher,
    stop: CancellationToken,
    follow: JoinHandle<Result<(), FollowError>>,
    runtime: Runtime,
}

fn site(name: &str) -> Site {
    Site::new(name).expect("valid")
}

pub(crate) fn child_name(name: &str) -> ChildName {
    ChildName::new(name).expect("valid")
}

impl Node {
    pub(crate) fn open(design: &Design<'_>) -> Self {
        let mut config = StoreConfig::new(design.dir);
        (config.segment_bytes, config.free_space_watermark_bytes) = (64 * 1024, 0);
        config.keep_every = design.keep_every;
        config.retention.history_max_bytes = design.history_max_bytes;
        let (store, writer, report) = Store::open(config).expect("opens");
        let (publisher, intake) = publish::queue();
        let (control, asked) = mpsc::channel();
        let status = Arc::<FollowStatus>::default();
        let parts = Parts {
            site: site(design.site),
            store: store.clone(),
            writer,
            report,
            intake,
            control: asked,
            status,
            is_agent: false,
        };
        let follow = Follow::start(parts, Settings::default(), Arc::new(Catalogue::built_in())).expect("starts");
        let named = std::thread::Builder::new().name(design.threads.to_owned());
        let follow = named.spawn(move || follow.run()).expect("a thread is left");
        let door = |name: &str| Door::new(name.parse().expect("a word"), publisher.clone(), store.clone());
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name(design.threads).enable_all().build().expect("builds");
        let stop = CancellationToken::new();
        let sites =
            SitesConfig { heartbeat: Duration::from_secs(1), silent_after: Duration::from_secs(2), ..SitesConfig::default() };
        let uplinks = Uplinks::new(sites, door("uplink"), site(design.site), None, stop.clone());
        let receivers = design.told.map(|told| receivers(door("node"), design.site, told));
        let parts = ApiParts {
            door: door("http"),
            own: door("node"),
            other_doors: Vec::new(),
            site: site(design.site),
            stop: stop.clone(),
            collectors: None,
            receivers: receivers.clone(),
            uplink: None,
            uplinks: uplinks.clone(),
            more_metrics: None,
        };
        let api = Api::new(HttpConfig::default(), parts).expect("is built");
        let address = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            let address = listener.local_addr().expect("is bound");
            api.started();
            let tls = None;
            tokio::spawn(serve(
                Listening { name: "http".to_owned(), tcp: listener, trust: Trust::Local, tls, serves: Serves::Everything },
                api,
            ));
            tokio::spawn(uplinks.clone().run());
            if let Some(receivers) = &receivers {
                receivers.apply(vec![receiver()]).await;
            }
            address
        });
        if let Some((above, token)) = design.above {
            let url: klaxon::uplink::Address = format!("http://{above}").parse().expect("is an address");
            // As `klaxon join` leaves it.
            if Kept::read(design.dir).expect("is read").is_none() {
                Kept::joining(url.clone(), Some(url.clone()), Some(Token(token.to_owned())))
                    .write(design.dir)
                    .expect("is written");
            }
            let plan = Plan {
                configured: Some(url),
                kind: design.kind,
                backoff: Backoff { min: Duration::from_millis(5), max: Duration::from_millis(40) },
                down_after: Duration::from_secs(3600),
                ..Plan::default()
            };
            let needs = UplinkNeeds {
                door: door("uplink"),
                site: site(design.site),
                control,
                dir: design.dir.to_owned(),
                stop: stop.clone(),
            };
            let (uplink, _) = Uplink::new(plan, needs);
            runtime.spawn(uplink.run(OwnAlarm::new(door("node"), site(design.site), "klaxon.uplink.down")));
        }
        Self { address, uplinks, receivers, door: door("test"), publisher, stop, follow, runtime, store }
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Ends in good order.
    pub(crate) fn close(mut self) {
        self.stop.cancel();
        if let Some(receivers) = self.receivers.take() {
            self.block_on(receivers.stop());
        }
        self.end();
    }

    /// Ends as if killed: what is not in the journal is lost.
    pub(crate) fn crash(self) {
        self.end();
    }

    fn end(self) {
        let Self { runtime, publisher, follow, door, uplinks, receivers, .. } = self;
        // What blocks in it reads, and may go on for a moment.
        runtime.shutdown_timeout(Duration::from_millis(50));
        publisher.close();
        // With the last that could bring something in, the loop ends.
        drop((publisher, door, uplinks, receivers));
        follow.join().expect("does not panic").expect("closes");
    }

    pub(crate) fn publish(&self, items: Vec<Item>) -> Result<Published, PublishError> {
        self.block_on(self.door.publish(items, Tally::default()))
    }

    /// Enrols a node below; its join token.
    pub(crate) fn enrol(&self, name: &str, kind: ChildKind) -> String {
        let token = new_token();
        let expires_at = now().saturating_add_micros(3_600_000_000);
        let join = Some(Join { hash: token.hash.clone(), expires_at });
        let what = ChildEvent::Enrolled { kind, join, needs_approval: false };
        let fact = ChildFact { child: child_name(name), actor: Some("test".parse().expect("valid")), what };
        self.block_on(self.uplinks.tell(vec![fact])).expect("is taken");
        token.text
    }

    pub(crate) fn child(&self, name: &str) -> Option<Arc<Child>> {
        match self.store.read().record(&StateKey::Child(child_name(name)))? {
            StateRecord::Child(child) => Some(Arc::clone(child)),
            _ => None,
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.store.read().records().filter(|(key, _)| matches!(key, StateKey::Pending(..))).count()
    }

    /// Where the last change stands.
    pub(crate) fn last_change(&self) -> Position {
        let query = HistoryQuery { order: Order::Descending, limit: 1, ..HistoryQuery::default() };
        let page = self.store.history(&query).expect("is read");
        page.items.first().map_or(Position::default(), |(position, _)| *position)
    }

    /// The whole history, as it came in.
    pub(crate) fn history(&self) -> Vec<Change> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let query = HistoryQuery { order: Order::Ascending, cursor, limit: 1000, ..HistoryQuery::default() };
            let page = self.store.history(&query).expect("is read");
            all.extend(page.items.into_iter().map(|(_, change)| change));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return all,
            }
        }
    }
}

fn receiver() -> ReceiverConfig {
    let sink = SinkConfig::Webhook(Box::new(WebhookConfig::new(Word::Said(Secret("http://test.invalid/".to_owned())))));
    ReceiverConfig {
        backoff: Pauses { min: Duration::from_millis(5), max: Duration::from_millis(40) },
        fold_after: None,
        start: Start::Active,
        ..ReceiverConfig::new("noc".parse().expect("valid"), sink)
    }
}

fn receivers(door: Door, name: &str, told: &Told) -> Receivers {
    let told = told.clone();
    let build = move |_: &ReceiverConfig| Ok(Arc::new(Recorder(told.clone())) as Arc<dyn Sink>);
    Receivers::new(door, site(name), Box::new(build))
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::default().saturating_add_micros(i64::try_from(since.as_micros()).expect("fits"))
}

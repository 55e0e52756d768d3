//! The trap receiver: SNMP notifications of versions 1, 2c and 3 as events.
//!
//! ```text
//! kernel ─▶ socket: a thread empties it ─▶ queue ─▶ a thread decodes and maps ─▶ deliver: batches, several on their way
//!   drops ─▶ loss: klaxon.trap-loss                                                │             to the journal, in order
//! device ◀──────────────── the response to an inform ◀──── durable ◀───────────────┘
//! ```
//!
//! An inform is acknowledged when it is durable and not before; its sender tries again meanwhile, and a second delivery is
//! recognised. What the journal refuses is held, traps and informs in their order, until it is taken: then the queue fills, then
//! the kernel's buffer, and what the kernel drops is counted and told of. A node that stops tries for ten seconds more.
//!
//! Where the address cannot be had, because another program has it or the host does not, the node works without traps:
//! `klaxon.traps-unavailable` stands raised, and every ten seconds it is tried again.

mod deliver;
pub mod devices;
pub mod explain;
mod flood;
mod inform;
mod loss;
mod map;
pub mod mapping;
mod socket;
mod sources;
#[cfg(test)]
mod tests;
mod v3;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::names::Site;
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{EngineHome, Inbound, Users, Version};
use klaxon_store::door::Door;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metric::Metric;
use crate::own::OwnAlarm;

use deliver::{Deliver, Reader, STOP_MAX};
use devices::Devices;
use flood::Flood;
use inform::Informs;
use loss::{Loss, Standing};
use map::Mapper;
use mapping::Mappings;
use socket::{Queue, TrapSocket};
use sources::{Dropped, Sources};
use v3::V3Counts;

pub use sources::SourceLimit;

/// The kernel dropped datagrams.
const TRAP_LOSS: &str = "klaxon.trap-loss";
/// A source sends more than it may.
const TRAP_FLOOD: &str = "klaxon.trap-flood";
/// The address cannot be had.
const TRAPS_UNAVAILABLE: &str = "klaxon.traps-unavailable";

/// The most datagrams that wait to be read, whatever is configured.
pub const QUEUE_MAX: usize = 1 << 20;
/// How many batches of events wait behind those that are on their way to the journal.
const BATCHES_WAITING: usize = 1;
/// How often it is tried to have the address, while another program has it or the host does not.
const BIND_EVERY: Duration = Duration::from_secs(10);
/// How often it is tried to start the SNMP engine, while its file cannot be written.
const IDENTIFY_EVERY: Duration = Duration::from_secs(10);
/// How long it is until what stands and is over is cleared again, after the journal did not take that.
const CLEAR_EVERY: Duration = Duration::from_secs(2);
/// How long telling may take what was lost until the end.
const LAST_LOOK_MAX: Duration = Duration::from_secs(2);

/// How traps are received.
#[derive(Clone, PartialEq, Eq)]
pub struct TrapConfig {
    /// Where UDP is listened on.
    pub listen: SocketAddr,
    /// The receive buffer that the kernel is asked for, and the bytes that may wait in the queue behind it.
    pub receive_buffer_bytes: usize,
    /// The versions of SNMP that are taken.
    pub versions: Vec<Version>,
    /// The communities that are taken; any, if there are none. A secret: neither logged nor kept.
    pub communities: Vec<String>,
    /// What may change while it runs.
    pub rules: TrapRules,
    /// The most datagrams that wait to be read.
    pub queue_max: usize,
}

/// What traps become, and how many are taken of each source. This may change while the receiver runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrapRules {
    /// The sites and names of devices. Others are of the node's own site.
    pub devices: Devices,
    /// What traps become.
    pub mappings: Mappings,
    /// How much each source may send.
    pub source_limit: SourceLimit,
}

/// Gives a receiver other rules while it runs. Cloning shares it.
#[derive(Debug, Clone)]
pub struct TrapControl(Arc<RwLock<Arc<TrapRules>>>);

impl TrapControl {
    fn new(rules: TrapRules) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(rules))))
    }

    /// From the next batch of datagrams on; none is lost over it.
    pub fn set(&self, rules: TrapRules) {
        *self.0.write().expect("nobody panics with it") = Arc::new(rules);
    }

    /// Those in force.
    pub fn rules(&self) -> Arc<TrapRules> {
        Arc::clone(&self.0.read().expect("nobody panics with it"))
    }
}

impl Default for TrapConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1162)),
            receive_buffer_bytes: 64 << 20,
            versions: Version::ALL.into(),
            communities: Vec::new(),
            rules: TrapRules::default(),
            queue_max: 131_072,
        }
    }
}

impl std::fmt::Debug for TrapConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { listen, receive_buffer_bytes, versions, communities, rules, queue_max } = self;
        f.debug_struct("TrapConfig")
            .field("listen", listen)
            .field("receive_buffer_bytes", receive_buffer_bytes)
            .field("versions", versions)
            .field("communities", &communities.len())
            .field("rules", rules)
            .field("queue_max", queue_max)
            .finish()
    }
}

/// Why traps cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum TrapError {
    /// A thread cannot be started.
    #[error("cannot start a thread of the trap receiver")]
    Thread(#[source] std::io::Error),
}

/// What the receiver counts beside its door.
#[derive(Debug, Default)]
pub struct TrapCounts {
    datagrams: AtomicU64,
    version_1: AtomicU64,
    version_2c: AtomicU64,
    malformed: AtomicU64,
    other_version: AtomicU64,
    other_community: AtomicU64,
    no_notification: AtomicU64,
    informs: AtomicU64,
    answered: AtomicU64,
    unanswered: AtomicU64,
    held: AtomicU64,
    kernel_drops: AtomicU64,
    receive_buffer_bytes: AtomicU64,
    v3: V3Counts,
}

impl TrapCounts {
    /// All of them; the samples of one metric stand together.
    pub fn rows(&self) -> Vec<Metric> {
        let refused = "Datagrams to the trap port that are no notification which is taken.";
        let notifications = "Traps and informs that could be read.";
        let row = |name, help, is_counter, label, value: &AtomicU64| Metric {
            name,
            help,
            is_counter,
            label,
            value: value.load(Ordering::Relaxed),
        };
        let name = "klaxon_trap_datagrams_received_total";
        let by_version = "klaxon_trap_notifications_total";
        let by_reason = "klaxon_trap_datagrams_rejected_total";
        let informs = "klaxon_trap_informs_total";
        let informs_help = "Informs that could be read, by whether they were answered; those that the journal rejected or that were lost are not.";
        let mut rows = vec![
            row(name, "Datagrams taken from the socket of the trap receiver.", true, None, &self.datagrams),
            row(by_version, notifications, true, Some(("version", "1")), &self.version_1),
            row(by_version, notifications, true, Some(("version", "2c")), &self.version_2c),
            row(by_version, notifications, true, Some(("version", "3")), &self.v3.notifications),
            row(by_reason, refused, true, Some(("reason", "malformed")), &self.malformed),
            row(by_reason, refused, true, Some(("reason", "version")), &self.other_version),
            row(by_reason, refused, true, Some(("reason", "community")), &self.other_community),
            row(by_reason, refused, true, Some(("reason", "no_notification")), &self.no_notification),
        ];
        rows.extend(self.v3.refused_rows(by_reason, refused));
        rows.extend([
            row("klaxon_trap_informs_received_total", "Informs that could be read.", true, None, &self.informs),
            row(informs, informs_help, true, Some(("answered", "yes")), &self.answered),
            row(informs, informs_help, true, Some(("answered", "no")), &self.unanswered),
            row(
                "klaxon_trap_traps_held_total",
                "How often a trap or inform that the journal refused was held back to be brought in again.",
                true,
                None,
                &self.held,
            ),
            row(
                "klaxon_trap_kernel_drops_total",
                "Datagrams that the kernel dropped because the receive buffer was full.",
                true,
                None,
                &self.kernel_drops,
            ),
            row(
                "klaxon_trap_receive_buffer_bytes",
                "Size of the socket's receive buffer, as far as the kernel granted what was asked.",
                false,
                None,
                &self.receive_buffer_bytes,
            ),
        ]);
        rows.extend(self.v3.rows());
        rows
    }
}

/// The ways in that the receiver has.
#[derive(Clone)]
pub struct TrapDoors {
    /// Of what devices send.
    pub traps: Door,
    /// Of what the receiver has to say itself: that something was lost.
    pub own: Door,
}

/// A receiver that does not receive yet. It counts from the beginning, whether it has its address or not.
#[derive(Debug)]
pub struct TrapReceiver {
    bound: Result<Bound, BindError>,
    config: TrapConfig,
    home: Arc<EngineHome>,
    inbound: Inbound,
    control: TrapControl,
    counts: Arc<TrapCounts>,
}

/// A socket that has its address.
#[derive(Debug)]
struct Bound {
    socket: TrapSocket,
    listen: SocketAddr,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for traps on {listen}")]
struct BindError {
    listen: SocketAddr,
    source: std::io::Error,
}

impl TrapReceiver {
    /// Takes the address if it can be had, and as much buffer as may be. If it cannot, [`TrapReceiver::run`] tells and tries again.
    /// Notifications of v3 are of `users`, who may change meanwhile; informs of v3 need the engine of `home`, whenever it starts.
    pub fn new(config: TrapConfig, home: Arc<EngineHome>, users: Users) -> Self {
        let inbound = Inbound::new(Arc::clone(&home), users).only(&config.versions);
        let counts = Arc::new(TrapCounts { v3: V3Counts::new(inbound.stats()), ..TrapCounts::default() });
        let bound = Bound::new(&config, &counts);
        if let Err(error) = &bound {
            tracing::warn!(
                listen = %error.listen, reason = %error.source, retry_s = BIND_EVERY.as_secs(),
                "no traps are received; free the address, set traps.listen to another one, or traps.enabled = false"
            );
        }
        let control = TrapControl::new(config.rules.clone());
        Self { bound, config, home, inbound, control, counts }
    }

    /// What gives it other rules while it runs.
    pub fn control(&self) -> TrapControl {
        self.control.clone()
    }

    /// Where it listens, if it has its address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.as_ref().ok().map(|bound| bound.listen)
    }

    /// What it counts.
    pub fn counts(&self) -> Arc<TrapCounts> {
        Arc::clone(&self.counts)
    }

    /// Receives until `stop`, then brings in what has come so far. `site` is that of devices in no configured network.
    pub async fn run(self, doors: TrapDoors, site: Site, stop: CancellationToken) -> Result<(), TrapError> {
        let Self { bound, config, home, inbound, control, counts } = self;
        let unavailable = OwnAlarm::new(doors.own.clone(), site.clone(), TRAPS_UNAVAILABLE);
        let bound = match bound {
            Ok(bound) => bound,
            Err(error) => tokio::select! {
                () = stop.cancelled() => return Ok(()),
                bound = bind_at_last(error, &config, &counts, &unavailable) => bound,
            },
        };
        let Bound { socket, listen } = bound;
        let socket = Arc::new(socket);
        let queue = Queue::new(config.queue_max.min(QUEUE_MAX), config.receive_buffer_bytes);
        let (batches, waiting) = tokio::sync::mpsc::channel(BATCHES_WAITING);
        let dropped = Arc::<Dropped>::default();
        let ruled = Ruled::new(control, site.clone(), Arc::clone(&dropped));
        let informs = Informs::default();
        let reader = Reader {
            inbound,
            socket: Arc::clone(&socket),
            ruled,
            informs,
            communities: config.communities,
            counts: Arc::clone(&counts),
            door: doors.traps.clone(),
        };
        let receiving = {
            let (socket, queue, counts) = (Arc::clone(&socket), Arc::clone(&queue), Arc::clone(&counts));
            thread("trap-receive", move || socket.receive(&queue, &counts))?
        };
        let reading = {
            let queue = Arc::clone(&queue);
            // The thread ends when the queue is closed, and whatever keeps the other from closing it, this does.
            thread("trap-read", move || reader.run(&queue, &batches)).inspect_err(|_| socket.wake())?
        };
        let flood = Flood { dropped, alarm: OwnAlarm::new(doors.own.clone(), site.clone(), TRAP_FLOOD) };
        let alarm = OwnAlarm::new(doors.own, site, TRAP_LOSS);
        let loss = Loss { socket: Arc::clone(&socket), counts: Arc::clone(&counts), alarm, listen };
        let mut standing = Standing::new(Instant::now());
        let deliver =
            Deliver { door: doors.traps, socket: Arc::clone(&socket), counts, stop: stop.clone(), stop_max: STOP_MAX };
        let waker = Arc::clone(&socket);
        let until_stopped = async {
            stop.cancelled().await;
            waker.wake();
        };
        let over = clear(&unavailable, "Traps are received.");
        tokio::select! {
            () = deliver.run(waiting) => {}
            () = async {
                tokio::join!(until_stopped, over, identify(&home), flood.run(&stop), loss.run(&mut standing, &stop));
                std::future::pending::<()>().await;
            } => {}
        }
        queue.close();
        socket.wake();
        // Both have ended, or do within a moment.
        let joined = tokio::task::spawn_blocking(move || (receiving.join(), reading.join())).await;
        if !matches!(joined, Ok((Ok(()), Ok(())))) {
            tracing::error!("a thread of the trap receiver broke");
        }
        // What the kernel dropped while the node stopped is counted and told as well.
        let last = loss.look(&mut standing, Instant::now());
        if tokio::time::timeout(LAST_LOOK_MAX, last).await.is_err() {
            tracing::error!("the loss of traps could not be told before the node stopped");
        }
        Ok(())
    }
}

/// The rules as the thread that reads applies them.
pub(crate) struct Ruled {
    control: TrapControl,
    site: Site,
    rules: Arc<TrapRules>,
    mapper: Mapper,
    sources: Sources,
}

impl Ruled {
    fn new(control: TrapControl, site: Site, dropped: Arc<Dropped>) -> Self {
        let rules = control.rules();
        let mapper = Mapper::new(site.clone(), rules.devices.clone(), rules.mappings.clone());
        let sources = Sources::new(rules.source_limit, dropped);
        Self { control, site, rules, mapper, sources }
    }

    /// Takes up other rules, if there are some.
    fn refresh(&mut self) {
        let rules = self.control.rules();
        if Arc::ptr_eq(&rules, &self.rules) {
            return;
        }
        self.mapper = Mapper::new(self.site.clone(), rules.devices.clone(), rules.mappings.clone());
        self.sources.set(rules.source_limit);
        self.rules = rules;
    }
}

impl Bound {
    fn new(config: &TrapConfig, counts: &TrapCounts) -> Result<Self, BindError> {
        let asked = config.receive_buffer_bytes;
        let listen = config.listen;
        let bind = |source| BindError { listen, source };
        let socket = TrapSocket::bind(listen, asked).map_err(bind)?;
        let listen = socket.local_addr().map_err(bind)?;
        let granted = socket.buffer_bytes().map_err(bind)?;
        counts.receive_buffer_bytes.store(granted as u64, Ordering::Relaxed);
        if granted < asked {
            tracing::warn!(
                %listen, bytes = granted, asked,
                "the kernel grants a smaller receive buffer for traps than was asked for, and bursts may be lost; \
                 run sysctl -w net.core.rmem_max={asked}, or give the node CAP_NET_ADMIN"
            );
        } else {
            tracing::info!(%listen, bytes = granted, "traps are received");
        }
        Ok(Self { socket, listen })
    }
}

/// Tries to bind until it can be done. Meanwhile it stands raised that it cannot, and why; who clears that is told again.
async fn bind_at_last(mut error: BindError, config: &TrapConfig, counts: &TrapCounts, alarm: &OwnAlarm) -> Bound {
    let mut told = String::new();
    loop {
        let BindError { listen, source } = &error;
        let text = format!(
            "No SNMP traps are received: UDP {listen} cannot be listened on: {source}. It is tried again every {} seconds.",
            BIND_EVERY.as_secs()
        );
        if (told != text || alarm.standing().is_none()) && alarm.tell(Report::Raise(Severity::Major), &text).await {
            told = text;
        }
        tokio::time::sleep(BIND_EVERY).await;
        match Bound::new(config, counts) {
            Ok(bound) => return bound,
            Err(again) => error = again,
        }
    }
}

/// Starts the engine as soon as it can be kept: the disk may have been full when the node started, and nobody else may need it.
async fn identify(home: &Arc<EngineHome>) {
    while home.started().is_none() {
        tokio::time::sleep(IDENTIFY_EVERY).await;
        let starting = Arc::clone(home);
        match tokio::task::spawn_blocking(move || starting.engine()).await {
            Ok(Ok(engine)) => tracing::info!(engine_boots = engine.boots(), "the node is an SNMP engine at last"),
            Ok(Err(error)) => tracing::debug!(%error, "the node is no SNMP engine yet"),
            Err(error) => tracing::error!(%error, "the start of the SNMP engine broke"),
        }
    }
}

/// Where no traps are to be received: nothing that was said of receiving them stands any longer. Ends with `stop`.
pub async fn turned_off(own: Door, site: Site, stop: CancellationToken) {
    let alarms =
        [TRAPS_UNAVAILABLE, TRAP_LOSS, TRAP_FLOOD].map(|alarm_type| OwnAlarm::new(own.clone(), site.clone(), alarm_type));
    let cleared = async {
        for alarm in &alarms {
            clear(alarm, "Traps are not received by this node any more.").await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return,
        () = cleared => {}
    }
    stop.cancelled().await;
}

/// Clears `alarm`, and does not give up while the journal takes nothing.
async fn clear(alarm: &OwnAlarm, text: &str) {
    while !alarm.clear(text).await {
        tokio::time::sleep(CLEAR_EVERY).await;
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, TrapError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(TrapError::Thread)
}

/// The event that a datagram is, or why it is none; and the response if it asks for one. For those who test with arbitrary bytes.
pub fn read(
    inbound: &mut Inbound,
    datagram: &[u8],
    source: SocketAddr,
    site: &Site,
) -> Result<(Event, Option<Vec<u8>>), String> {
    let mapper = Mapper::new(site.clone(), Devices::default(), Mappings::built_in());
    let now = Instant::now().into();
    let notification = inbound.read(&Bytes::copy_from_slice(datagram), source.ip(), |_| true, now);
    let notification = notification.map_err(|refused| refused.why.to_string())?;
    let mut event = mapper.event(source, &notification);
    event.origin.event_id = notification.inform.as_ref().map(|inform| Informs::default().id(source, inform, now));
    let response = notification.inform.map(|inform| inform.answer.encode()).transpose();
    Ok((event, response.map_err(|error| error.to_string())?))
}

//! The trap receiver: SNMP notifications of versions 1 and 2c as events.
//!
//! ```text
//! kernel ─▶ socket: a thread empties it ─▶ queue ─▶ a thread decodes and maps ─▶ deliver: batches, several on their way
//!   drops ─▶ loss: klaxon.trap-loss                                                │             to the journal, in order
//! device ◀──────────────── the response to an inform ◀──── durable ◀───────────────┘
//! ```
//!
//! An inform is acknowledged when it is durable and not before; one that is refused is not answered, so that its sender tries
//! again, and a second delivery is recognised. A plain trap that is refused is held until it is taken: then the queue fills,
//! then the kernel's buffer, and what the kernel drops is counted and told of.

mod deliver;
mod loss;
mod map;
mod pdu;
mod socket;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ipnet::IpNet;
use klaxon_schemas::event::Event;
use klaxon_schemas::names::Site;
use klaxon_store::door::Door;
use tokio_util::sync::CancellationToken;

use deliver::{Deliver, Reader};
use loss::Loss;
use map::Mapper;
use socket::{Queue, TrapSocket};

/// The most datagrams that wait to be read, whatever is configured.
pub const QUEUE_MAX: usize = 1 << 20;
/// How many batches of events wait behind those that are on their way to the journal.
const BATCHES_WAITING: usize = 1;

/// How traps are received.
#[derive(Clone, PartialEq, Eq)]
pub struct TrapConfig {
    /// Where UDP is listened on.
    pub listen: SocketAddr,
    /// The receive buffer that the kernel is asked for, and the bytes that may wait in the queue behind it.
    pub receive_buffer_bytes: usize,
    /// The communities that are taken; any, if there are none. A secret: neither logged nor kept.
    pub communities: Vec<String>,
    /// The sites of devices by network; the smallest network counts. Others are of the node's own site.
    pub sites: Vec<(IpNet, Site)>,
    /// The most datagrams that wait to be read.
    pub queue_max: usize,
}

impl Default for TrapConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1162)),
            receive_buffer_bytes: 64 << 20,
            communities: Vec::new(),
            sites: Vec::new(),
            queue_max: 131_072,
        }
    }
}

impl std::fmt::Debug for TrapConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { listen, receive_buffer_bytes, communities, sites, queue_max } = self;
        f.debug_struct("TrapConfig")
            .field("listen", listen)
            .field("receive_buffer_bytes", receive_buffer_bytes)
            .field("communities", &communities.len())
            .field("sites", sites)
            .field("queue_max", queue_max)
            .finish()
    }
}

/// Why traps cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum TrapError {
    /// The address cannot be used.
    #[error("cannot listen for traps on {listen}")]
    Bind {
        /// Which address.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
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
}

/// A metric: its name, what it says, whether it only grows, its label if it has one, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrapMetric {
    /// As Prometheus has it.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it is a counter; else it is a gauge.
    pub is_counter: bool,
    /// The name of its label, and the label's value.
    pub label: Option<(&'static str, &'static str)>,
    /// How much.
    pub value: u64,
}

impl TrapCounts {
    /// All of them; the samples of one metric stand together.
    pub fn rows(&self) -> Vec<TrapMetric> {
        let refused = "Datagrams to the trap port that are no notification which is taken.";
        let notifications = "Traps and informs that could be read.";
        let row = |name, help, is_counter, label, value: &AtomicU64| TrapMetric {
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
        let informs_help = "Informs that could be read, by whether they were answered; refused ones are not.";
        vec![
            row(name, "Datagrams taken from the socket of the trap receiver.", true, None, &self.datagrams),
            row(by_version, notifications, true, Some(("version", "1")), &self.version_1),
            row(by_version, notifications, true, Some(("version", "2c")), &self.version_2c),
            row(by_reason, refused, true, Some(("reason", "malformed")), &self.malformed),
            row(by_reason, refused, true, Some(("reason", "version")), &self.other_version),
            row(by_reason, refused, true, Some(("reason", "community")), &self.other_community),
            row(by_reason, refused, true, Some(("reason", "no_notification")), &self.no_notification),
            row("klaxon_trap_informs_received_total", "Informs that could be read.", true, None, &self.informs),
            row(informs, informs_help, true, Some(("answered", "yes")), &self.answered),
            row(informs, informs_help, true, Some(("answered", "no")), &self.unanswered),
            row(
                "klaxon_trap_traps_held_total",
                "How often a trap that the journal refused was held back to be brought in again.",
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
        ]
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

/// A receiver that is bound and does not receive yet.
#[derive(Debug)]
pub struct TrapReceiver {
    socket: TrapSocket,
    listen: SocketAddr,
    config: TrapConfig,
    counts: Arc<TrapCounts>,
}

impl TrapReceiver {
    /// Takes the address, and as much buffer as may be.
    pub fn bind(config: TrapConfig) -> Result<Self, TrapError> {
        let asked = config.receive_buffer_bytes;
        let listen = config.listen;
        let bind = |source| TrapError::Bind { listen, source };
        let socket = TrapSocket::bind(listen, asked).map_err(bind)?;
        let listen = socket.local_addr().map_err(bind)?;
        let granted = socket.buffer_bytes().map_err(bind)?;
        let counts = Arc::new(TrapCounts::default());
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
        Ok(Self { socket, listen, config, counts })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listen
    }

    /// What it counts.
    pub fn counts(&self) -> Arc<TrapCounts> {
        Arc::clone(&self.counts)
    }

    /// Receives until `stop`, then brings in what has come so far. `site` is that of devices in no configured network.
    pub async fn run(self, doors: TrapDoors, site: Site, stop: CancellationToken) -> Result<(), TrapError> {
        let Self { socket, listen, config, counts } = self;
        let socket = Arc::new(socket);
        let queue = Queue::new(config.queue_max.min(QUEUE_MAX), config.receive_buffer_bytes);
        let (batches, waiting) = tokio::sync::mpsc::channel(BATCHES_WAITING);
        let mapper = Mapper { site: site.clone(), sites: config.sites };
        let reader = Reader { mapper, communities: config.communities, counts: Arc::clone(&counts), door: doors.traps.clone() };
        let receiving = {
            let (socket, queue, counts) = (Arc::clone(&socket), Arc::clone(&queue), Arc::clone(&counts));
            thread("trap-receive", move || socket.receive(&queue, &counts))?
        };
        let reading = {
            let queue = Arc::clone(&queue);
            // The thread ends when the queue is closed, and whatever keeps the other from closing it, this does.
            thread("trap-read", move || reader.run(&queue, &batches)).inspect_err(|_| socket.wake())?
        };
        let loss = Loss::new(Arc::clone(&socket), Arc::clone(&counts), doors.own, site, listen);
        let deliver = Deliver { door: doors.traps, socket: Arc::clone(&socket), counts, stop: stop.clone() };
        let waker = Arc::clone(&socket);
        let until_stopped = async {
            stop.cancelled().await;
            waker.wake();
        };
        tokio::select! {
            () = deliver.run(waiting) => {}
            () = async { tokio::join!(until_stopped, loss.run(stop.clone())); std::future::pending::<()>().await } => {}
        }
        queue.close();
        socket.wake();
        // Both have ended, or do within a moment.
        let joined = tokio::task::spawn_blocking(move || (receiving.join(), reading.join())).await;
        if !matches!(joined, Ok((Ok(()), Ok(())))) {
            tracing::error!("a thread of the trap receiver broke");
        }
        Ok(())
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, TrapError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(TrapError::Thread)
}

/// The event that a datagram is, or why it is none; and the response if it asks for one. For those who test with arbitrary bytes.
pub fn read(datagram: &[u8], source: SocketAddr, site: &Site) -> Result<(Event, Option<Vec<u8>>), String> {
    let mapper = Mapper { site: site.clone(), sites: Vec::new() };
    let notification = pdu::decode(&Bytes::copy_from_slice(datagram), |_| true).map_err(|error| error.to_string())?;
    let event = mapper.event(source, &notification);
    Ok((event, notification.inform.map(|inform| inform.response)))
}

//! The door of StarlingX's programs: what speaks with fmManager over TCP port 8001 raises, clears and lists alarms here as there. `wire`
//! draws the bytes, `map` says what a fault is here, `desk` what a request comes to.
//!
//! ```text
//! program ──▶ connection: packets, one by one ─▶ desk ─▶ the journal, or the state
//!         ◀── the answer, in one piece ◀──────────┘      a positive one only when it is durable
//! ```
//!
//! The protocol has no authentication and no encryption: whoever reaches the port can raise and clear. Each connection has a task of its
//! own, so a client that stalls is waited for by nobody; packets and answers that take too long end it. Their number is bounded
//! (`places`), and so is what large packets and answers take (`connection`).
//!
//! What is better than there, and seen by clients: an alarm keeps its uuid when it is raised again; ids that no catalogue knows are
//! taken; an entity is never a pattern, nor the beginning of another name ([`klaxon_schemas::starlingx::covers`]); a request that is
//! not understood is answered. Nothing is masked: `inhibit_alarms` and `suppression` are kept and shown.

mod connection;
mod counts;
mod desk;
mod map;
mod places;
pub mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klaxon_schemas::names::Site;
use klaxon_store::door::Door;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::{LARGE_BYTES_MAX, Shared};
use counts::Cut;
use desk::Desk;
use places::Places;

pub use counts::FmCounts;
pub use map::{Unusable, event};

/// How long to wait after the system refused to accept, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a client may be out of reach before it is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long requests may take that are at work when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How the door is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FmConfig {
    /// Where TCP is listened on.
    pub listen: SocketAddr,
    /// The most connections at one time.
    pub connections_max: usize,
}

impl Default for FmConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8001)), connections_max: 1024 }
    }
}

/// What comes in, and where.
pub struct FmParts {
    /// The way in.
    pub door: Door,
    /// Whose alarms they are.
    pub site: Site,
    /// Whether the state may not show yet what is durable, because the journal is elsewhere.
    pub is_behind: bool,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for StarlingX's programs on {listen} (fm.listen)")]
pub struct FmError {
    listen: SocketAddr,
    source: io::Error,
}

/// A door that has its address and takes nobody yet.
#[derive(Debug)]
pub struct FmDoor {
    listener: TcpListener,
    listen: SocketAddr,
    connections_max: usize,
    counts: Arc<FmCounts>,
}

impl FmDoor {
    /// Takes the address.
    pub async fn new(config: &FmConfig) -> Result<Self, FmError> {
        let cannot = |source| FmError { listen: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(cannot)?;
        let listen = listener.local_addr().map_err(cannot)?;
        Ok(Self { listener, listen, connections_max: config.connections_max, counts: Arc::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listen
    }

    /// What it counts.
    pub fn counts(&self) -> Arc<FmCounts> {
        Arc::clone(&self.counts)
    }

    /// Brings in what comes until the node stops, and finishes what it has begun.
    pub async fn run(self, parts: FmParts, stop: CancellationToken) {
        if self.listen.ip().is_loopback() {
            tracing::info!(address = %self.listen, "StarlingX's programs are served");
        } else {
            tracing::warn!(
                address = %self.listen,
                "StarlingX's programs are served on an address that other hosts reach; the protocol has no authentication: whoever \
                 reaches it can raise and clear alarms"
            );
        }
        let FmParts { door, site, is_behind } = parts;
        let shared = Arc::new(Shared {
            desk: Desk { door, site, is_behind, grumbler: Mutex::default() },
            counts: self.counts,
            room: Arc::new(Semaphore::new(LARGE_BYTES_MAX)),
            stop: stop.clone(),
        });
        // Dropped at the end: it cuts what is left then.
        let cut = CancellationToken::new();
        let _cut_at_the_end = cut.clone().drop_guard();
        let (connections, places) = (TaskTracker::new(), Places::new(self.connections_max));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, client) =
                match accepted.and_then(|(stream, client)| Ok((prepared(stream)?, client.ip().to_canonical()))) {
                    Ok(accepted) => accepted,
                    Err(error) if is_of_one_connection(&error) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "connections of StarlingX's programs cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
            let Some(place) = places.take() else {
                // All others are at work: this is the one that was quiet for the longest time.
                shared.counts.cut(Cut::Idle);
                continue;
            };
            let (served, cut) = (connection::serve(stream, client, place, Arc::clone(&shared)), cut.clone());
            connections.spawn(async move { cut.run_until_cancelled(served).await });
        }
        drop(self.listener);
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "connections of StarlingX's programs are cut: the time to drain is over"
            );
        }
    }
}

/// A connection whose answers are sent at once, and whose end is noticed if its client is gone without a word.
fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    Ok(stream)
}

/// Whether the error says something of the one connection only, and not of the system.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}

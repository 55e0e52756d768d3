//! Connections: accepted within a limit, served, and drained within a time when the node stops.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::guard::{NetPeer, Peer, Trust, actor_of_uid};
use super::shares::Shares;
use super::tls::Tls;
use super::{Api, router};

/// How long a client may take to send the head of a request, and so how long a connection may be idle between two.
const HEAD_WAIT: Duration = Duration::from_secs(60);
/// How long a client may take none of what it is sent before its connection is cut.
const WRITE_WAIT: Duration = Duration::from_secs(60);
/// How long to wait after the system refused to accept, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a listener is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Whoever could reach it from elsewhere could listen to what is said, tokens among it.
    #[error("{0} can be reached from other hosts, and there is no TLS")]
    Open(SocketAddr),
    /// The system does not say where it listens.
    #[error("cannot tell the listener's address")]
    Address(#[source] io::Error),
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serves {
    /// All interfaces, and the page.
    #[default]
    Everything,
    /// StarlingX Fault Management's, and nothing else.
    Starlingx,
    /// The summary of alarms of Distributed Cloud's manager, and nothing else.
    Dcmanager,
}

/// How a request came in, as far as the answer depends on it; beside every request.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// What is served there.
    pub serves: Serves,
    /// Whether by TLS.
    pub tls: bool,
}

impl Reached {
    /// Without TLS, where everything is served.
    pub const PLAIN: Self = Self { serves: Serves::Everything, tls: false };
}

/// A TCP listener, and its rules.
pub struct Listening {
    /// What the settings call it.
    pub name: String,
    /// Where it listens.
    pub tcp: TcpListener,
    /// Who may read and report without being known by name. With [`Trust::Anybody`] it needs no TLS.
    pub trust: Trust,
    /// What it shows of the node, if it speaks TLS.
    pub tls: Option<Tls>,
    /// What it serves.
    pub serves: Serves,
}

/// What connections come from.
enum Listener {
    Tcp(Listening),
    Unix(UnixListener),
}

/// A connection, with what the system says of its other side.
enum Accepted {
    Tcp { stream: TcpStream, local: SocketAddr, remote: SocketAddr, trust: Trust, tls: Option<Tls> },
    Unix { stream: UnixStream, uid: u32 },
}

/// Serves the API on TCP until the node stops, then drains.
pub async fn serve(listening: Listening, api: Api) -> Result<(), ServeError> {
    let address = listening.tcp.local_addr().map_err(ServeError::Address)?;
    let is_open = !address.ip().is_loopback() && listening.tls.is_none();
    match listening.trust {
        Trust::Anybody => {
            api.0.insecure.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%address, listener = %listening.name, "the API is served over TCP without TLS, and whoever reaches it may read and report (insecure = true)");
        }
        Trust::Nobody | Trust::Local if is_open => return Err(ServeError::Open(address)),
        Trust::Nobody | Trust::Local => {
            tracing::info!(%address, listener = %listening.name, tls = listening.tls.is_some(), "the API is served over TCP");
        }
    }
    let (tls, stop) = (listening.tls.clone(), api.stop().clone());
    let watching = async {
        if let Some(tls) = tls {
            stop.run_until_cancelled(tls.watch()).await;
        }
    };
    tokio::join!(accept(Listener::Tcp(listening), api), watching);
    Ok(())
}

/// Serves the API on a Unix socket until the node stops, then drains. Who may connect, the socket's folder and mode say.
pub async fn serve_unix(listener: UnixListener, api: Api) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Address)?;
    tracing::info!(path = ?address.as_pathname(), "the API is served over a Unix socket");
    accept(Listener::Unix(listener), api).await;
    Ok(())
}

impl Listener {
    fn reached(&self) -> Reached {
        match self {
            Self::Tcp(Listening { serves, tls, .. }) => Reached { serves: *serves, tls: tls.is_some() },
            Self::Unix(_) => Reached::PLAIN,
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(Listening { tcp, trust, tls, .. }) => {
                let (stream, remote) = tcp.accept().await?;
                // Answers are written whole; waiting for more to send would only delay them.
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                Ok(Accepted::Tcp { stream, local, remote, trust: *trust, tls: tls.clone() })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok(Accepted::Unix { stream, uid })
            }
        }
    }
}

impl Accepted {
    /// The other host, if it is another one: on this host any program may stand for many.
    fn client(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { remote, .. } => Some(remote.ip().to_canonical()).filter(|address| !address.is_loopback()),
            Self::Unix { .. } => None,
        }
    }
}

async fn accept(listener: Listener, api: Api) {
    let router = router(&api, listener.reached());
    let stop = api.stop();
    // Dropped at the end: it cuts what is left then.
    let cut = CancellationToken::new();
    let _cut_at_the_end = cut.clone().drop_guard();
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(api.config().connections_max));
    let clients = Shares::<IpAddr>::default();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let most = api.config().client_connections_max;
                let counted = accepted.client().map(|client| clients.take(client, most, usize::MAX));
                if matches!(counted, Some(None)) {
                    api.responses().turn_away();
                    continue;
                }
                let served = connection(accepted, router.clone(), stop.clone());
                let cut = cut.clone();
                connections.spawn(async move {
                    let (_place, _counted) = (place, counted);
                    cut.run_until_cancelled(served).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(api.config().drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut because the time to drain is over");
    }
}

/// Whether the error says something of the one connection only, and not of the system.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}

async fn connection(accepted: Accepted, router: Router, stop: CancellationToken) {
    match accepted {
        Accepted::Tcp { stream, local, remote, trust, tls: None } => {
            let peer = NetPeer { local, remote, trust, names: Vec::new() };
            converse(stream, Peer::Net(Arc::new(peer)), router, stop).await;
        }
        Accepted::Tcp { stream, local, remote, trust, tls: Some(tls) } => match tls.shake_hands(stream).await {
            Ok((stream, names)) => {
                converse(stream, Peer::Net(Arc::new(NetPeer { local, remote, trust, names })), router, stop).await;
            }
            Err(error) => tracing::info!(%remote, %error, "no TLS connection was made"),
        },
        Accepted::Unix { stream, uid } => {
            // The system may have to ask a directory server for the name.
            match tokio::task::spawn_blocking(move || actor_of_uid(uid)).await {
                Ok(actor) => converse(stream, Peer::Unix { actor }, router, stop).await,
                Err(error) => tracing::warn!(%error, uid, "the name of a user cannot be looked up"),
            }
        }
    }
}

async fn converse<S>(stream: S, peer: Peer, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        request.map(Body::new)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_WAIT));
    let stream = Box::pin(stream);
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(conversation);
    let outcome = tokio::select! {
        outcome = conversation.as_mut() => outcome,
        () = stop.cancelled() => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended badly");
    }
}

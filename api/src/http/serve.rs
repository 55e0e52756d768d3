//! Connections: accepted within a limit, served, and drained within a time when the node stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::guard::{Peer, actor_of_uid};
use super::tls::Tls;
use super::{Api, router};

/// The most connections to one listener at one time; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take to send the head of a request, and so how long a connection may be idle between two.
const HEAD_WAIT: Duration = Duration::from_secs(60);
/// How long to wait after the system refused to accept, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a listener is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Whoever could reach it from elsewhere could read and publish.
    #[error("{0} can be reached from other hosts; only loopback addresses are served")]
    NotLoopback(SocketAddr),
    /// The system does not say where it listens.
    #[error("cannot tell the listener's address")]
    Address(#[source] io::Error),
}

/// What connections come from.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Tls(TcpListener, Tls),
}

/// A connection, with what the system says of its other side.
enum Accepted {
    Tcp { stream: TcpStream, local: SocketAddr, remote: SocketAddr },
    Tls { stream: TcpStream, remote: SocketAddr, tls: Tls },
    Unix { stream: UnixStream, uid: u32 },
}

/// Serves the API on loopback TCP until the node stops, then drains.
pub async fn serve_tcp(listener: TcpListener, api: Api) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Address)?;
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    tracing::info!(%address, "the API is served over TCP");
    serve(Listener::Tcp(listener), api).await;
    Ok(())
}

/// Serves the API on a Unix socket until the node stops, then drains. Who may connect, the socket's folder and mode say.
pub async fn serve_unix(listener: UnixListener, api: Api) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Address)?;
    tracing::info!(path = ?address.as_pathname(), "the API is served over a Unix socket");
    serve(Listener::Unix(listener), api).await;
    Ok(())
}

/// Serves what other hosts may reach over TLS until the node stops, then drains.
pub async fn serve_tls(listener: TcpListener, tls: Tls, api: Api) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Address)?;
    tracing::info!(%address, "uplinks are served over TLS");
    let watching = tls.clone();
    let stop = api.stop().clone();
    tokio::join!(serve(Listener::Tls(listener, tls), api), stop.run_until_cancelled(watching.watch()));
    Ok(())
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                // Answers are written whole; waiting for more to send would only delay them.
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                Ok(Accepted::Tcp { stream, local, remote })
            }
            Self::Tls(listener, tls) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tls { stream, remote, tls: tls.clone() })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok(Accepted::Unix { stream, uid })
            }
        }
    }
}

async fn serve(listener: Listener, api: Api) {
    let router = router(&api);
    let stop = api.stop();
    // Dropped at the end: it cuts what is left then.
    let cut = CancellationToken::new();
    let _cut_at_the_end = cut.clone().drop_guard();
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
                let served = connection(accepted, router.clone(), stop.clone());
                let cut = cut.clone();
                connections.spawn(async move {
                    let _place = place;
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
        Accepted::Tcp { stream, local, remote } => converse(stream, Peer::Tcp { local, remote }, router, stop).await,
        Accepted::Tls { stream, remote, tls } => match tls.shake_hands(stream).await {
            Ok((stream, names)) => converse(stream, Peer::Tls { remote, names }, router, stop).await,
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
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        request.map(Body::new)
    });
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

//! A connection to the node above: TCP, TLS where the address says so, a WebSocket, and messages over it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use klaxon_api::uplink::codec::{self, CodecError};
use klaxon_schemas::wire::v1::uplink::{Down, MESSAGE_BYTES_MAX, PATH, Up};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::Address;
use super::kept::Token;
use klaxon_api::trust::ClientTls;

/// The most that is shown of what a server says why it refuses.
const REASON_BYTES_MAX: usize = 300;

/// Why the node above is not reached, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It took too long.
    #[error("{address} did not answer within {} s", wait.as_secs_f32())]
    Slow { address: Address, wait: Duration },
    /// The system says no.
    #[error("cannot connect to {address}: {source}")]
    Connect { address: Address, source: io::Error },
    /// A file that is needed cannot be used.
    #[error("{0}")]
    File(String),
    /// TLS did not come about.
    #[error("cannot speak TLS with {address}: {source}{hint}", hint = hint(source))]
    Tls { address: Address, source: io::Error },
    /// It does not know this node.
    #[error("{address} does not let this node in: {reason}")]
    Denied { address: Address, reason: String },
    /// It is no Klaxon, or one that takes no uplinks.
    #[error("{address} takes no uplink: {reason}")]
    NoUplink { address: Address, reason: String },
    /// The connection ended.
    #[error("the connection ended{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Ended { reason: Option<String> },
    /// Nothing was heard for too long.
    #[error("nothing was heard for {} s", silent.as_secs())]
    Silent { silent: Duration },
    /// What was sent was not taken for too long.
    #[error("nothing more was taken for {} s", wait.as_secs())]
    Stuck { wait: Duration },
    /// A message was not understood, or cannot be sent.
    #[error(transparent)]
    Message(#[from] CodecError),
}

/// How much went over the line since the start of the node, TLS included and what the kernel adds not.
#[derive(Debug, Default)]
pub(super) struct LineCounts {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// What comes over the line.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message.
    Message(Down),
    /// The answer to a ping, and what it carried.
    Pong(Bytes),
    /// A ping; it is answered.
    Ping,
}

/// With what a node says who it is.
pub(super) struct Proof<'a> {
    pub(super) tls: &'a ClientTls,
    pub(super) token: Option<&'a Token>,
}

/// The connection.
pub(super) struct Link {
    socket: WebSocketStream<Box<dyn Line>>,
    /// How long what is sent may take to be taken.
    pub(super) patience: Duration,
}

/// Connects to the first of these that takes it: a name may stand for several nodes. One that is dead says nothing, so each has
/// no more than its share of the time.
async fn dial(all: &[SocketAddr], wait: Duration) -> io::Result<TcpStream> {
    let share = wait / u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for one in all {
        match tokio::time::timeout(share, TcpStream::connect(one)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{one} does not answer")),
        }
    }
    Err(last)
}

/// What bytes go over.
trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

impl Link {
    /// Connects to `address`, within `wait`. Files are read now, so that they may change between two connections.
    pub(super) async fn open(
        address: &Address,
        proof: &Proof<'_>,
        wait: Duration,
        counts: &Arc<LineCounts>,
    ) -> Result<Self, LinkError> {
        match tokio::time::timeout(wait, Self::connect(address, proof, wait, counts)).await {
            Ok(outcome) => Ok(Self { socket: outcome?, patience: wait }),
            Err(_elapsed) => Err(LinkError::Slow { address: address.clone(), wait }),
        }
    }

    async fn connect(
        address: &Address,
        proof: &Proof<'_>,
        wait: Duration,
        counts: &Arc<LineCounts>,
    ) -> Result<WebSocketStream<Box<dyn Line>>, LinkError> {
        let failed = |source| LinkError::Connect { address: address.clone(), source };
        let all: Vec<_> = lookup_host((address.host.as_str(), address.port)).await.map_err(failed)?.collect();
        let tcp = dial(&all, wait).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let line = Counted { line: tcp, counts: Arc::clone(counts) };
        let line: Box<dyn Line> = if address.is_secure {
            let files = proof.tls.clone();
            let config = tokio::task::spawn_blocking(move || files.read()).await;
            let config = config.map_err(|error| LinkError::File(error.to_string()))?.map_err(LinkError::File)?;
            let name = ServerName::try_from(address.host.clone()).map_err(|error| LinkError::File(error.to_string()))?;
            let tls = TlsConnector::from(Arc::new(config)).connect(name, line).await;
            Box::new(tls.map_err(|source| LinkError::Tls { address: address.clone(), source })?)
        } else {
            Box::new(line)
        };
        let refused = |reason: String| LinkError::NoUplink { address: address.clone(), reason };
        let uri = format!("{}://{}{PATH}", if address.is_secure { "wss" } else { "ws" }, address.authority());
        let mut request = uri.into_client_request().map_err(|error| refused(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("Klaxon/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = proof.token {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.0));
            let mut bearer =
                bearer.map_err(|_| LinkError::File("the token has characters that no header may have".to_owned()))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        let config =
            WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
        match tokio_tungstenite::client_async_with_config(request, line, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(WsError::Http(answer)) => {
                let said = answer.body().as_deref().map(reason_in).unwrap_or_default();
                let reason = format!("{}{said}", answer.status());
                match answer.status() {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        Err(LinkError::Denied { address: address.clone(), reason })
                    }
                    _ => Err(refused(reason)),
                }
            }
            // What the other side thinks of a certificate it says only when the connection stands.
            Err(WsError::Io(source)) if alert(&source).is_some() => Err(LinkError::Tls { address: address.clone(), source }),
            Err(WsError::Io(source)) if proof.tls.client.is_some() && address.is_secure => {
                Err(refused(format!("{source}; perhaps it does not believe the certificate of uplink.client_certificate")))
            }
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// Sends a message that is encoded already.
    pub(super) async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.push(Message::Binary(bytes)).await
    }

    /// Sends a message; tells how many bytes it has.
    pub(super) async fn send(&mut self, message: &Up) -> Result<usize, LinkError> {
        let bytes = codec::encode(message)?;
        let len = bytes.len();
        self.send_bytes(bytes).await?;
        Ok(len)
    }

    /// Asks whether the other side is there.
    pub(super) async fn ping(&mut self, payload: [u8; 8]) -> Result<(), LinkError> {
        self.push(Message::Ping(Bytes::copy_from_slice(&payload))).await
    }

    async fn push(&mut self, message: Message) -> Result<(), LinkError> {
        match tokio::time::timeout(self.patience, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(ended),
            Err(_elapsed) => Err(LinkError::Stuck { wait: self.patience }),
        }
    }

    /// What comes next. Cancelling this loses nothing.
    pub(super) async fn hear(&mut self) -> Result<Heard, LinkError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(Heard::Message(codec::decode(&bytes)?)),
                Some(Ok(Message::Pong(payload))) => return Ok(Heard::Pong(payload)),
                Some(Ok(Message::Ping(_))) => return Ok(Heard::Ping),
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| frame.reason.to_string()).filter(|reason| !reason.is_empty());
                    return Err(LinkError::Ended { reason });
                }
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(ended(error)),
                None => return Err(LinkError::Ended { reason: None }),
            }
        }
    }

    /// Ends it, so that the other side knows.
    pub(super) async fn close(mut self) {
        const WAIT: Duration = Duration::from_secs(2);
        let closing = async {
            self.socket.close(None).await?;
            while self.socket.next().await.transpose()?.is_some() {}
            Ok::<_, WsError>(())
        };
        // It is over either way.
        let _ = tokio::time::timeout(WAIT, closing).await;
    }
}

/// What TLS says was wrong.
fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What the other side says was wrong.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match of_tls(error)? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// Which setting is behind an error of TLS, as far as that is known.
fn hint(error: &io::Error) -> &'static str {
    match of_tls(error) {
        // A bad signature: an authority of the same name, with another key.
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "; no authority that is trusted here has issued its certificate: uplink.ca_file names those that are"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        )) => "; it does not believe the certificate of uplink.client_certificate",
        _ => "",
    }
}

fn ended(error: WsError) -> LinkError {
    let reason = match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => None,
        error => Some(error.to_string()),
    };
    LinkError::Ended { reason }
}

/// What a refusal says for people: the detail of a problem (RFC 9457), or its text.
fn reason_in(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(problem) => problem.get("detail").and_then(|detail| detail.as_str()).unwrap_or_default().to_owned(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let shown: String = text.chars().filter(|c| !c.is_control()).take(REASON_BYTES_MAX).collect();
    if shown.is_empty() { shown } else { format!(": {shown}") }
}

/// Counts what goes over a line.
struct Counted<S> {
    line: S,
    counts: Arc<LineCounts>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.line).poll_read(cx, buffer);
        self.counts.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.line).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &outcome {
            self.counts.sent.fetch_add(*written as u64, Ordering::Relaxed);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use tokio::net::TcpSocket;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// With nobody to take them, so many connections that it answers no more.
    async fn mute() -> (TcpSocket, SocketAddr, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
        let at = socket.local_addr().expect("it has one");
        // It listens, and this one keeps the descriptor.
        rustix::net::listen(&socket, 0).expect("it listens");
        let mut taken = Vec::new();
        while let Ok(Ok(tcp)) = tokio::time::timeout(SOON, TcpStream::connect(at)).await {
            taken.push(tcp);
        }
        (socket, at, taken)
    }

    #[tokio::test]
    async fn the_next_address_of_a_name_is_tried_when_one_is_dead() {
        let (_socket, dead, _taken) = mute().await;
        let living = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let at = living.local_addr().expect("it has one");
        let tcp = dial(&[dead, at], 4 * SOON).await.expect("one lives");
        assert_eq!(tcp.peer_addr().expect("it is connected"), at);
        let error = dial(&[dead], SOON).await.expect_err("it is dead");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains(&dead.to_string()), "{error}");
        assert_eq!(dial(&[], SOON).await.expect_err("there is none").kind(), io::ErrorKind::NotFound);
    }
}

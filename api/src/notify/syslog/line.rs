//! A connection to a syslog receiver, over TCP or TLS, and what is known of what was written to it.
//!
//! Nobody confirms a syslog message. So what counts as taken is what the other system's TCP has acknowledged, on a connection that
//! stood for a while behind that: who ends with something unread resets the connection, and whoever is gone acknowledges nothing.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::acknowledged::waiting_bytes;
use super::{SyslogConfig, Transport};
use crate::trust::Authorities;

/// How long a connection must stand behind what was acknowledged.
pub(super) const STAND: Duration = Duration::from_millis(200);
/// The same, where the kernel does not say what was acknowledged.
const STAND_UNKNOWN: Duration = Duration::from_secs(2);
/// How soon it is looked again whether all is acknowledged, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long it may take to end one in order.
const CLOSE: Duration = Duration::from_secs(1);
/// How long a connection is idle until TCP asks whether the other side is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What both kinds of connection are.
trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

type Io = Box<dyn Stream + Unpin>;

/// A connection. Dropped, it is closed.
pub(super) struct Line {
    /// Absent while something is written: what was given up half way leaves nothing that could be written behind it.
    writer: Mutex<Option<WriteHalf<Io>>>,
    /// Why it ended, when it has.
    ended: watch::Receiver<Option<String>>,
    own: SocketAddr,
    peer: SocketAddr,
    timeout: Duration,
    _reader: AbortOnDropHandle<()>,
}

impl Line {
    /// Connects. The error says what is wrong, without secrets.
    pub(super) async fn open(config: &SyslogConfig, authorities: &Authorities) -> Result<Self, String> {
        let opened = tokio::time::timeout(config.timeout, connect(config, authorities)).await;
        let (stream, own, peer) =
            opened.map_err(|_| format!("it could not be connected to within {} s", config.timeout.as_secs_f64()))??;
        let (reader, writer) = split(stream);
        let (end, ended) = watch::channel(None);
        let reader = tokio::spawn(async move {
            let why = drain(reader).await;
            end.send_replace(Some(why));
        });
        let writer = Mutex::new(Some(writer));
        Ok(Self { writer, ended, own, peer, timeout: config.timeout, _reader: AbortOnDropHandle::new(reader) })
    }

    /// Whether nothing can be written to it any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended.borrow().is_some() || self.writer.try_lock().is_ok_and(|writer| writer.is_none())
    }

    /// Writes, and returns when it can be taken for taken.
    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), String> {
        let until = Instant::now() + self.timeout;
        let late = |_| format!("it took nothing for {} s", self.timeout.as_secs_f64());
        let mut ended = self.ended.clone();
        let write = async {
            let mut place = self.writer.lock().await;
            let mut writer = place.take().ok_or("the connection broke")?;
            let written = async {
                writer.write_all(bytes).await?;
                writer.flush().await
            };
            written.await.map_err(|error| format!("the connection broke: {error}"))?;
            *place = Some(writer);
            Ok::<_, String>(())
        };
        tokio::select! {
            biased;
            why = over(&mut ended) => return Err(why),
            written = tokio::time::timeout_at(until, write) => written.map_err(late)??,
        }
        let stand = async {
            let is_known = tokio::time::timeout_at(until, self.acknowledged()).await.map_err(late)?;
            tokio::time::sleep(if is_known { STAND } else { STAND_UNKNOWN }).await;
            Ok(())
        };
        tokio::select! {
            biased;
            why = over(&mut ended) => Err(why),
            stood = stand => stood,
        }
    }

    /// Ends it in order: over TLS, the other side is told so (RFC 5425 section 4.4).
    pub(super) async fn close(&self) {
        let close = async {
            if let Some(mut writer) = self.writer.lock().await.take() {
                // The other side may be gone by now.
                let _ = writer.shutdown().await;
            }
        };
        // So may it be that nothing gets through.
        let _ = tokio::time::timeout(CLOSE, close).await;
    }

    /// Waits until all that was written is acknowledged. Whether that is known.
    async fn acknowledged(&self) -> bool {
        let (mut wait, most) = LOOK;
        loop {
            match waiting_bytes(self.own, self.peer) {
                None => return false,
                Some(0) => return true,
                Some(_) => tokio::time::sleep(wait).await,
            }
            wait = (wait * 2).min(most);
        }
    }
}

/// Returns when the connection has ended, with the reason.
async fn over(ended: &mut watch::Receiver<Option<String>>) -> String {
    let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    why.unwrap_or_else(|| "the connection broke".to_owned())
}

/// Nothing is said on such a connection but that it ends.
async fn drain(mut reader: ReadHalf<Io>) -> String {
    let mut nothing = [0; 1024];
    loop {
        match reader.read(&mut nothing).await {
            Ok(0) => return "it closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => return format!("the connection broke: {error}"),
        }
    }
}

async fn connect(config: &SyslogConfig, authorities: &Authorities) -> Result<(Io, SocketAddr, SocketAddr), String> {
    let no = |error: std::io::Error| format!("it could not be connected to: {error}");
    let tcp = TcpStream::connect(&config.address).await.map_err(no)?;
    tcp.set_nodelay(true).map_err(no)?;
    look_after(&tcp, config.timeout).map_err(no)?;
    let (own, peer) = (tcp.local_addr().map_err(no)?, tcp.peer_addr().map_err(no)?);
    if config.transport != Transport::Tls {
        return Ok((Box::new(tcp), own, peer));
    }
    let (tls, authorities) = (config.tls(), authorities.clone());
    let client =
        tokio::task::spawn_blocking(move || tls.read_with(&authorities)).await.map_err(|error| error.to_string())??;
    let host = config.host();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name that a certificate can have"))?;
    let tls = TlsConnector::from(std::sync::Arc::new(client)).connect(name, tcp).await;
    Ok((Box::new(tls.map_err(|error| format!("TLS failed: {error}"))?), own, peer))
}

/// Lets TCP find out that the other side is gone.
fn look_after(tcp: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_user_timeout};
    set_socket_keepalive(tcp, true)?;
    set_tcp_keepidle(tcp, KEEPALIVE)?;
    Ok(set_tcp_user_timeout(tcp, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?)
}

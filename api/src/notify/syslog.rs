//! The sink that speaks syslog: a message of RFC 5424 for each notification, with the alarm as RFC 5674 puts it into structured data,
//! and beside it what only we know, under our own name.
//!
//! | transport | | what counts as told |
//! |---|---|---|
//! | `udp` | RFC 5426 | it was sent, and nobody said within [`REFUSAL_WAIT`] that there is no receiver |
//! | `tcp` | RFC 6587, octet counting | the other system has acknowledged it, and the connection stood behind that ([`line`]) |
//! | `tls` | RFC 5425 | the same, and a server whose certificate is vouched for |
//!
//! Syslog has no answer. What was written to a connection that broke before it counts is written again to the next one, so a message
//! may come twice: epoch and `delivery_seq` say so. What the other system took and its program never read is lost unseen, as is a
//! datagram: who must know uses webhooks or informs.

mod acknowledged;
mod draft;
mod line;
mod message;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;

use self::draft::Draft;
use self::line::Line;
use self::message::{APP_NAME_CHARS_MAX, HOSTNAME_CHARS_MAX, Sender};
use super::Notification;
use super::pace::Pace;
use super::sink::{Delivered, SEND_TIME_MAX, SendError, Sink, SinkLimits, SinkTools};
use crate::agent::oids::Root;
use crate::trust::ClientTls;

/// What every receiver takes, by RFC 5426 section 3.2: less cannot be set.
pub const MESSAGE_BYTES_MIN: usize = 480;
/// The longest message: what fits into a datagram.
pub const MESSAGE_BYTES_MAX: usize = 65_507;
/// How long it is waited for somebody to say that nobody listens there.
const REFUSAL_WAIT: Duration = Duration::from_millis(50);
/// How long datagrams go to where the receiver was found, until its name is looked up again: nobody says that it has moved.
const FOUND_FOR: Duration = Duration::from_secs(60);
/// How many messages are handed over at a time.
const BATCH_MAX: usize = 100;
/// How many such batches wait for a connection to have stood.
const WINDOW: usize = 4;

/// Where a syslog receiver is, and what it is told as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Host and port.
    pub address: String,
    /// By what.
    pub transport: Transport,
    /// As which facility.
    pub facility: Facility,
    /// As which program.
    pub app_name: String,
    /// As which host; as this one is called, if absent.
    pub hostname: Option<String>,
    /// Where KLAXON-ALARM-MIB stands: its enterprise names our structured data.
    pub root: Root,
    /// The longest message. What is longer is cut.
    pub message_bytes_max: usize,
    /// The most datagrams a second.
    pub datagram_rate: NonZeroU32,
    /// How long a connection may take to come about, and to take what was written.
    pub timeout: Duration,
    /// The authorities that vouch for the server, in PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that we show, with its chain, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The node's address for people, for links in what is sent.
    pub external_url: Option<String>,
}

/// By what messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram for each.
    Udp,
    /// One after the other on a connection.
    Tcp,
    /// The same, in TLS.
    Tls,
}

impl Transport {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// What kind of program says it (RFC 5424 table 1), by the names of syslog(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are words of the standard")]
pub enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Cron = 9,
    Authpriv = 10,
    Audit = 13,
    Alert = 14,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

impl Facility {
    /// All, with their words.
    const ALL: [(&str, Self); 16] = [
        ("user", Self::User),
        ("daemon", Self::Daemon),
        ("auth", Self::Auth),
        ("syslog", Self::Syslog),
        ("cron", Self::Cron),
        ("authpriv", Self::Authpriv),
        ("audit", Self::Audit),
        ("alert", Self::Alert),
        ("local0", Self::Local0),
        ("local1", Self::Local1),
        ("local2", Self::Local2),
        ("local3", Self::Local3),
        ("local4", Self::Local4),
        ("local5", Self::Local5),
        ("local6", Self::Local6),
        ("local7", Self::Local7),
    ];
}

impl FromStr for Facility {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == word);
        found.map(|(_, facility)| facility).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.into_iter().map(|(name, _)| name).collect();
            format!("is none of {}", words.join(", "))
        })
    }
}

impl SyslogConfig {
    /// The defaults for a receiver at `address`.
    pub fn new(address: String, transport: Transport) -> Self {
        Self {
            address,
            transport,
            facility: Facility::Daemon,
            app_name: "klaxon".to_owned(),
            hostname: None,
            root: Root::default(),
            // What travels in one piece, and what RFC 5425 section 4.3.1 asks receivers to take.
            message_bytes_max: if transport == Transport::Udp { 1472 } else { 8192 },
            datagram_rate: NonZeroU32::new(1000).expect("is not zero"),
            timeout: Duration::from_secs(10),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            external_url: None,
        }
    }

    /// The first setting that cannot be, and why.
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let no = |key, reason: String| Some((key, reason));
        let is_address =
            self.address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_address {
            return no("address", "is no host and port, such as log.example:6514 or [2001:db8::1]:514".to_owned());
        }
        let is_word =
            |word: &str, max: usize| (1..=max).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_word(&self.app_name, APP_NAME_CHARS_MAX) {
            return no("app_name", format!("must have 1 to {APP_NAME_CHARS_MAX} printable ASCII characters and no spaces"));
        }
        if self.hostname.as_ref().is_some_and(|name| !is_word(name, HOSTNAME_CHARS_MAX)) {
            return no("hostname", format!("must have 1 to {HOSTNAME_CHARS_MAX} printable ASCII characters and no spaces"));
        }
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&self.message_bytes_max) {
            return no("message_bytes_max", format!("must be between {MESSAGE_BYTES_MIN} and {MESSAGE_BYTES_MAX}"));
        }
        // Of a delivery, connecting is one half, and being taken the other.
        let most = SEND_TIME_MAX / 3;
        if !(Duration::from_millis(100)..=most).contains(&self.timeout) {
            return no("timeout", format!("must be between 100ms and {}s", most.as_secs()));
        }
        let wait = Duration::from_secs(1) * u32::try_from(BATCH_MAX).expect("is small") / self.datagram_rate.get();
        if self.transport == Transport::Udp && wait > SEND_TIME_MAX / 2 {
            return no("datagram_rate", format!("is too low: {BATCH_MAX} messages would wait {} s", wait.as_secs()));
        }
        let tls = [("ca_file", &self.ca_file), ("certificate_file", &self.certificate_file), ("key_file", &self.key_file)];
        if let Some((key, _)) = tls.into_iter().find(|(_, file)| file.is_some() && self.transport != Transport::Tls) {
            return no(key, "is for the transport tls".to_owned());
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return no("certificate_file", "needs key_file, and key_file needs certificate_file".to_owned());
        }
        None
    }

    /// Where it is, and by what.
    pub fn target(&self) -> String {
        format!("{} ({})", self.address, self.transport.as_str())
    }

    /// The host without its port.
    fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn tls(&self) -> ClientTls {
        ClientTls { authorities: self.ca_file.clone(), client: self.certificate_file.clone().zip(self.key_file.clone()) }
    }
}

/// What tells one syslog receiver.
pub struct SyslogSink {
    config: SyslogConfig,
    tools: SinkTools,
    sender: Sender,
    draft: Draft,
    pace: Pace,
    /// The connection that is written to, if there is one.
    line: Mutex<Option<Arc<Line>>>,
    /// What datagrams are sent from, to where the receiver was found.
    socket: Mutex<Option<Found>>,
}

/// Where the receiver was found.
struct Found {
    socket: Arc<UdpSocket>,
    at: Instant,
}

impl SyslogSink {
    /// The sink of `config`.
    pub fn new(config: &SyslogConfig, tools: &SinkTools) -> Self {
        let sender = Sender {
            facility: config.facility,
            hostname: config.hostname.clone().unwrap_or_else(hostname),
            app_name: config.app_name.clone(),
            process: std::process::id(),
        };
        let draft = Draft::new(&config.root, config.external_url.as_deref());
        let pace = Pace::new(config.datagram_rate);
        let (config, tools) = (config.clone(), tools.clone());
        Self { config, tools, sender, draft, pace, line: Mutex::default(), socket: Mutex::default() }
    }

    fn written(&self, batch: &[Notification]) -> Vec<Vec<u8>> {
        let catalogue = self.tools.catalogue.load();
        let write = |told| self.draft.message(&catalogue, told).write(&self.sender, self.config.message_bytes_max);
        batch.iter().map(write).collect()
    }

    async fn send_stream(&self, messages: Vec<Vec<u8>>) -> Result<(), SendError> {
        let frame = |message: Vec<u8>| [format!("{} ", message.len()).into_bytes(), message].concat();
        let bytes = messages.into_iter().map(frame).collect::<Vec<_>>().concat();
        let line = self.line().await.map_err(SendError::Unreachable)?;
        line.send(&bytes).await.map_err(SendError::Unreachable)
    }

    /// The connection, a new one if the last has ended.
    async fn line(&self) -> Result<Arc<Line>, String> {
        let mut kept = self.line.lock().await;
        match &*kept {
            Some(line) if !line.is_over() => Ok(Arc::clone(line)),
            _ => {
                *kept = None;
                Ok(Arc::clone(kept.insert(Arc::new(Line::open(&self.config, &self.tools.authorities).await?))))
            }
        }
    }

    async fn send_datagrams(&self, messages: &[Vec<u8>]) -> Result<(), SendError> {
        let no = |error: std::io::Error| SendError::Unreachable(format!("it could not be sent: {error}"));
        let socket = self.socket().await.map_err(no)?;
        let sent = async {
            for message in messages {
                self.pace.wait().await;
                socket.send(message).await?;
            }
            // The other system says so if nobody listens there. It may send something else, which is nothing to us.
            let mut nothing = [0; 1];
            let refused = async {
                loop {
                    socket.recv(&mut nothing).await?;
                }
            };
            tokio::time::timeout(REFUSAL_WAIT, refused).await.unwrap_or(Ok(()))
        };
        let sent: std::io::Result<()> = sent.await;
        if sent.is_err() {
            // It may be found elsewhere by now.
            *self.socket.lock().await = None;
        }
        sent.map_err(no)
    }

    async fn socket(&self) -> std::io::Result<Arc<UdpSocket>> {
        let mut kept = self.socket.lock().await;
        if let Some(found) = kept.as_ref().filter(|found| found.at.elapsed() < FOUND_FOR) {
            return Ok(Arc::clone(&found.socket));
        }
        let looked_up = tokio::time::timeout(self.config.timeout, tokio::net::lookup_host(&self.config.address)).await;
        let addresses: Vec<SocketAddr> = match (looked_up.map_err(std::io::Error::from).flatten(), kept.as_mut()) {
            (Ok(addresses), _) => addresses.collect(),
            // Where names cannot be looked up now, it is where it was.
            (Err(_), Some(found)) => found.socket.peer_addr().into_iter().collect(),
            (Err(error), None) => return Err(error),
        };
        if let Some(found) = kept.as_mut().filter(|found| found.socket.peer_addr().is_ok_and(|peer| addresses.contains(&peer)))
        {
            found.at = Instant::now();
            return Ok(Arc::clone(&found.socket));
        }
        let mut failed = std::io::Error::other("its name has no address");
        for address in addresses {
            let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
            match socket.connect(address).await {
                Ok(()) => {
                    let found = kept.insert(Found { socket: Arc::new(socket), at: Instant::now() });
                    return Ok(Arc::clone(&found.socket));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl Sink for SyslogSink {
    fn limits(&self) -> SinkLimits {
        SinkLimits { window: if self.config.transport == Transport::Udp { 1 } else { WINDOW }, batch_max: BATCH_MAX }
    }

    fn send(&self, batch: Vec<Notification>) -> BoxFuture<'_, Result<Delivered, SendError>> {
        Box::pin(async move {
            let messages = self.written(&batch);
            match self.config.transport {
                Transport::Udp => self.send_datagrams(&messages).await?,
                Transport::Tcp | Transport::Tls => self.send_stream(messages).await?,
            }
            Ok(Delivered::Confirmed)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(line) = self.line.lock().await.take() {
                line.close().await;
            }
        })
    }
}

/// What this host is called, as far as HOSTNAME can say it; `-`, if it is called nothing.
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().filter(char::is_ascii_graphic).take(HOSTNAME_CHARS_MAX).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests;

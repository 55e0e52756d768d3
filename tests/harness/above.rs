//! A node above, as a test plays it: it speaks the protocol of an uplink, keeps what comes, and can be cut off at any message.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use klaxon_api::uplink::codec;
use klaxon_schemas::child::{Reached, Span, fingerprint};
use klaxon_schemas::ids::{ActionId, AlarmId, Epoch, Position};
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::{Down, Hello, PlacedEvent, Up, Welcome};
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, accept_hdr};

use super::wait_until;

/// What came.
#[derive(Default)]
pub(crate) struct Came {
    pub(crate) hellos: Vec<Hello>,
    /// What stood behind `Bearer`, of each connection.
    pub(crate) tokens: Vec<String>,
    pub(crate) compares: usize,
    pub(crate) reached: Option<Reached>,
    pub(crate) alarms: BTreeMap<AlarmId, v1::Alarm>,
    pub(crate) live: Vec<v1::Change>,
    pub(crate) history: Vec<v1::Change>,
    pub(crate) gaps: Vec<Span>,
    pub(crate) events: Vec<PlacedEvent>,
    /// Actions, and how many live changes had come before.
    pub(crate) acted: Vec<(ActionId, usize)>,
    pub(crate) moved: Option<String>,
    pub(crate) rotated: usize,
    /// Bytes of live messages and of history, and how many of each.
    pub(crate) history_bytes: usize,
    pub(crate) history_messages: usize,
    pub(crate) alignments: usize,
    /// When the first live change had come, how much history had.
    pub(crate) history_at_first_live: Option<usize>,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

struct Inner {
    came: Mutex<Came>,
    down: Mutex<VecDeque<Value>>,
    /// How many messages of a connection are heard before it is cut.
    cut_after: AtomicUsize,
    stop: AtomicBool,
    /// Answers nothing to live messages and history.
    deaf: AtomicBool,
    /// What to say in place of the next welcome.
    instead: Mutex<Option<Value>>,
    credential: Mutex<Option<String>>,
    /// Who comes with one of these is not let in.
    void: Mutex<Vec<String>>,
    connected: AtomicUsize,
    heartbeat_s: AtomicUsize,
    /// The ranges that are said to differ; all of them if nothing is set.
    differ: Mutex<Option<Vec<u8>>>,
}

/// The node above.
pub(crate) struct Above {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

impl Drop for Above {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl Above {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("has one");
        let inner = Arc::new(Inner {
            came: Mutex::default(),
            down: Mutex::default(),
            cut_after: AtomicUsize::new(usize::MAX),
            stop: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            instead: Mutex::default(),
            credential: Mutex::new(Some("first-credential".to_owned())),
            void: Mutex::default(),
            connected: AtomicUsize::new(0),
            heartbeat_s: AtomicUsize::new(30),
            differ: Mutex::default(),
        });
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                serving.serve(stream.expect("a connection"));
            }
        });
        Self { address, inner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn came(&self) -> MutexGuard<'_, Came> {
        self.inner.came.lock().expect("nobody panics")
    }

    pub(crate) fn send(&self, down: Down) {
        self.send_json(serde_json::to_value(down).expect("serializes"));
    }

    /// As another release may say it.
    pub(crate) fn send_json(&self, down: Value) {
        self.inner.down.lock().expect("nobody panics").push_back(down);
    }

    pub(crate) fn instead_of_welcome(&self, down: Down) {
        self.instead_json(serde_json::to_value(down).expect("serializes"));
    }

    pub(crate) fn instead_json(&self, down: Value) {
        *self.inner.instead.lock().expect("nobody panics") = Some(down);
    }

    /// Who comes with `token` is not let in.
    pub(crate) fn make_void(&self, token: &str) {
        self.inner.void.lock().expect("nobody panics").push(token.to_owned());
    }

    /// The next welcome brings this credential.
    pub(crate) fn give(&self, credential: &str) {
        *self.inner.credential.lock().expect("nobody panics") = Some(credential.to_owned());
    }

    pub(crate) fn differ(&self, buckets: Option<Vec<u8>>) {
        *self.inner.differ.lock().expect("nobody panics") = buckets;
    }

    pub(crate) fn set_heartbeat(&self, seconds: usize) {
        self.inner.heartbeat_s.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.inner.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Each connection is cut after so many messages.
    pub(crate) fn cut_after(&self, messages: usize) {
        self.inner.cut_after.store(messages, Ordering::Relaxed);
    }

    /// The connection that lives is cut, or the next one.
    pub(crate) fn cut_now(&self) {
        self.cut_after(0);
        wait_until("the connection is cut", || self.inner.connected.load(Ordering::Relaxed) == 0);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.inner.connected.load(Ordering::Relaxed) > 0
    }

    /// Whether all up to `position` has come, and nothing is missing.
    pub(crate) fn has_all(&self, position: u64) -> bool {
        self.came().reached.as_ref().is_some_and(|reached| reached.missing.is_empty() && reached.position.0 >= position)
    }

    /// All changes that came, by their number; nothing may have come twice.
    pub(crate) fn changes(&self) -> BTreeMap<(u64, u64), v1::Change> {
        let came = self.came();
        assert!(came.wrong.is_empty(), "{:?}", came.wrong);
        let mut all = BTreeMap::new();
        for change in came.history.iter().chain(&came.live) {
            let twice = all.insert((change.epoch.0, change.seq.0), change.clone());
            assert!(twice.is_none(), "came twice: {change:?}");
        }
        all
    }
}

impl Inner {
    fn serve(&self, stream: TcpStream) {
        let mut token = String::new();
        #[expect(clippy::result_large_err, reason = "it is the library's")]
        let look = |request: &Request, response: Response| {
            assert_eq!(request.uri().path(), "/api/v1/uplink");
            let said = request.headers().get("authorization").map(|value| value.to_str().expect("is text").to_owned());
            token = said.and_then(|said| said.strip_prefix("Bearer ").map(str::to_owned)).unwrap_or_default();
            if self.void.lock().expect("nobody panics").contains(&token) {
                let mut denied = ErrorResponse::new(Some("nothing proves who it is".to_owned()));
                *denied.status_mut() = StatusCode::UNAUTHORIZED;
                return Err(denied);
            }
            Ok(response)
        };
        let Ok(mut socket) = accept_hdr(stream, look) else { return };
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(5))).expect("can be set");
        self.came.lock().expect("nobody panics").tokens.push(token);
        self.connected.fetch_add(1, Ordering::Relaxed);
        let mut heard = 0;
        loop {
            if self.stop.load(Ordering::Relaxed) || heard >= self.cut_after.load(Ordering::Relaxed) {
                // Not even a farewell.
                let _ = socket.get_ref().shutdown(std::net::Shutdown::Both);
                break;
            }
            let waiting: Vec<_> = self.down.lock().expect("nobody panics").drain(..).collect();
            for down in waiting {
                say(&mut socket, &down);
            }
            match socket.read() {
                Ok(Message::Binary(bytes)) => {
                    heard += 1;
                    let len = bytes.len();
                    let up = codec::decode::<Up>(&bytes).expect("is understood");
                    if !self.hear(&mut socket, up, len) {
                        break;
                    }
                }
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    fn hear(&self, socket: &mut WebSocket<TcpStream>, up: Up, len: usize) -> bool {
        let mut came = self.came.lock().expect("nobody panics");
        let epoch = came.hellos.last().map_or(Epoch(0), |hello| hello.epoch);
        match up {
            Up::Hello(hello) => {
                let site = hello.site.clone();
                came.hellos.push(hello);
                if let Some(instead) = self.instead.lock().expect("nobody panics").take() {
                    say(socket, &instead);
                    return true;
                }
                say(
                    socket,
                    &Down::Welcome(Welcome {
                        protocol: 1,
                        child: site.as_str().parse().expect("is a name"),
                        site,
                        parent: "noc".parse().expect("is a site"),
                        version: "test".to_owned(),
                        reached: came.reached.clone(),
                        heartbeat_s: u32::try_from(self.heartbeat_s.load(Ordering::Relaxed)).expect("small"),
                        wall: "2026-01-01T00:00:00Z".parse().expect("is a time"),
                        credential: self.credential.lock().expect("nobody panics").take(),
                    }),
                );
            }
            Up::Compare { .. } => {
                came.compares += 1;
                let buckets = self.differ.lock().expect("nobody panics").clone();
                say(socket, &Down::Differ { buckets: buckets.unwrap_or_else(|| (0..=255).collect()) });
            }
            Up::Relay(content) => self.relay(socket, &mut came, content, epoch, len),
            Up::Events { after, upto, events, .. } => {
                let position = came.reached.as_ref().map_or(Position(0), |reached| reached.position);
                if after != position {
                    came.wrong.push(format!("events behind {after}, {position} was reached"));
                }
                came.events.extend(events);
                came.reached = Some(Reached { epoch, position: upto, fingerprint: 0, missing: Vec::new() });
                if !self.deaf.load(Ordering::Relaxed) {
                    say(socket, &Down::Reached(came.reached.clone().expect("was set")));
                }
            }
            Up::Moved { to } => came.moved = Some(to),
            Up::Rotated => came.rotated += 1,
            Up::Unknown => came.wrong.push("an unknown message".to_owned()),
        }
        true
    }

    fn relay(&self, socket: &mut WebSocket<TcpStream>, came: &mut Came, content: v1::RelayContent, epoch: Epoch, len: usize) {
        let reached = came.reached.clone();
        match content {
            v1::RelayContent::Alignment { from, to, alarms, .. } => {
                came.alignments += 1;
                came.alarms.retain(|id, _| *id < from || *id > to);
                for alarm in alarms.known {
                    if alarm.id < from || alarm.id > to {
                        came.wrong.push(format!("alarm {} is not between {from} and {to}", alarm.id));
                    }
                    came.alarms.insert(alarm.id, alarm);
                }
                return;
            }
            v1::RelayContent::Aligned { at, after, fingerprint, .. } => {
                let known = reached.filter(|reached| reached.epoch == epoch);
                let mut missing = known.as_ref().map(|known| known.missing.clone()).unwrap_or_default();
                let after = known.map_or(after, |known| known.position);
                if after < at {
                    missing.push(Span { after, upto: at });
                }
                came.reached = Some(Reached { epoch, position: at, fingerprint, missing });
            }
            v1::RelayContent::Live { after, upto, changes } => {
                let is_next = |reached: &Reached| reached.position == after && reached.epoch == epoch;
                let Some(mut reached) = reached.clone().filter(is_next) else {
                    came.wrong.push(format!("live behind {after}, {reached:?} was reached"));
                    return;
                };
                let history = came.history.len();
                if !changes.is_empty() {
                    came.history_at_first_live.get_or_insert(history);
                }
                for change in changes.iter() {
                    let core = change.clone().try_into().expect("is a change");
                    reached.fingerprint = fingerprint(&core);
                    apply(&mut came.alarms, change);
                }
                reached.position = upto;
                came.reached = Some(reached);
                came.live.extend(changes.known);
            }
            v1::RelayContent::History { after, upto, changes } => {
                came.history_messages += 1;
                came.history_bytes += len;
                came.history.extend(changes.known);
                came.advance(after, upto);
            }
            v1::RelayContent::Gap { after, upto } => {
                came.gaps.push(Span { after, upto });
                came.advance(after, upto);
            }
            v1::RelayContent::Acted { actions } => {
                let live = came.live.len();
                came.acted.extend(actions.into_iter().map(|id| (id, live)));
            }
        }
        if let Some(reached) = came.reached.clone().filter(|_| !self.deaf.load(Ordering::Relaxed)) {
            say(socket, &Down::Reached(reached));
        }
    }
}

impl Came {
    fn advance(&mut self, after: Position, upto: Position) {
        let first = self.reached.as_mut().and_then(|reached| reached.missing.first_mut());
        match first {
            Some(span) if span.after == after && upto <= span.upto && upto > after => span.after = upto,
            other => {
                let wrong = format!("history behind {after} up to {upto}, but {other:?} is missing");
                self.wrong.push(wrong);
            }
        }
        if let Some(reached) = &mut self.reached {
            reached.missing.retain(|span| span.after < span.upto);
        }
    }
}

fn apply(alarms: &mut BTreeMap<AlarmId, v1::Alarm>, change: &v1::Change) {
    use klaxon_schemas::change::ChangeKind;
    if let v1::ChangeSubject::Alarm { alarm, .. } = &change.subject {
        if matches!(change.kind, ChangeKind::Purged | ChangeKind::Retired) {
            alarms.remove(&alarm.id);
        } else {
            alarms.insert(alarm.id, (**alarm).clone());
        }
    }
}

fn say(socket: &mut WebSocket<TcpStream>, down: &impl serde::Serialize) {
    // Who is gone hears nothing.
    let _ = socket.send(Message::Binary(codec::encode(down).expect("encodes")));
}

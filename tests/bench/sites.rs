//! A thousand sites below one centre: `./dev bench sites`. What they cost while nothing happens; how all of them come back after an
//! hour, and what that holds up; how ten thousand differing alarms are brought in line; and what a change costs on the line.
//!
//! The thousand sites are clients in this process that speak the uplink's protocol; for what is measured on the line it is a real
//! node. `KLAXON_SITES` and `KLAXON_BACKLOG` say another number of sites, and of changes that each has missed. All share the
//! machine's cores.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;
#[path = "../harness/wan.rs"]
mod wan;
#[path = "../sites/world.rs"]
#[allow(dead_code, reason = "a benchmark uses its part")]
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use harness::{scratch, wait_until};
use klaxon_api::uplink::codec;
use klaxon_schemas::child::{ChildKind, Digests, bucket_bounds};
use klaxon_schemas::ids::{AlarmId, Epoch, Position, Seq};
use klaxon_schemas::names::Site;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::{Down, Hello, PATH, PROTOCOL, Up};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;
use world::{Below, Place};

const ALARMS: u64 = 100;
const DIFFERING: usize = 10_000;
const IDLE: Duration = Duration::from_secs(60);
/// About how many changes go into a message of history.
const PAGE: u64 = 250;

type Line = WebSocketStream<TcpStream>;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    println!("## sites");
    let (sites, backlog) = (number("KLAXON_SITES", 1000), number("KLAXON_BACKLOG", 1000));
    many(sites, backlog);
    on_the_line();
}

fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::default().saturating_add_micros(i64::try_from(since.as_micros()).expect("fits"))
}

/// A site as the protocol knows it: its last position, and what stands.
struct Client {
    name: String,
    token: String,
    node: Uuid,
    at: u64,
    line: Option<Line>,
}

impl Client {
    fn id(&self, alarm: u64) -> AlarmId {
        AlarmId(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/{alarm}", self.name).as_bytes()))
    }

    /// One of its alarms, as it is after the change with the number `seq`.
    fn alarm(&self, alarm: u64, seq: u64, severity: &str) -> v1::Alarm {
        let at = wall().to_string();
        let form = json!({
            "id": self.id(alarm), "site": self.name, "resource": format!("host=h{}.filesystem=/data/{alarm}", alarm % 10),
            "alarm_type": "disk.full", "severity": severity, "cleared": false,
            "text": format!("file system /data/{alarm} is {} % full", seq % 100), "event_type": "quality-of-service",
            "probable_cause": "storage-capacity-problem", "raise_seq": 1, "first_raised_at": at, "raised_at": at, "changed_at": at,
            "last_change": { "epoch": 1, "seq": seq }, "count": 1, "last_reported_at": at,
        });
        serde_json::from_value(form).expect("is one")
    }

    fn change(&self, seq: u64) -> v1::Change {
        let severity = ["minor", "major", "critical"][(seq % 3) as usize];
        v1::Change {
            site: Site::new(&self.name).expect("valid"),
            epoch: Epoch(1),
            seq: Seq(seq),
            at: wall(),
            past: false,
            kind: klaxon_schemas::change::ChangeKind::SeverityChanged,
            reasons: Vec::new(),
            actor: None,
            from: None,
            note: None,
            subject: v1::ChangeSubject::Alarm {
                alarm: Box::new(self.alarm(seq % ALARMS, seq, severity)),
                previous_severity: None,
            },
            place: None,
        }
    }

    async fn connect(&mut self, centre: SocketAddr) -> v1::uplink::Welcome {
        let tcp = TcpStream::connect(centre).await.expect("it listens");
        tcp.set_nodelay(true).expect("can be set");
        let mut request = format!("ws://{centre}{PATH}").into_client_request().expect("is a request");
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token).parse().expect("is a header"));
        let (line, _) = tokio_tungstenite::client_async(request, tcp).await.expect("is let in");
        self.line = Some(line);
        let hello = Hello {
            protocols: vec![PROTOCOL],
            kind: ChildKind::Site,
            site: Site::new(&self.name).expect("valid"),
            node: self.node,
            epoch: Epoch(1),
            epoch_after: Position(0),
            last: Position(self.at),
            last_seq: Seq(self.at),
            version: "bench".to_owned(),
            wall: wall(),
        };
        self.say(codec::encode(&Up::Hello(hello)).expect("encodes")).await;
        loop {
            match self.hear().await {
                Down::Welcome(mut welcome) => {
                    if let Some(token) = welcome.credential.take() {
                        self.token = token;
                    }
                    return welcome;
                }
                Down::Refused { reason, .. } => panic!("{}: {reason}", self.name),
                _ => {}
            }
        }
    }

    async fn say(&mut self, bytes: bytes::Bytes) {
        self.line.as_mut().expect("is connected").send(Message::Binary(bytes)).await.expect("is sent");
    }

    async fn relay(&mut self, content: v1::RelayContent) {
        let bytes = codec::encode(&Up::Relay(content)).expect("encodes");
        self.say(bytes).await;
    }

    async fn hear(&mut self) -> Down {
        loop {
            let next = self.line.as_mut().expect("is connected").next().await;
            match next.unwrap_or_else(|| panic!("{}: it ended", self.name)).expect("is read") {
                Message::Binary(bytes) => match codec::decode(&bytes).expect("is understood") {
                    Down::Refused { reason, .. } => panic!("{}: {reason}", self.name),
                    down => return down,
                },
                Message::Close(frame) => panic!("{}: {frame:?}", self.name),
                _ => {}
            }
        }
    }

    /// Waits until all that is live has come in, and all history that is not to be missing any more.
    async fn reached(&mut self, missing_after: Option<u64>) {
        loop {
            if let Down::Reached(reached) = self.hear().await {
                let is_in = reached.position.0 >= self.at;
                let oldest = reached.missing.first().map(|span| span.after.0);
                if is_in && oldest.is_none_or(|after| missing_after.is_some_and(|wanted| after >= wanted)) {
                    return;
                }
            }
        }
    }

    /// Compares, sends what differs, and says where it stands.
    async fn align(&mut self, after: u64, seq_of: impl Fn(u64) -> u64) {
        let alarms: Vec<_> = (0..ALARMS).map(|alarm| self.alarm(alarm, seq_of(alarm), "major")).collect();
        let mirrored: Vec<klaxon_schemas::alarm::Alarm> =
            alarms.iter().map(|alarm| alarm.clone().try_into().expect("is one")).collect();
        let shared: Vec<_> = mirrored.into_iter().map(Arc::new).collect();
        let digests = Digests::of(&shared).to_hex();
        self.say(codec::encode(&Up::Compare { at: Position(self.at), digests }).expect("encodes")).await;
        let buckets = loop {
            if let Down::Differ { buckets } = self.hear().await {
                break buckets;
            }
        };
        let mut alarms = alarms;
        alarms.sort_by_key(|alarm| alarm.id);
        alarms.retain(|alarm| buckets.contains(&alarm.id.0.as_bytes()[0]));
        if let (Some(first), Some(last)) = (buckets.first(), buckets.last()) {
            // One part about all ranges, or one for each that differs.
            if buckets.len() == usize::from(last - first) + 1 {
                let (from, to) = (bucket_bounds(*first).0, bucket_bounds(*last).1);
                self.relay(v1::RelayContent::Alignment { at: Position(self.at), from, to, alarms: alarms.into() }).await;
            } else {
                for bucket in buckets {
                    let (from, to) = bucket_bounds(bucket);
                    let alarms: Vec<_> = alarms.iter().filter(|alarm| (from..=to).contains(&alarm.id)).cloned().collect();
                    self.relay(v1::RelayContent::Alignment { at: Position(self.at), from, to, alarms: alarms.into() }).await;
                }
            }
        }
        let aligned: v1::RelayContent =
            serde_json::from_value(json!({ "aligned": { "at": self.at, "after": after, "fingerprint": 0 } })).expect("is one");
        self.relay(aligned).await;
        self.reached(Some(0)).await;
    }

    /// Says that it is there, as long as it is to.
    async fn idle(mut self, heartbeat: Duration, stop: tokio::sync::watch::Receiver<bool>) -> Self {
        let mut stop = stop;
        let mut beats = tokio::time::interval_at(
            tokio::time::Instant::now() + heartbeat.mul_f64(f64::from(self.node.as_bytes()[0]) / 256.0),
            heartbeat,
        );
        loop {
            let line = self.line.as_mut().expect("is connected");
            tokio::select! {
                _ = stop.changed() => return self,
                _ = beats.tick() => {
                    let now = bytes::Bytes::copy_from_slice(&wall().as_micros().to_be_bytes());
                    line.send(Message::Ping(now)).await.expect("is sent");
                }
                message = line.next() => { message.expect("goes on").expect("is read"); }
            }
        }
    }
}

/// A thousand sites: joining, idling, all of them coming back after an hour.
fn many(sites: u64, backlog: u64) {
    let scratch = scratch("bench-");
    measure::print_disk(scratch.path());
    let centre = Place::start(scratch.path(), "centre", "[sites]\nconnections_max = 5000\n[engine]\n");
    measure::print_memory(&centre, "of a centre without sites");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("builds");
    let clients: Vec<_> = (0..sites)
        .map(|number| {
            let name = format!("site-{number:04}");
            let token = centre.enrol(&name, "site");
            Client { name, token, node: Uuid::new_v4(), at: ALARMS, line: None }
        })
        .collect();
    let address = centre.address();
    let begun = Instant::now();
    let clients = runtime.block_on(all(clients, 64, move |mut client| async move {
        client.connect(address).await;
        client.align(ALARMS, |alarm| alarm + 1).await;
        client
    }));
    println!("{sites} sites joined, {ALARMS} alarms each, in {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(active(&centre), sites * ALARMS);
    measure::print_memory(&centre, "with all of them connected");

    // Nothing happens for a minute.
    let before = measure::node_cpu(&centre);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let begun = Instant::now();
    let clients = runtime.block_on(async {
        let idling: JoinSet<Client> =
            clients.into_iter().map(|client| client.idle(Duration::from_secs(30), stopped.clone())).collect();
        tokio::time::sleep(IDLE).await;
        stop.send(true).expect("they listen");
        idling.join_all().await
    });
    let used = measure::node_cpu(&centre) - before;
    println!(
        "their heartbeats cost the centre {:.2} % of a core (over {:.0} s)",
        used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0,
        begun.elapsed().as_secs_f64()
    );
    measure::print_memory(&centre, "after that minute");

    // They were away; each has a backlog. One stays, and something happens there.
    let mut clients = clients;
    let mut witness = clients.pop().expect("there are some");
    for client in &mut clients {
        client.line = None;
    }
    wait_until("they are away", || sites_in(&centre, "connected") <= 1);
    let (sent, cpu) = (Arc::new(AtomicU64::new(0)), measure::node_cpu(&centre));
    let count = clients.len() as u64;
    // What each will send is made before, so that it is the centre that is measured.
    let ready: Vec<_> = runtime.block_on(all(clients, 4, move |client| async move {
        tokio::task::spawn_blocking(move || {
            let pages = pages(&client, backlog);
            (client, pages)
        })
        .await
        .expect("is made")
    }));
    let begun = Instant::now();
    let counted = Arc::clone(&sent);
    let coming = runtime.spawn(all(ready, 1000, move |(mut client, pages)| {
        let sent = Arc::clone(&counted);
        async move {
            let after = client.at;
            client.at += backlog;
            client.connect(address).await;
            client.align(after, |alarm| last_seq(alarm, after + backlog)).await;
            for (upto, page) in pages {
                sent.fetch_add(page.len() as u64, Ordering::Relaxed);
                client.say(page).await;
                client.reached((upto < client.at).then_some(upto)).await;
            }
            client
        }
    }));
    let mut delays = Vec::new();
    let mut next = 0;
    while !coming.is_finished() {
        std::thread::sleep(Duration::from_millis(500));
        next += 1;
        let fresh = Instant::now();
        witness = runtime.block_on(async {
            let (after, seq) = (witness.at, witness.at + 1);
            let mut change = witness.change(seq);
            change.kind = klaxon_schemas::change::ChangeKind::Raised;
            let alarm = witness.alarm(100_000 + next, seq, "critical");
            change.subject = v1::ChangeSubject::Alarm { alarm: Box::new(alarm), previous_severity: None };
            let changes = vec![change];
            witness.at = seq;
            witness
                .relay(v1::RelayContent::Live { after: Position(after), upto: Position(seq), changes: changes.into() })
                .await;
            witness
        });
        let id = witness.id(100_000 + next);
        wait_until("the fresh one is listed", || {
            centre.get(&format!("/alarms/{}", id.0)).is_ok_and(|reply| reply.status == 200)
        });
        delays.push(fresh.elapsed());
        runtime.block_on(witness.reached(None));
    }
    let back = runtime.block_on(coming).expect("goes well");
    let took = begun.elapsed();
    let changes = count * backlog;
    let used = measure::node_cpu(&centre) - cpu;
    delays.sort();
    println!(
        "{count} sites came back with {backlog} changes each: {changes} in {:.1} s, {:.0}/s; {:.0} us of CPU each, {:.1} bytes on the line each",
        took.as_secs_f64(),
        changes as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / changes as f64,
        sent.load(Ordering::Relaxed) as f64 / changes as f64
    );
    if let (Some(median), Some(worst)) = (delays.get(delays.len() / 2), delays.last()) {
        println!(
            "meanwhile a fresh critical of another site was in the list after {:.0} ms (median of {}), {:.0} ms (worst)",
            measure::millis(*median),
            delays.len(),
            measure::millis(*worst)
        );
    }
    wait_until("nothing is missing", || missing(&centre) == 0);
    measure::print_memory(&centre, "after that");
    measure::print_threads(&centre);
    drop(back);
}

/// The number of the last of so many changes that was about an alarm.
fn last_seq(alarm: u64, last: u64) -> u64 {
    last - (last + ALARMS - alarm) % ALARMS
}

/// A backlog as messages, each with where it ends.
fn pages(client: &Client, backlog: u64) -> Vec<(u64, bytes::Bytes)> {
    let (mut after, last) = (client.at, client.at + backlog);
    let mut pages = Vec::new();
    while after < last {
        let upto = (after + PAGE).min(last);
        let changes: Vec<_> = (after + 1..=upto).map(|seq| client.change(seq)).collect();
        let content = v1::RelayContent::History { after: Position(after), upto: Position(upto), changes: changes.into() };
        pages.push((upto, codec::encode(&Up::Relay(content)).expect("encodes")));
        after = upto;
    }
    pages
}

/// Does `work` on all, so many at a time.
async fn all<T, U, F>(items: Vec<T>, at_once: usize, work: impl Fn(T) -> F) -> Vec<U>
where
    F: Future<Output = U> + Send + 'static,
    U: Send + 'static,
{
    let mut running = JoinSet::new();
    let mut done = Vec::with_capacity(items.len());
    for item in items {
        while running.len() >= at_once {
            done.extend(running.join_next().await.map(|one| one.expect("goes well")));
        }
        running.spawn(work(item));
    }
    done.extend(running.join_all().await);
    done
}

fn active(centre: &Place) -> u64 {
    centre.json("/alarms/summary")["active"].as_u64().expect("is counted")
}

fn sites_in(centre: &Place, state: &str) -> u64 {
    centre.json("/sites?limit=1")["states"][state].as_u64().expect("is counted")
}

fn missing(centre: &Place) -> u64 {
    let list = centre.json("/sites?limit=1000");
    list["sites"].as_array().into_iter().flatten().filter_map(|site| site["missing"].as_u64()).sum()
}

/// One real site: what it costs on the line, and how ten thousand alarms are brought in line.
fn on_the_line() {
    let scratch = scratch("bench-");
    let centre = Place::start(scratch.path(), "centre", "");
    let site = Below::join(scratch.path(), &centre, "alpha", "site", "");
    wait_until("it has settled", || missing(&centre) == 0);
    let (up, down) = site.wan.bytes();
    let begun = Instant::now();
    wait_until("a minute has passed", || begun.elapsed() > IDLE - Duration::from_secs(5));
    let (up, down) = (site.wan.bytes().0 - up, site.wan.bytes().1 - down);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("an idle uplink: {:.0} bytes a minute up, {:.0} down", up as f64 / minutes, down as f64 / minutes);

    site.wan.set(wan::Weather::Cut);
    wait_until("it is away", || !centre.site_is("alpha", "connected"));
    for batch in 0..DIFFERING / 1000 {
        let events: Vec<Value> = (0..1000)
            .map(|number| {
                let number = batch * 1000 + number;
                json!({
                    "resource": format!("host=h{}.filesystem=/data/{number}", number % 100), "alarm_type": "disk.full",
                    "severity": "major", "text": format!("file system /data/{number} is 91 % full, 1.2 GB are left"),
                })
            })
            .collect();
        site.send(&Value::from(events));
    }
    let before = site.wan.bytes().0;
    let begun = Instant::now();
    site.wan.set(wan::Weather::Fair);
    wait_until("all are listed", || active(&centre) >= DIFFERING as u64);
    let aligned = (begun.elapsed(), site.wan.bytes().0 - before);
    wait_until("their history has come", || missing(&centre) == 0 && centre.site_is("alpha", "connected"));
    let history = site.wan.bytes().0 - before - aligned.1;
    println!(
        "{DIFFERING} alarms that the centre did not know: listed after {:.2} s, {:.1} bytes each; their history {:.2} s later, {:.1} bytes a change",
        aligned.0.as_secs_f64(),
        aligned.1 as f64 / DIFFERING as f64,
        (begun.elapsed() - aligned.0).as_secs_f64(),
        history as f64 / DIFFERING as f64
    );
}

//! The agent over a socket, asked by the library's own client. What other managers make of it is in `tests/snmp_agent.rs` of the
//! whole project.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_snmp::{Auth, Client, ErrorStatus, Retry, UdpHandle, UsmConfig, Value as Wire};

use super::*;
use crate::{AuthProtocol, PrivProtocol};

const TABLE: [u32; 4] = [1, 3, 9, 1];
const SCALARS: [u32; 4] = [1, 3, 9, 2];

/// A table of three columns, the second of Counter64, and how often it was asked for what comes next.
struct Table {
    rows: u32,
    asked: Arc<AtomicU64>,
}

impl Table {
    fn cell(&self, column: u32, row: u32) -> Option<(Oid, Value)> {
        let value = match column {
            1 => Value::Integer(row as i32),
            2 => Value::Counter64(u64::from(row)),
            3 => Value::OctetString(Bytes::from_static(b"a cell")),
            _ => return None,
        };
        (1..=self.rows).contains(&row).then(|| (Oid::new(&[&TABLE[..], &[column, row]].concat()), value))
    }
}

impl Objects for Table {
    fn root(&self) -> Oid {
        Oid::new(&TABLE)
    }

    fn get(&self, oid: &[u32]) -> Found {
        match oid[TABLE.len()..] {
            [column @ 1..=3, row] => self.cell(column, row).map_or(Found::NoSuchInstance, |(_, value)| Found::Value(value)),
            [1..=3, ..] => Found::NoSuchInstance,
            _ => Found::NoSuchObject,
        }
    }

    fn next(&self, after: &[u32]) -> Option<(Oid, Value)> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if after < &TABLE[..] {
            return self.cell(1, 1);
        }
        let (column, row) = match *after.strip_prefix(&TABLE[..])? {
            [] | [0, ..] => (1, 1),
            [column] => (column, 1),
            [column, row, ..] => (column, row.saturating_add(1)),
        };
        self.cell(column, row).or_else(|| self.cell(column.checked_add(1)?, 1))
    }

    fn counter64(&self) -> Vec<Oid> {
        vec![Oid::new(&[&TABLE[..], &[2]].concat())]
    }
}

/// Two numbers that can be set, to at most 100; neither can be set to 13 once it comes to that.
#[derive(Default)]
struct Numbers {
    sets: Arc<Mutex<Vec<Set>>>,
}

impl Objects for Numbers {
    fn root(&self) -> Oid {
        Oid::new(&SCALARS)
    }

    fn get(&self, oid: &[u32]) -> Found {
        match oid[SCALARS.len()..] {
            [1 | 2, 0] => Found::Value(Value::Integer(7)),
            [1 | 2, ..] => Found::NoSuchInstance,
            _ => Found::NoSuchObject,
        }
    }

    fn next(&self, after: &[u32]) -> Option<(Oid, Value)> {
        let instances = [1, 2].map(|arc| Oid::new(&[&SCALARS[..], &[arc, 0]].concat()));
        instances.into_iter().find(|instance| instance.arcs() > after).map(|instance| (instance, Value::Integer(7)))
    }

    fn check(&self, varbind: &Varbind, _: &[Varbind]) -> Result<(), SetError> {
        match (&varbind.oid.arcs()[SCALARS.len()..], &varbind.value) {
            ([1 | 2, 0], Value::Integer(0..=100)) => Ok(()),
            ([1 | 2, 0], Value::Integer(_)) => Err(SetError::WrongValue),
            ([1 | 2, 0], _) => Err(SetError::WrongType),
            _ => Err(SetError::NoCreation),
        }
    }

    fn set(&self, request: Set) -> BoxFuture<'_, Result<(), SetFailed>> {
        Box::pin(async move {
            if request.varbinds.iter().any(|varbind| varbind.value == Value::Integer(13)) {
                return Err(SetFailed);
            }
            self.sets.lock().expect("nobody broke").push(request);
            Ok(())
        })
    }
}

/// A running agent.
struct Running {
    listen: SocketAddr,
    asked: Arc<AtomicU64>,
    sets: Arc<Mutex<Vec<Set>>>,
    counts: Arc<AgentCounts>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), AgentError>>,
    dir: tempfile::TempDir,
}

fn secret(text: &str) -> Secret {
    Secret(text.to_owned())
}

fn community(word: &str, read: View) -> Access {
    Access { who: Who::Community(secret(word)), read, write: Some(View::everything()) }
}

fn user(name: &str, auth: Option<AuthProtocol>, privacy: Option<PrivProtocol>) -> User {
    let (word, other) = (secret("authentic"), secret("concealed"));
    User::new(name, auth.zip(Some(&word)), privacy.zip(Some(&other)), false).expect("is right")
}

fn config(listen: SocketAddr, access: Vec<Access>) -> AgentConfig {
    let text = |text: &str| text.to_owned();
    let (contact, name, location) = (text("noc@example.net"), text("site"), text("rack 7"));
    let system = System { description: text("a node"), object_id: Oid::new(&[1, 3, 9]), contact, name, location };
    AgentConfig { listen, receive_buffer_bytes: 1 << 20, message_bytes_max: 1472, system, access }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

async fn start(rows: u32, access: Vec<Access>) -> Running {
    let dir = tempfile::tempdir().expect("can be made");
    let engine = Engine::start(dir.path()).expect("starts");
    let (asked, numbers) = (Arc::<AtomicU64>::default(), Numbers::default());
    let sets = Arc::clone(&numbers.sets);
    let objects: [Arc<dyn Objects>; 2] = [Arc::new(Table { rows, asked: Arc::clone(&asked) }), Arc::new(numbers)];
    let counts = Arc::new(AgentCounts::default());
    let stop = CancellationToken::new();
    let agent = Agent::bind(&config(loopback(), access), &engine, &objects, &counts, stop.clone()).await.expect("has a port");
    let listen = agent.local_addr();
    let task = tokio::spawn(agent.run());
    Running { listen, asked, sets, counts, stop, task, dir }
}

impl Running {
    async fn client(&self, auth: impl Into<Auth>) -> Client<UdpHandle> {
        let builder = Client::builder(self.listen.to_string(), auth);
        builder.request_timeout(Duration::from_secs(10)).retry(Retry::none()).connect().await.expect("can be made")
    }

    fn metric(&self, name: &str, label: &str) -> u64 {
        let rows = self.counts.rows();
        let row = rows.iter().find(|row| row.name == name && row.label.is_none_or(|(_, value)| value == label));
        row.expect("is there").value
    }
}

async fn walk(client: &Client<UdpHandle>) -> Vec<String> {
    let all = client.walk(WireOid::from_slice(&[1, 3, 9])).expect("can begin").collect().await.expect("goes to the end");
    all.into_iter().map(|varbind| varbind.oid.to_string()).collect()
}

fn status(error: &WireError) -> Option<ErrorStatus> {
    if let WireError::Snmp { status, .. } = error { Some(*status) } else { None }
}

#[tokio::test]
async fn what_a_view_hides_takes_one_step_and_not_one_for_each_row() {
    let hidden = View::new(&[Oid::new(&[1, 3])], &[Oid::new(&TABLE)]);
    let agent = start(10_000, vec![community("all", View::everything()), community("rest", hidden)]).await;
    let rest = walk(&agent.client(Auth::v2c("rest")).await).await;
    assert_eq!(rest, ["1.3.9.2.1.0", "1.3.9.2.2.0"]);
    let asked = agent.asked.load(Ordering::Relaxed);
    assert!(asked < 20, "the table was asked {asked} times");
    assert_eq!(walk(&agent.client(Auth::v1("rest")).await).await, rest);
    assert_eq!(walk(&agent.client(Auth::v2c("all")).await).await.len(), 30_002);
}

#[tokio::test]
async fn who_speaks_the_first_version_is_led_past_what_it_cannot_say() {
    let agent = start(1_500, vec![community("all", View::everything())]).await;
    let all = walk(&agent.client(Auth::v1("all")).await).await;
    assert_eq!(all.len(), 3_002);
    assert!(!all.iter().any(|oid| oid.starts_with("1.3.9.1.2.")));
    let asked = agent.asked.load(Ordering::Relaxed);
    assert!(asked < 3_100, "the table was asked {asked} times");
}

#[tokio::test]
async fn one_user_of_each_level_has_that_level_and_none_below() {
    let (sha, aes) = (Some(AuthProtocol::Sha256), Some(PrivProtocol::Aes128));
    let levels = [user("open", None, None), user("proved", sha, None), user("hidden", sha, aes)];
    let access = |who: &User| Access { who: Who::User(who.clone()), read: View::everything(), write: Some(View::everything()) };
    let agent = start(1, levels.iter().map(access).collect()).await;
    let object = WireOid::from_slice(&[&SCALARS[..], &[1, 0]].concat());
    for who in &levels {
        let got = agent.client(who.outbound()).await.get(&object).await.expect("is let");
        assert_eq!(got.varbinds[0].value, Wire::Integer(7));
        let set = agent.client(who.outbound()).await.set(&object, Wire::Integer(1)).await;
        let may_set = who.level() == Level::AuthPriv;
        assert_eq!(set.as_ref().err().and_then(|error| status(error)), (!may_set).then_some(ErrorStatus::AuthorizationError));
    }
    for who in ["proved", "hidden"] {
        let got = agent.client(UsmConfig::new(who)).await.get(&object).await;
        assert_eq!(got.err().and_then(|error| status(&error)), Some(ErrorStatus::AuthorizationError), "{who}");
    }
    let got = agent.client(user("hidden", sha, None).outbound()).await.get(&object).await;
    assert_eq!(got.err().and_then(|error| status(&error)), Some(ErrorStatus::AuthorizationError));
    assert_eq!(agent.sets.lock().expect("nobody broke").len(), 1, "only the one that is hidden was set");
}

#[tokio::test]
async fn a_set_is_looked_at_as_a_whole_and_done_as_a_whole() {
    let hidden = user("noc", Some(AuthProtocol::Sha1), Some(PrivProtocol::Aes128));
    let write = View::new(&[Oid::new(&SCALARS), Oid::new(&TABLE)], &[]);
    let access = Access { who: Who::User(hidden.clone()), read: View::everything(), write: Some(write) };
    let agent = start(1, vec![access, community("public", View::everything())]).await;
    let client = agent.client(hidden.outbound()).await;
    let one = WireOid::from_slice(&[&SCALARS[..], &[1, 0]].concat());
    let two = WireOid::from_slice(&[&SCALARS[..], &[2, 0]].concat());
    let cell = WireOid::from_slice(&[&TABLE[..], &[1, 1]].concat());
    let name = WireOid::from_slice(&[1, 3, 6, 1, 2, 1, 1, 5, 0]);
    let set = |pairs: Vec<(&WireOid, i32)>| {
        let pairs: Vec<_> = pairs.into_iter().map(|(oid, number)| (oid.clone(), Wire::Integer(number))).collect();
        let client = client.clone();
        async move { client.set_many(&pairs).await.map(|_| ()).map_err(|error| status(&error)) }
    };
    assert_eq!(set(vec![(&one, 5), (&two, 101)]).await, Err(Some(ErrorStatus::WrongValue)));
    assert_eq!(set(vec![(&one, 5), (&cell, 1)]).await, Err(Some(ErrorStatus::NotWritable)));
    assert_eq!(set(vec![(&one, 5), (&name, 1)]).await, Err(Some(ErrorStatus::NoAccess)));
    assert_eq!(set(vec![(&one, 5), (&two, 13)]).await, Err(Some(ErrorStatus::CommitFailed)));
    assert!(agent.sets.lock().expect("nobody broke").is_empty());
    assert_eq!(set(vec![(&one, 5), (&two, 6)]).await, Ok(()));
    let by_community = agent.client(Auth::v2c("public")).await.set(&one, Wire::Integer(8)).await;
    assert_eq!(by_community.err().and_then(|error| status(&error)), Some(ErrorStatus::AuthorizationError));
    let sets = agent.sets.lock().expect("nobody broke");
    let [only] = &sets[..] else { panic!("{sets:?}") };
    assert_eq!((only.user.as_str(), only.source.ip()), ("noc", Ipv4Addr::LOCALHOST.into()));
    let numbers: Vec<_> = only.varbinds.iter().map(|varbind| varbind.value.clone()).collect();
    assert_eq!(numbers, [Value::Integer(5), Value::Integer(6)]);
}

#[tokio::test]
async fn an_agent_that_stops_leaves_its_port_and_its_counts() {
    let agent = start(1, vec![community("public", View::everything())]).await;
    let object = WireOid::from_slice(&[1, 3, 6, 1, 2, 1, 1, 5, 0]);
    agent.client(Auth::v2c("public")).await.get(&object).await.expect("is let");
    let stranger = user("stranger", Some(AuthProtocol::Sha1), None);
    // It is not told in a way that it could trust, so it waits in vain.
    let asking = agent.client(stranger.outbound()).await;
    let asking = tokio::spawn(async move { asking.get(&WireOid::from_slice(&[1, 3, 6, 1, 2, 1, 1, 5, 0])).await.map(|_| ()) });
    while agent.metric("klaxon_snmp_agent_requests_rejected_total", "user") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asking.abort();
    agent.stop.cancel();
    agent.task.await.expect("does not break").expect("stops in good order");
    let engine = Engine::start(agent.dir.path()).expect("starts");
    let config = config(agent.listen, vec![]);
    let again = Agent::bind(&config, &engine, &[], &agent.counts, CancellationToken::new()).await.expect("the port is free");
    let taken = Agent::bind(&config, &engine, &[], &agent.counts, CancellationToken::new()).await.map(|_| ());
    assert!(matches!(taken, Err(AgentError::Listen { .. })), "{taken:?}");
    assert_eq!(again.local_addr(), agent.listen);
    let rows = agent.counts.rows();
    let count = |label| rows.iter().find(|row| row.label.is_some_and(|(_, value)| value == label)).map(|row| row.value);
    assert_eq!((count("get"), count("user")), (Some(1), Some(1)));
}

#[tokio::test]
async fn objects_of_two_parts_do_not_overlap() {
    let dir = tempfile::tempdir().expect("can be made");
    let engine = Engine::start(dir.path()).expect("starts");
    let table = || Arc::new(Table { rows: 1, asked: Arc::default() }) as Arc<dyn Objects>;
    let config = config(loopback(), vec![]);
    let (twice, counts) = ([table(), table()], Arc::default());
    let bound = Agent::bind(&config, &engine, &twice, &counts, CancellationToken::new());
    assert!(matches!(bound.await.map(|_| ()), Err(AgentError::Nested { .. })));
}

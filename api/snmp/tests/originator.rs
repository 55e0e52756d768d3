//! Traps and informs to net-snmp's snmptrapd: what it logged, in each version and with each pair of algorithms.

#[path = "../../../tests/harness/trapd.rs"]
mod trapd;

use std::net::Ipv4Addr;
use std::time::Duration;

use klaxon_snmp::{
    AuthProtocol, Credentials, Engine, Oid, OriginateError, Originator, OriginatorConfig, Outgoing, PrivProtocol, Secret, User,
    Value, Varbind,
};
use trapd::{Setup, Trapd};

const TRAP: &str = "1.3.6.1.4.1.8072.2.3.0.1";
const TRAP_ADDRESS: &str = "1.3.6.1.6.3.18.1.3.0";
const HERE: &str = "80001f8804aaaaaa";
const ELSEWHERE: &str = "80001f8804bbbbbb";

fn oid(text: &str) -> Oid {
    let arcs: Vec<u32> = text.split('.').map(|arc| arc.parse().expect("a number")).collect();
    Oid::new(&arcs)
}

fn varbind(name: &str, value: Value) -> Varbind {
    Varbind { oid: oid(name), value }
}

/// One of each type that a notification can have.
fn outgoing() -> Outgoing {
    let node = |number: u32| format!("1.3.6.1.4.1.8072.2.4.{number}.0");
    Outgoing {
        trap_oid: oid(TRAP),
        varbinds: vec![
            varbind(&node(1), Value::Integer(-7)),
            varbind(&node(2), Value::OctetString("grün\nund \"blau\"".into())),
            varbind(&node(3), Value::Oid(oid("1.3.6.1.2.1.118"))),
            varbind(&node(4), Value::Counter32(4_294_967_295)),
            varbind(&node(5), Value::Gauge32(4_294_967_294)),
            varbind(&node(6), Value::TimeTicks(12_345)),
            varbind(&node(7), Value::Counter64(u64::MAX)),
            varbind(TRAP_ADDRESS, Value::IpAddress(Ipv4Addr::new(10, 7, 0, 3))),
        ],
    }
}

/// Checks them as snmptrapd has them.
fn assert_values(logged: &trapd::Logged) {
    let node = |number: u32| format!("1.3.6.1.4.1.8072.2.4.{number}.0");
    let kind = |kind: &str, value: &str| trapd::Value::Other(kind.to_owned(), value.to_owned());
    assert_eq!(logged.get(&node(1)), &kind("INTEGER", "-7"));
    assert_eq!(logged.text(&node(2)), "grün\nund \"blau\"");
    assert_eq!(logged.oid(&node(3)), "1.3.6.1.2.1.118");
    assert_eq!(logged.get(&node(4)), &kind("Counter32", "4294967295"));
    assert_eq!(logged.get(&node(5)), &kind("Gauge32", "4294967294"));
    assert_eq!(logged.get(&node(6)), &kind("Timeticks", "12345"));
}

fn config(target: String, credentials: Credentials) -> OriginatorConfig {
    let timeout = Duration::from_secs(5);
    OriginatorConfig { target, credentials, source: None, timeout, retries: 2, datagram_bytes_max: 1472 }
}

fn public() -> Secret {
    Secret("public".to_owned())
}

fn engine(dir: &tempfile::TempDir) -> Engine {
    Engine::start(dir.path()).expect("can be kept")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_says_what_it_can() {
    if !trapd::is_there() {
        return;
    }
    let dir = tempfile::tempdir().expect("can be made");
    let engine = engine(&dir);
    let trapd = Setup::new(&dir.path().join("trapd"), HERE).start();
    let v1 = Originator::new(config(trapd.target(), Credentials::V1(public())), engine.clone());
    v1.trap(&outgoing()).await.expect("is sent");
    let link_down = Outgoing { trap_oid: oid("1.3.6.1.6.3.1.1.5.3"), varbinds: Vec::new() };
    v1.trap(&link_down).await.expect("is sent");
    let v2c = Originator::new(config(trapd.target(), Credentials::V2c(public())), engine.clone());
    v2c.trap(&outgoing()).await.expect("is sent");
    v2c.inform(&outgoing()).await.expect("is answered");
    let logged = trapd.wait_for(4);
    assert_eq!(logged.len(), 4, "{logged:#?}");
    // The device is the header's; what v1 cannot say is left out.
    assert_eq!(logged[0].v1, ["10.7.0.3", "1.3.6.1.4.1.8072.2.3", "6", "1"]);
    assert_values(&logged[0]);
    assert!(!logged[0].has("1.3.6.1.4.1.8072.2.4.7.0") && !logged[0].has(TRAP_ADDRESS));
    assert_eq!(logged[1].v1, ["127.0.0.1", "1.3.6.1.6.3.1.1.5", "2", "0"]);
    for (logged, how) in [(&logged[2], "TRAP2"), (&logged[3], "INFORM")] {
        assert!(logged.how.starts_with(how) && logged.how.contains("community public"), "{}", logged.how);
        assert_eq!(logged.varbinds[0].0, "1.3.6.1.2.1.1.3.0", "sysUpTime.0 is the first");
        assert_eq!(logged.varbinds[1].0, "1.3.6.1.6.3.1.1.4.1.0", "snmpTrapOID.0 is the second");
        assert_eq!((logged.trap_oid(), logged.varbinds.len()), (TRAP, 10));
        assert_values(logged);
        assert_eq!(logged.number("1.3.6.1.4.1.8072.2.4.7.0"), u64::MAX);
        assert_eq!(logged.get(TRAP_ADDRESS), &trapd::Value::Other("IpAddress".to_owned(), "10.7.0.3".to_owned()));
    }
    let error = Originator::new(config(trapd.target(), Credentials::V2c(public())), engine.clone())
        .inform(&Outgoing {
            trap_oid: oid(TRAP),
            varbinds: vec![varbind("1.3.6.1.4.1.8072.2.4.2.0", Value::OctetString(vec![b'x'; 1500].into()))],
        })
        .await;
    assert!(matches!(error, Err(OriginateError::TooLarge { bytes: 1501.., max: 1472 })), "{error:?}");
}

const AUTH: [(AuthProtocol, &str); 6] = [
    (AuthProtocol::Md5, "MD5"),
    (AuthProtocol::Sha1, "SHA"),
    (AuthProtocol::Sha224, "SHA-224"),
    (AuthProtocol::Sha256, "SHA-256"),
    (AuthProtocol::Sha384, "SHA-384"),
    (AuthProtocol::Sha512, "SHA-512"),
];
const PRIVACY: [(PrivProtocol, &str); 6] = [
    (PrivProtocol::Des, "DES"),
    (PrivProtocol::Aes128, "AES"),
    (PrivProtocol::Aes192, "AES-192"),
    (PrivProtocol::Aes256, "AES-256"),
    (PrivProtocol::Aes192Cisco, "AES-192-C"),
    (PrivProtocol::Aes256Cisco, "AES-256-C"),
];

/// All pairs that are offered, and what is only authenticated: a user each, at the receiver for informs and as known of our
/// engine for traps.
#[tokio::test(flavor = "multi_thread")]
async fn each_pair_of_algorithms_arrives() {
    if !trapd::is_there() {
        return;
    }
    let dir = tempfile::tempdir().expect("can be made");
    let engine = engine(&dir);
    let (auth_word, priv_word) = (Secret("auth-password".to_owned()), Secret("priv-password".to_owned()));
    let mut setup = Setup::new(&dir.path().join("trapd"), HERE);
    let mut users = Vec::new();
    for (auth, auth_name) in AUTH {
        for (privacy, priv_name) in PRIVACY.map(Some).into_iter().chain([None]).map(Option::unzip) {
            let name = format!("{auth_name}-{}", priv_name.unwrap_or("none"));
            let privacy_part = priv_name.map_or(String::new(), |protocol| format!(" {protocol} priv-password"));
            let level = if privacy.is_some() { "priv" } else { "auth" };
            setup = setup
                .line(&format!("createUser {name} {auth_name} auth-password{privacy_part}"))
                .line(&format!("createUser -e 0x{} {name} {auth_name} auth-password{privacy_part}", hex(engine.id())))
                .line(&format!("authUser log {name} {level}"));
            let user = User::new(&name, Some((auth, &auth_word)), privacy.map(|protocol| (protocol, &priv_word)), true);
            users.push(user.expect("is right"));
        }
    }
    users.push(User::new("nobody", None, None, false).expect("is right"));
    setup = setup
        .line("createUser nobody")
        .line(&format!("createUser -e 0x{} nobody", hex(engine.id())))
        .line("authUser log nobody noauth");
    let trapd = setup.start();
    for user in &users {
        let originator = Originator::new(config(trapd.target(), Credentials::V3(user.clone())), engine.clone());
        originator.trap(&outgoing()).await.expect("is sent");
        let informed = originator.inform(&outgoing()).await;
        assert_eq!(informed, Ok(()), "{}", user.name());
    }
    let logged = trapd.wait_for(2 * users.len());
    for (user, pair) in users.iter().zip(logged.chunks(2)) {
        for (logged, how) in pair.iter().zip(["TRAP2", "INFORM"]) {
            assert!(logged.how.starts_with(how) && logged.how.contains(user.name()), "{}: {}", user.name(), logged.how);
            assert_values(logged);
        }
    }
    assert_eq!(logged.len(), 2 * users.len());
}

fn noc() -> User {
    let (auth, privacy) = (Secret("auth-password".to_owned()), Secret("priv-password".to_owned()));
    User::new("noc", Some((AuthProtocol::Sha256, &auth)), Some((PrivProtocol::Aes128, &privacy)), false).expect("is right")
}

fn noc_setup(setup: Setup) -> Trapd {
    setup.line("createUser noc SHA-256 auth-password AES priv-password").line("authUser log noc priv").start()
}

/// What a receiver does that is installed anew, or takes over an address: its engine id is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_became_another_is_found() {
    if !trapd::is_there() {
        return;
    }
    let dir = tempfile::tempdir().expect("can be made");
    let engine = engine(&dir);
    let first = noc_setup(Setup::new(&dir.path().join("first"), HERE));
    let short =
        OriginatorConfig { timeout: Duration::from_millis(500), retries: 1, ..config(first.target(), Credentials::V3(noc())) };
    let originator = Originator::new(short, engine);
    assert_eq!(originator.inform(&outgoing()).await, Ok(()));
    // Many at a time.
    let many = futures(&originator, 32).await;
    assert!(many.iter().all(Result::is_ok), "{many:?}");
    assert_eq!(first.wait_for(33).len(), 33);
    let port = first.kill().port;
    // Nobody is there.
    assert!(matches!(originator.inform(&outgoing()).await, Err(OriginateError::Unanswered(_))));
    let second = noc_setup(Setup { port, ..Setup::new(&dir.path().join("second"), ELSEWHERE) });
    assert_eq!(originator.inform(&outgoing()).await, Ok(()), "after nobody answered it is looked for anew");
    // Now it becomes another between two informs, with none in between that tells.
    second.kill();
    let third = noc_setup(Setup { port, ..Setup::new(&dir.path().join("third"), HERE) });
    let tries = [originator.inform(&outgoing()).await, originator.inform(&outgoing()).await];
    assert!(matches!(tries, [Err(OriginateError::Unanswered(_)), Ok(())]), "{tries:?}");
    assert_eq!(third.wait_for(1).len(), 1);
    // Restarted with what it knew: the same engine, once more booted.
    let fourth = third.stop().start();
    assert_eq!(originator.inform(&outgoing()).await, Ok(()));
    assert_eq!(fourth.wait_for(2).len(), 2);
}

async fn futures(originator: &Originator, count: usize) -> Vec<Result<(), OriginateError>> {
    let mut results = Vec::new();
    let message = outgoing();
    let mut tasks: Vec<_> = (0..count).map(|_| Box::pin(originator.inform(&message))).collect();
    std::future::poll_fn(|context| {
        tasks.retain_mut(|task| match task.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let dir = tempfile::tempdir().expect("can be made");
    let engine = engine(&dir);
    let to = |target: &str, source: Option<&str>| {
        let source = source.map(|source| source.parse().expect("an address"));
        let config = OriginatorConfig { source, ..config(target.to_owned(), Credentials::V2c(public())) };
        Originator::new(config, engine.clone())
    };
    let error = to("nowhere.invalid:162", None).inform(&outgoing()).await.expect_err("there is no such name");
    assert!(error.to_string().starts_with("cannot look up nowhere.invalid:162: "), "{error}");
    let error = to("127.0.0.1:162", Some("::1")).trap(&outgoing()).await.expect_err("is of another family");
    assert!(error.to_string().contains("no address of the family of the source"), "{error}");
    let error = to("127.0.0.1:162", Some("192.0.2.1")).trap(&outgoing()).await.expect_err("is not ours");
    assert!(error.to_string().starts_with("cannot send to 127.0.0.1:162 from 192.0.2.1: "), "{error}");
    assert_eq!(to("127.0.0.1:162", Some("127.0.0.9")).own_address().await, Ok("127.0.0.9".parse().expect("an address")));
}

/// A manager that answers each inform with this error-status.
fn refusing(status: u8) -> std::net::SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut bytes = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let message = &mut bytes[..length];
            let pdu = message.iter().position(|byte| *byte == 0xa6).expect("is an inform");
            message[pdu] = 0xa2;
            // request-id, then error-status, each an INTEGER.
            let integers = pdu + if message[pdu + 1] < 0x80 { 2 } else { 2 + usize::from(message[pdu + 1] & 0x7f) };
            let error_status = integers + 2 + usize::from(message[integers + 1]);
            assert_eq!(message[error_status..error_status + 3], [2, 1, 0]);
            message[error_status + 2] = status;
            socket.send_to(message, from).expect("can be sent");
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_status_is_a_refusal_if_it_is_about_what_was_sent() {
    let dir = tempfile::tempdir().expect("can be made");
    let engine = engine(&dir);
    for (status, word, is_for_good) in [
        (1, "tooBig", true),
        (3, "badValue", true),
        (5, "genErr", false),
        (6, "noAccess", false),
        (7, "wrongType", true),
        (8, "wrongLength", true),
        (10, "wrongValue", true),
        (13, "resourceUnavailable", false),
        (16, "authorizationError", false),
        (99, "99", false),
    ] {
        let target = refusing(status).to_string();
        let originator = Originator::new(config(target, Credentials::V2c(public())), engine.clone());
        let error = originator.inform(&outgoing()).await.expect_err("is refused");
        let said = match &error {
            OriginateError::Refused(said) if is_for_good => said,
            OriginateError::Busy(said) if !is_for_good => said,
            _ => panic!("{status}: {error:?}"),
        };
        assert!(said.contains(word), "{status}: {said}");
    }
}

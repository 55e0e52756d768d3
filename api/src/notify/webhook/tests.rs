//! The sink against servers that listen: what they get, and what becomes of what they say.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant as Clock;

use futures_util::stream;
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::Request;
use hyper::body::Frame as BodyFrame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use klaxon_schemas::alarm::{Alarm, Clearance, ClearedBy};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::Position;
use klaxon_schemas::notify::{Digest, Gap, GapReason, How};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::wire::v1;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::notify::What;
use crate::notify::samples::{alarm, at, notification, tools};
use crate::trust::Authorities;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request as it came.
#[derive(Debug, Clone)]
struct Came {
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
}

type Reply = dyn Fn(&Came) -> Response<Body> + Send + Sync;

/// A server that keeps what came. It ends with the runtime.
struct Server {
    address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(reply: impl Fn(&Came) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::start_tls(None, reply).await
    }

    async fn start_tls(tls: Option<TlsAcceptor>, reply: impl Fn(&Came) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("is bound");
        let (came, connections) = (Arc::<Mutex<Vec<Came>>>::default(), Arc::<AtomicUsize>::default());
        let reply: Arc<Reply> = Arc::new(reply);
        let server = Self { address, came: Arc::clone(&came), connections: Arc::clone(&connections) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&came), Arc::clone(&reply)));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn last(&self) -> Came {
        self.came.lock().expect("nobody panicked").last().expect("something came").clone()
    }

    fn count(&self) -> usize {
        self.came.lock().expect("nobody panicked").len()
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, came: Arc<Mutex<Vec<Came>>>, reply: Arc<Reply>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (came, reply) = (Arc::clone(&came), Arc::clone(&reply));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a whole request").to_bytes();
            let this = Came { headers: head.headers, uri: head.uri, body };
            came.lock().expect("nobody panicked").push(this.clone());
            Ok::<_, Infallible>(reply(&this))
        }
    });
    let builder = hyper::server::conn::http1::Builder::new();
    // A client that goes away is part of the tests.
    match tls {
        None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                drop(builder.serve_connection(TokioIo::new(stream), service).await);
            }
        }
    }
}

fn answer(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).expect("is a status");
    response
}

fn sink(config: WebhookConfig) -> WebhookSink {
    assert_eq!(config.mistake(), None);
    WebhookSink::new(config, &tools())
}

fn said(url: &str) -> WebhookConfig {
    WebhookConfig::new(Word::Said(Secret(url.to_owned())))
}

fn about(how: How, alarm: Alarm) -> What {
    let alarm = Arc::new(alarm);
    let change = Change {
        site: alarm.key.site.clone(),
        number: alarm.last_change,
        at: alarm.changed_at,
        past: false,
        kind: ChangeKind::SeverityChanged,
        reasons: Vec::new(),
        actor: None,
        from: None,
        note: None,
        subject: Subject::Alarm { alarm: Arc::clone(&alarm), previous_severity: Some(Severity::Minor) },
        place: None,
    };
    What::Alarm { how, change: Some(Arc::new(change)), alarm, suppressed: false }
}

fn raised(delivery_seq: u64) -> Notification {
    notification(delivery_seq, about(How::Raised, alarm(Severity::Major)))
}

/// What is sent for `what`.
fn body(config: WebhookConfig, batch: &[Notification]) -> Value {
    let bytes = sink(config).body(batch).expect("serializes");
    serde_json::from_slice(&bytes).expect("is JSON")
}

fn alertmanager() -> WebhookConfig {
    let url = Some("https://klaxon.example/".to_owned());
    WebhookConfig { shape: Shape::Alertmanager, external_url: url, ..said("http://127.0.0.1/") }
}

fn refused(outcome: &Result<Delivered, SendError>) -> &str {
    match outcome {
        Err(SendError::Refused(words)) => words,
        other => panic!("{other:?}"),
    }
}

fn unreachable(outcome: &Result<Delivered, SendError>) -> &str {
    match outcome {
        Err(SendError::Unreachable(words)) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn our_form_says_all_that_is_known() {
    let config = WebhookConfig { batch_max: 10, ..said("http://127.0.0.1/") };
    let gap = Gap { reason: GapReason::Retention, from: Position(3), to: Position(9), changes: Some(4) };
    let mut again = notification(2, What::Gap(gap));
    again.resent = true;
    let sent = body(config.clone(), &[raised(1), again]);
    assert_eq!((&sent["version"], &sent["receiver"]), (&json!(1), &json!("noc")));
    let first = &sent["notifications"][0];
    assert_eq!((&first["epoch"], &first["delivery_seq"], &first["resent"]), (&json!(5), &json!(1), &json!(false)));
    assert_eq!((&first["what"], &first["how"]), (&json!("alarm"), &json!("raised")));
    assert_eq!(first["change"]["kind"], "severity-changed");
    assert_eq!(first["change"]["previous_severity"], "minor");
    let shown = &first["alarm"];
    assert_eq!((&shown["resource"], &shown["raise_seq"]), (&json!("host=web-1.file-system=/var"), &json!(2)), "{shown}");
    assert_eq!(shown["attributes"]["vg.name"], "vg0");
    assert!(shown["repair_action"].is_string(), "what the catalogue knows is told: {shown}");
    assert!(shown.get("engine").is_none(), "what the engine keeps is not: {shown}");
    let second = &sent["notifications"][1];
    assert_eq!((&second["what"], &second["resent"]), (&json!("gap"), &json!(true)));
    assert_eq!(second["gap"], json!({"reason": "retention", "from": 3, "to": 9, "changes": 4}));

    let beat = body(config, &[notification(2, What::Heartbeat { last: 2 })]);
    let beat = &beat["notifications"][0];
    assert_eq!(beat, &json!({"epoch": 5, "resent": false, "what": "heartbeat", "last_delivery_seq": 2}));
}

#[test]
fn what_is_sent_can_be_read_back() {
    let config = WebhookConfig { batch_max: 10, ..said("http://127.0.0.1/") };
    let sink = sink(config);
    let made = form::notifications(&sink.tools.catalogue.load(), &[raised(1), notification(2, What::Heartbeat { last: 2 })]);
    let text = serde_json::to_string(&made).expect("serializes");
    assert_eq!(serde_json::from_str::<v1::Notifications>(&text).expect("is of the form"), made);
}

#[test]
fn in_alertmanagers_form_an_alarm_is_a_group_that_stays_itself() {
    let firing = body(alertmanager(), &[raised(1)]);
    let worse = body(alertmanager(), &[notification(2, about(How::Changed, alarm(Severity::Critical)))]);
    let mut over = alarm(Severity::Critical);
    over.cleared = Some(Clearance { at: at("2026-11-22T04:00:00Z"), by: ClearedBy::Report });
    let over = body(alertmanager(), &[notification(3, about(How::Cleared, over))]);
    assert_eq!(firing["version"], "4");
    assert_eq!(
        (&firing["status"], &worse["status"], &over["status"]),
        (&json!("firing"), &json!("firing"), &json!("resolved"))
    );
    let alert = &firing["alerts"][0];
    assert_eq!(
        alert["labels"],
        json!({
            "alertname": "disk.full", "site": "north", "resource": "host=web-1.file-system=/var", "qualifier": "q\"1",
            "host": "web-1", "file_system": "/var", "severity": "major", "event_type": "processing-error",
        })
    );
    assert_eq!(alert["annotations"]["description"], "97 % full");
    assert_eq!(alert["annotations"]["attribute_vg_name"], "vg0");
    assert_eq!(alert["annotations"]["klaxon_delivery_seq"], "1");
    assert_eq!((&alert["startsAt"], &alert["endsAt"]), (&json!("2026-11-22T03:12:00Z"), &json!("0001-01-01T00:00:00Z")));
    let link = alert["generatorURL"].as_str().expect("is a text");
    assert!(link.starts_with("https://klaxon.example/#alarm="), "{link}");
    assert_eq!(
        firing["groupKey"],
        r#"{}:{alertname="disk.full", qualifier="q\"1", resource="host=web-1.file-system=/var", site="north"}"#
    );
    for later in [&worse, &over] {
        assert_eq!(later["alerts"][0]["fingerprint"], alert["fingerprint"]);
        assert_eq!((&later["groupKey"], &later["groupLabels"]), (&firing["groupKey"], &firing["groupLabels"]));
        assert_eq!(later["alerts"][0]["startsAt"], alert["startsAt"]);
    }
    assert_eq!(over["alerts"][0]["endsAt"], "2026-11-22T04:00:00Z");
    assert_eq!(alert["fingerprint"].as_str().map(str::len), Some(16));
    assert_eq!(firing["commonLabels"], alert["labels"]);

    // Active, and no longer this receiver's: that is resolved, too.
    let left = body(alertmanager(), &[notification(4, about(How::Left, alarm(Severity::Major)))]);
    assert_eq!((&left["status"], &left["alerts"][0]["endsAt"]), (&json!("resolved"), &json!("2026-11-22T03:13:00Z")));
}

#[test]
fn in_alertmanagers_form_nothing_is_left_standing_but_alarms_and_the_heartbeat() {
    let beat = body(alertmanager(), &[notification(2, What::Heartbeat { last: 2 })]);
    assert_eq!((&beat["status"], &beat["commonLabels"]["alertname"]), (&json!("firing"), &json!("klaxon.heartbeat")));
    assert_eq!(beat["commonAnnotations"]["klaxon_last_delivery_seq"], "2");
    let digest = Digest {
        from: Position(1),
        to: Position(90),
        changes: 80,
        logged: 3,
        came_and_went: 30,
        by_severity: Vec::new(),
        first_at: Some(at("2026-11-22T03:12:00Z")),
        last_at: Some(at("2026-11-22T04:12:00Z")),
        named: Vec::new(),
    };
    let digest = body(alertmanager(), &[notification(3, What::Digest(Arc::new(digest)))]);
    assert_eq!((&digest["status"], &digest["alerts"][0]["endsAt"]), (&json!("resolved"), &json!("2026-11-22T04:12:00Z")));
    assert_eq!(digest["commonAnnotations"]["came_and_went"], "30");
    let gap = Gap { reason: GapReason::NewEpoch, from: Position(3), to: Position(9), changes: None };
    let gap = body(alertmanager(), &[notification(4, What::Gap(gap))]);
    assert_eq!((&gap["status"], &gap["commonAnnotations"]["reason"]), (&json!("resolved"), &json!("new-epoch")));
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let server = Server::start(|came| {
        let status = came.uri.path().trim_start_matches('/').parse().expect("is a status");
        answer(status, "some\nwords \u{7} of it")
    })
    .await;
    for status in [200, 201, 202, 204, 299] {
        let sink = sink(said(&format!("http://{}/{status}", server.address)));
        assert_eq!(sink.send(vec![raised(1)]).await, Ok(Delivered::Confirmed), "{status}");
    }
    for status in [301, 302, 307, 401, 403, 404, 405, 407, 408, 410, 425, 429, 500, 502, 503, 504] {
        let sink = sink(said(&format!("http://{}/{status}", server.address)));
        let outcome = sink.send(vec![raised(1)]).await;
        let words = unreachable(&outcome);
        assert!(words.starts_with(&format!("it answers {status} ")) && words.contains("some words of it"), "{words}");
    }
    for status in [400, 409, 413, 415, 422, 431] {
        let sink = sink(said(&format!("http://{}/{status}", server.address)));
        assert!(refused(&sink.send(vec![raised(1)]).await).contains("some words of it"));
    }
    // Each was asked once: nobody was redirected.
    assert_eq!(server.count(), 5 + 16 + 6);
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start(|_| answer(200, "thanks")).await;
    let sink = sink(said(&server.url()));
    for number in 1..=50 {
        assert_eq!(sink.send(vec![raised(number)]).await, Ok(Delivered::Confirmed));
    }
    assert_eq!((server.count(), server.connections.load(Ordering::Relaxed)), (50, 1));
}

#[tokio::test]
async fn a_receiver_that_asks_to_wait_is_waited_for() {
    let server = Server::start(|came| {
        let mut response = answer(if came.uri.query().is_some() { 400 } else { 429 }, "");
        response.headers_mut().insert(RETRY_AFTER, "1".parse().expect("is a value"));
        response
    })
    .await;
    let busy = sink(said(&server.url()));
    let _ = unreachable(&busy.send(vec![raised(1)]).await);
    let asked = Clock::now();
    let _ = unreachable(&busy.send(vec![raised(1)]).await);
    assert!(asked.elapsed() >= Duration::from_millis(900), "{:?}", asked.elapsed());

    // A header beside a refusal is no such thing, and a wish has bounds.
    let other = sink(said(&format!("{}?x", server.url())));
    let _ = refused(&other.send(vec![raised(1)]).await);
    assert_eq!(*other.not_before.lock().expect("nobody panicked"), None);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let wait = |text: &str| {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("is a value"))]);
        retry_after(&headers, now)
    };
    assert_eq!(wait("120"), Some(Duration::from_secs(120)));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO));
    assert_eq!((wait("soon"), wait("-1")), (None, None));
}

#[tokio::test]
async fn one_that_does_not_answer_costs_its_time_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let config = WebhookConfig {
        timeout: Duration::from_millis(300),
        ..said(&format!("http://{}/", silent.local_addr().expect("is bound")))
    };
    let begun = Clock::now();
    let outcome = sink(config).send(vec![raised(1)]).await;
    assert_eq!(unreachable(&outcome), "there was no answer within 0.3 s");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    let gone = said("http://127.0.0.1:9/");
    let outcome = sink(gone).send(vec![raised(1)]).await;
    assert!(unreachable(&outcome).contains("refused"), "{outcome:?}");
    let nowhere = said("http://no-such-host.invalid/");
    let _ = unreachable(&sink(nowhere).send(vec![raised(1)]).await);
}

#[tokio::test]
async fn a_body_that_does_not_end_holds_nobody_up() {
    let server = Server::start(|came| {
        // Never ending, slowly or fast.
        let is_fast = came.uri.path() == "/fast";
        let chunks = stream::unfold(0_u64, move |number| async move {
            if !is_fast && number > 0 {
                std::future::pending::<()>().await;
            }
            let data = Bytes::from_static(&[b'x'; 1000]);
            Some((Ok(BodyFrame::data(data)), number + 1))
        });
        let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
        *response.status_mut() = if came.uri.query().is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        response
    })
    .await;
    for path in ["slow", "fast"] {
        let begun = Clock::now();
        let good = sink(said(&format!("http://{}/{path}", server.address)));
        assert_eq!(good.send(vec![raised(1)]).await, Ok(Delivered::Confirmed), "it said yes");
        let bad = sink(said(&format!("http://{}/{path}?bad", server.address)));
        assert!(refused(&bad.send(vec![raised(1)]).await).chars().count() < 250);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn secrets_are_sent_and_never_told() {
    let server = Server::start(|came| {
        // It tells everybody what it was told.
        answer(400, &format!("{:?} {:?}", came.uri, came.headers))
    })
    .await;
    let dir = tempfile::tempdir().expect("can be made");
    let token = dir.path().join("token");
    std::fs::write(&token, "tok-1\n").expect("can be written");
    let config = WebhookConfig {
        secret: Some(Word::Said(Secret("hush-key".to_owned()))),
        bearer: Some(Word::File(token.clone())),
        headers: [(HeaderName::from_static("x-api-key"), Secret("key-in-header".to_owned()))].to_vec(),
        ..said(&format!("http://{}/hook?code=in-the-query", server.address))
    };
    let secrets = ["hush-key", "tok-1", "key-in-header", "in-the-query", "tok-2"];
    assert!(secrets.iter().all(|secret| !format!("{config:?}").contains(secret)), "{config:?}");
    assert_eq!(config.target(), format!("http://{}/…", server.address));
    let sink = sink(config);
    let outcome = sink.send(vec![raised(1)]).await;
    let words = refused(&outcome);
    assert!(words.contains("***") && secrets.iter().all(|secret| !words.contains(secret)), "{words}");
    let came = server.last();
    assert_eq!(
        (&came.headers["authorization"], &came.headers["x-api-key"]),
        (&"Bearer tok-1".parse().unwrap(), &"key-in-header".parse().unwrap())
    );
    assert_eq!(came.uri.query(), Some("code=in-the-query"));
    assert!(came.headers["klaxon-signature"].to_str().expect("is a text").starts_with("t="));
    assert_eq!(came.headers["content-type"], "application/json");
    assert!(!came.body.is_empty());

    // A token that is changed is taken up, and one that is gone is told of.
    std::fs::write(&token, "tok-2-longer\n").expect("can be written");
    let begun = Clock::now();
    while server.last().headers["authorization"] != "Bearer tok-2-longer" {
        assert!(begun.elapsed() < Duration::from_secs(30), "the new token is not taken up");
        let _ = sink.send(vec![raised(2)]).await;
    }
    std::fs::remove_file(&token).expect("is there");
    let begun = Clock::now();
    while !matches!(sink.send(vec![raised(3)]).await, Err(SendError::Unreachable(words)) if words.contains("cannot read")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody misses the token");
    }

    let basic = said(&format!("http://us%40er:p%3Aw@{}/", server.address));
    assert_eq!(basic.target(), format!("http://{}/", server.address));
    let outcome = WebhookSink::new(basic, &tools()).send(vec![raised(1)]).await;
    assert!(!refused(&outcome).contains("dXNA"), "{outcome:?}");
    // printf 'us@er:p:w' | base64
    assert_eq!(server.last().headers["authorization"], "Basic dXNAZXI6cDp3");
}

#[tokio::test]
async fn an_address_whose_path_is_the_password_is_not_told() {
    let path = "/services/T0AAAAAA1/B0BBBBBB2/c3Cret%2Bword?thread=h1dden&n=%C3%BC%C3%BC";
    // In each way that servers have, and where it would be cut.
    let server = Server::start(|came| {
        let uri = came.uri.to_string();
        answer(400, &format!("{} {uri} {} B0BBBBBB2 c3Cret+word üü", "x".repeat(140), uri.replace('/', "\\/")))
    })
    .await;
    let dir = tempfile::tempdir().expect("can be made");
    let file = dir.path().join("url");
    let url = format!("http://{}{path}", server.address);
    std::fs::write(&file, format!("{url}\n")).expect("can be written");
    assert_eq!(said(&url).target(), format!("http://{}/…", server.address));
    for config in [said(&url), WebhookConfig::new(Word::File(file))] {
        let ready = Ready::prepare(&config, &Authorities::default()).expect("is right");
        for echo in [url.clone(), url.replace('/', "\\/"), "B0BBBBBB2 and c3Cret+word and h1dden and üü".to_owned()] {
            let told = ready.scrub(&echo);
            let secrets = ["T0AAAAAA1", "B0BBBBBB2", "c3Cret", "h1dden", "üü"];
            assert!(secrets.iter().all(|secret| !told.contains(secret)), "{told}");
        }
        let outcome = sink(config).send(vec![raised(1)]).await;
        let words = refused(&outcome);
        let end = words.split("xxx ").nth(1).expect("is told");
        assert!(end.starts_with("***") && !words.contains("serv"), "{words}");
    }
}

/// An authority, what it vouches for, and the files that hold it.
struct Authority {
    dir: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signs itself");
        let dir = tempfile::tempdir().expect("can be made");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("can be written");
        Self { dir, issuer: rcgen::Issuer::new(params, key), certificate }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.path().join(name))
    }

    fn vouch(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("is signed");
        std::fs::write(self.dir.path().join(format!("{name}.pem")), certificate.pem()).expect("can be written");
        std::fs::write(self.dir.path().join(format!("{name}.key")), key.serialize_pem()).expect("can be written");
        (certificate, key)
    }

    /// A server for 127.0.0.1 that asks for a certificate of this authority, if `asks`.
    fn acceptor(&self, asks: bool) -> TlsAcceptor {
        let (certificate, key) = self.vouch("127.0.0.1");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("are known");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("is one");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match asks {
            true => builder.with_client_cert_verifier(verifier.build().expect("has a root")),
            false => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("fit");
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test]
async fn tls_is_by_ones_own_authority_and_with_ones_own_certificate() {
    let authority = Authority::new("ours");
    let open = Server::start_tls(Some(authority.acceptor(false)), |_| answer(200, "")).await;
    let asking = Server::start_tls(Some(authority.acceptor(true)), |_| answer(200, "")).await;
    authority.vouch("klaxon");
    let url = |server: &Server| format!("https://{}/", server.address);
    let trusting = |server: &Server| WebhookConfig { ca_file: authority.file("ca.pem"), ..said(&url(server)) };
    assert_eq!(sink(trusting(&open)).send(vec![raised(1)]).await, Ok(Delivered::Confirmed));

    let stranger = Authority::new("a stranger");
    let outcome = sink(WebhookConfig { ca_file: stranger.file("ca.pem"), ..said(&url(&open)) }).send(vec![raised(1)]).await;
    assert!(unreachable(&outcome).contains("invalid peer certificate"), "{outcome:?}");
    let outcome = sink(said(&url(&open))).send(vec![raised(1)]).await;
    let words = unreachable(&outcome);
    assert!(words.contains("invalid peer certificate") || words.contains("certificates of authorities"), "{outcome:?}");

    let _ = unreachable(&sink(trusting(&asking)).send(vec![raised(1)]).await);
    let with_key = WebhookConfig {
        certificate_file: authority.file("klaxon.pem"),
        key_file: authority.file("klaxon.key"),
        ..trusting(&asking)
    };
    assert_eq!(sink(with_key.clone()).send(vec![raised(1)]).await, Ok(Delivered::Confirmed));
    let mixed = WebhookConfig { key_file: authority.file("127.0.0.1.key"), ..with_key };
    assert!(unreachable(&sink(mixed).send(vec![raised(1)]).await).contains("klaxon.pem and "));
    let broken = WebhookConfig { ca_file: authority.file("klaxon.key"), ..said(&url(&open)) };
    assert!(unreachable(&sink(broken).send(vec![raised(1)]).await).contains("holds no certificate"));
    assert_eq!((open.count(), asking.count()), (1, 1));
}

#[test]
fn what_cannot_be_is_named() {
    let mistake = |config: WebhookConfig| config.mistake().map(|(key, _)| key);
    let good = || said("https://noc.example:8443/hook");
    assert_eq!(mistake(good()), None);
    for wrong in ["", "noc.example", "/hook", "ftp://noc.example/", "http://", "https://a b/", "http://[::1/"] {
        let found = said(wrong).mistake();
        assert_eq!(found.map(|(key, _)| key), Some("url"), "{wrong}");
    }
    assert_eq!(said("http://user:secret@[::1]:80/a?b=c").target(), "http://[::1]:80/…");
    assert_eq!(WebhookConfig::new(Word::File("/etc/hook".into())).target(), "the address in /etc/hook");
    let file = || Some(PathBuf::from("x.pem"));
    let headers = |name: &'static str, value: &str| [(HeaderName::from_static(name), Secret(value.to_owned()))].to_vec();
    let bearer = || Some(Word::Said(Secret("t".to_owned())));
    let cases = [
        (WebhookConfig { ca_file: file(), ..said("http://noc.example/") }, "url"),
        (WebhookConfig { key_file: file(), ..good() }, "certificate_file"),
        (WebhookConfig { bearer: bearer(), ..said("https://a:b@noc.example/") }, "bearer"),
        (WebhookConfig { bearer: Some(Word::Said(Secret(String::new()))), ..good() }, "bearer"),
        (WebhookConfig { headers: headers("host", "x"), ..good() }, "headers"),
        (WebhookConfig { headers: headers("x-a", "two\nlines"), ..good() }, "headers"),
        (WebhookConfig { timeout: Duration::from_secs(61), ..good() }, "timeout"),
        (WebhookConfig { window: 0, ..good() }, "window"),
        (WebhookConfig { batch_max: 101, ..good() }, "batch_max"),
        (WebhookConfig { batch_max: 2, ..alertmanager() }, "batch_max"),
    ];
    for (config, key) in cases {
        assert_eq!(mistake(config.clone()), Some(key), "{config:?}");
    }
}

//! Who may do what: tokens, certificates and Keystone, sites, who is turned away, and what stands of it in history. curl is the
//! client, and nginx the proxy.

mod harness;
#[path = "access/keystone.rs"]
mod keystone;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::authority::Authority;
use harness::{Node, Setup, klaxon, scratch, wait_until};
use serde_json::{Value, json};

/// A node with a listener for other hosts, and who is believed.
struct Open {
    node: Node,
    authority: Authority,
    dir: tempfile::TempDir,
}

/// An answer to curl.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Open {
    fn start(config: &str) -> Self {
        let authority = Authority::new();
        authority.serve();
        let dir = scratch("access-");
        let node = Self::setup(&authority, &dir, config).start();
        Self { node, authority, dir }
    }

    fn setup(authority: &Authority, dir: &tempfile::TempDir, config: &str) -> Setup {
        let file = |name| authority.path(name);
        Setup::new(&dir.path().join("data")).config(&format!(
            "[node]\nsite = \"noc\"\n[listeners.noc]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n\
             client_ca_file = \"{}\"\n{config}",
            file("cert.pem"),
            file("key.pem"),
            file("ca.pem")
        ))
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.node.listener("noc").port())
    }

    /// Asks as another host would.
    fn ask(&self, path: &str, more: &[&str]) -> Said {
        let (url, ca) = (self.url(path), self.authority.path("ca.pem"));
        curl(&[&["--cacert", &ca, &url], more].concat())
    }

    /// Asks with a token.
    fn with(&self, token: &str, path: &str, more: &[&str]) -> Said {
        let bearer = format!("Authorization: Bearer {token}");
        self.ask(path, &[&["-H", &bearer], more].concat())
    }

    fn token(&self, name: &str, more: &[&str]) -> String {
        let made = self.node.cli_ok(&[&["token", "create", name], more].concat());
        let token = made.lines().next().expect("is printed").trim().to_owned();
        assert!(token.starts_with("klaxon_"), "{made}");
        token
    }
}

fn curl(args: &[&str]) -> Said {
    let output = Command::new("curl").args(["-sS", "-i", "--max-time", "30"]).args(args).output().expect("curl is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Said { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn event(site: &str, resource: &str) -> String {
    json!({ "site": site, "resource": resource, "alarm_type": "fan.failed", "severity": "major", "text": "stands" }).to_string()
}

const JSON: [&str; 2] = ["-H", "content-type: application/json"];

fn post<'a>(body: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&JSON[..], &["--data-binary", body], more].concat()
}

#[test]
fn each_role_may_what_it_may_and_no_more() {
    let open = Open::start("");
    open.node.send(&json!({ "resource": "host=a", "alarm_type": "fan.failed", "severity": "major" }));
    let roles = ["reader", "operator", "publisher", "admin"].map(|role| (role, open.token(role, &["--role", role])));
    let suppress = json!({ "action": "suppress", "alarm_type": "fan.failed" }).to_string();
    let unsuppress = json!({ "action": "unsuppress", "alarm_type": "fan.failed" }).to_string();
    let (report, enrol) = (event("noc", "host=b"), json!({ "name": "tower-1" }).to_string());
    for (role, token) in &roles {
        let status = |path: &str, more: &[&str]| open.with(token, path, more).status;
        let (reads, acts, reports, rules) = match *role {
            "reader" => (true, false, false, false),
            "operator" => (true, true, false, false),
            "publisher" => (false, false, true, false),
            _ => (true, true, true, true),
        };
        let is = |may: bool| if may { 200 } else { 403 };
        for path in
            ["/", "/metrics", "/openapi.json", "/api/v1/alarms", "/api/v1/alarms/summary", "/api/v1/history", "/api/v1/sites"]
        {
            assert_eq!(status(path, &[]), is(reads), "{role} {path}");
        }
        assert_eq!(status("/api/v1/actions", &post(&suppress, &[])), is(acts), "{role} suppresses");
        if acts {
            assert_eq!(status("/api/v1/actions", &post(&unsuppress, &[])), 200);
        }
        assert_eq!(status("/api/v1/events", &post(&report, &[])), is(reports), "{role} reports");
        assert_eq!(status("/api/v1/heartbeats/x?every=1h", &["-X", "POST"]), is(reports), "{role} beats");
        assert_eq!(status("/api/v1/tokens", &[]), is(rules), "{role} sees tokens");
        assert_eq!(status("/api/v1/sites", &post(&enrol, &[])), is(rules), "{role} enrols");
        assert_eq!(status("/healthz", &[]), 200);
    }
    // Whoever shows nothing, or what is not good, sees that the node lives.
    let token = "klaxon_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for more in [&[][..], &["-H", &format!("Authorization: Bearer {token}")], &["-u", "x:y"], &["-H", "X-Auth-Token: y"]] {
        let said = open.ask("/api/v1/alarms", more);
        assert_eq!(said.status, 401, "{more:?}: {}", said.body);
        assert!(
            said.head.contains("www-authenticate: bearer") && said.head.contains("www-authenticate: basic"),
            "{}",
            said.head
        );
        assert!(!said.body.contains(token));
    }
    assert_eq!(open.ask("/readyz", &[]).status, 200);
    // By all the ways that programs know.
    let reader = &roles[0].1;
    assert_eq!(open.ask("/api/v1/alarms", &["-u", &format!("grafana:{reader}")]).status, 200);
    assert_eq!(open.ask("/api/v1/alarms", &["-H", &format!("X-Auth-Token: {reader}")]).status, 200);
    assert_eq!(open.ask("/api/v1/alarms", &["-u", "x:y", "-H", &format!("X-Auth-Token: {reader}")]).status, 401, "one is bad");
    // On the node's own host a token counts, too.
    let local = curl(&["-H", &format!("X-Auth-Token: {reader}"), "--data-binary", &report, &open.node.url("/events")]);
    assert_eq!(local.status, 403, "a reader is a reader: {}", local.body);
    assert_eq!(curl(&["-u", "x:y", &open.node.url("/alarms")]).status, 401, "and what is bad is not passed over");
}

#[test]
fn tokens_end_and_last() {
    let mut open = Open::start("");
    let (kept, gone) = (open.token("kept", &["--role", "reader"]), open.token("gone", &["--role", "reader"]));
    let brief = open.token("brief", &["--role", "reader", "--for", "3s"]);
    let status = |open: &Open, token: &str| open.with(token, "/api/v1/alarms", &[]).status;
    assert_eq!([&kept, &gone, &brief].map(|token| status(&open, token)), [200; 3]);
    let again = open.node.cli(&["token", "create", "kept", "--role", "admin"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("there is a token kept already"));
    open.node.cli_ok(&["token", "revoke", "gone"]);
    assert_eq!(status(&open, &gone), 401, "at once");
    wait_until("its time is over", || status(&open, &brief) == 401);
    let listed = open.node.cli_ok(&["token", "list"]);
    assert!(
        listed.contains("kept") && listed.contains("for good") && listed.contains("over") && !listed.contains("gone"),
        "{listed}"
    );
    assert!(!open.node.cli(&["token", "revoke", "gone"]).status.success());
    let made = open.token("gone", &["--role", "reader"]);
    // What is answered is durable.
    open.node.kill();
    open.node = Open::setup(&open.authority, &open.dir, "").start();
    assert_eq!([&kept, &gone, &brief, &made].map(|token| status(&open, token)), [200, 401, 401, 200]);
    // What proves a token is nowhere but with its bearer.
    let backup = open.dir.path().join("backup");
    open.node.cli_ok(&[
        "store",
        "backup",
        "--data",
        &open.dir.path().join("data").display().to_string(),
        &backup.display().to_string(),
    ]);
    let log = open.node.log_text();
    for token in [&kept, &gone, &brief, &made] {
        assert!(!log.contains(&**token));
        let secret = token.strip_prefix("klaxon_").expect("begins so");
        let found = Command::new("grep").args(["-rlF", secret]).arg(open.dir.path()).output().expect("grep is there");
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
}

#[test]
fn what_is_limited_to_sites_is_so_everywhere() {
    let open = Open::start("");
    for (site, resource) in [("north", "host=a"), ("north", "host=b"), ("south", "host=c"), ("noc", "host=d")] {
        open.node.send(&serde_json::from_str(&event(site, resource)).expect("is JSON"));
    }
    open.node.send(&json!({ "site": "south", "resource": "heartbeat=x", "alarm_type": "heartbeat.lost", "kind": "heartbeat", "lease_s": 300 }));
    let alarms = open.node.json("/alarms")["alarms"].as_array().expect("a list").clone();
    let id = |site: &str| {
        alarms.iter().find(|alarm| alarm["site"] == site).expect("stands")["id"].as_str().expect("an id").to_owned()
    };
    let reader = open.token("reader", &["--role", "reader", "--site", "north"]);
    let get = |path: &str| open.with(&reader, path, &[]).json();
    let sites_of = |list: &Value| {
        let mut sites: Vec<_> = list.as_array().expect("a list").iter().map(|row| row["site"].to_string()).collect();
        sites.dedup();
        sites
    };
    let list = get("/api/v1/alarms?sort=resource");
    assert_eq!((sites_of(&list["alarms"]), list["counts"]["active"].as_u64()), (vec!["\"north\"".to_owned()], Some(2)));
    assert_eq!(get("/api/v1/alarms?site=south")["alarms"], json!([]));
    assert_eq!(get("/api/v1/alarms?resource=host%3Dc")["alarms"], json!([]));
    let summary = get("/api/v1/alarms/summary");
    assert_eq!((summary["active"].as_u64(), summary["by_site"].as_array().map(Vec::len)), (Some(2), Some(1)));
    let history = get("/api/v1/history");
    assert_eq!(history["changes"].as_array().map(Vec::len), Some(2), "{history}");
    assert_eq!(get("/api/v1/history?site=south")["changes"], json!([]));
    assert_eq!(get("/api/v1/heartbeats")["total"], 0);
    let metrics = open.with(&reader, "/metrics", &[]).body;
    assert!(metrics.contains("klaxon_alarms_active{site=\"north\"") && !metrics.contains("south"), "{metrics}");
    assert!(!metrics.contains("klaxon_journal"), "the node itself concerns all sites");
    for (path, status) in [
        (format!("/api/v1/alarms/{}", id("north")), 200),
        (format!("/api/v1/alarms/{}", id("south")), 404),
        (format!("/api/v1/alarms/{}", &id("south")[..8]), 404),
        (format!("/api/v1/alarms/{}/why", id("south")), 404),
        ("/api/v1/collectors".to_owned(), 403),
        ("/api/v1/receivers".to_owned(), 403),
        ("/api/v1/uplink/state".to_owned(), 403),
        ("/api/v1/heartbeats/x?site=south".to_owned(), 403),
    ] {
        assert_eq!(open.with(&reader, &path, &[]).status, status, "{path}");
    }
    // The stream.
    let ca = open.authority.path("ca.pem");
    let mut stream =
        Stream::follow(&["--cacert", &ca, "-H", &format!("X-Auth-Token: {reader}"), &open.url("/api/v1/stream?from=0")]);
    open.node.send(&serde_json::from_str(&event("south", "host=e")).expect("is JSON"));
    open.node.send(&serde_json::from_str(&event("north", "host=f")).expect("is JSON"));
    let seen = stream.until("host=f");
    assert!(seen.contains("host=a") && !seen.contains("south") && !seen.contains("host=d"), "{seen}");
    // Acting, and reporting.
    let operator = open.token("operator", &["--role", "operator", "--site", "north", "--site", "east"]);
    let act = |order: Value| open.with(&operator, "/api/v1/actions", &post(&order.to_string(), &[])).status;
    assert_eq!(act(json!({ "action": "acknowledge", "alarms": [id("north")] })), 200);
    assert_eq!(act(json!({ "action": "acknowledge", "alarms": [id("south")] })), 404);
    assert_eq!(act(json!({ "action": "acknowledge", "filter": { "site": "south" } })), 404);
    assert_eq!(act(json!({ "action": "acknowledge", "filter": { "cleared": false } })), 200, "those of its sites");
    assert_eq!(act(json!({ "action": "suppress", "alarm_type": "fan.failed" })), 403);
    let shelf =
        |site: Value| json!({ "action": "add-shelf", "match": site, "until": "2099-01-01T00:00:00Z", "reason": "work" });
    assert_eq!(act(shelf(json!({ "site": "south" }))), 403);
    assert_eq!(act(shelf(json!({ "alarm_type": "fan.failed" }))), 403, "it would be at all sites");
    assert_eq!(act(shelf(json!({ "site": "east" }))), 200);
    assert_eq!(open.node.json("/alarms?acknowledged=true&site=south")["alarms"], json!([]));
    let publisher = open.token("publisher", &["--role", "publisher", "--site", "north"]);
    let both = format!("[{},{}]", event("south", "host=g"), event("north", "host=h"));
    let answer = open.with(&publisher, "/api/v1/events", &post(&both, &[])).json();
    assert_eq!((answer["accepted"].as_u64(), answer["rejected"].as_u64()), (Some(1), Some(1)));
    assert_eq!(answer["results"][0]["field"], "site");
    // Who is limited makes nobody more than they are.
    let admin = open.token("admin", &["--role", "admin", "--site", "north"]);
    let order = json!({ "name": "root", "role": "admin" }).to_string();
    assert_eq!(open.with(&admin, "/api/v1/tokens", &post(&order, &[])).status, 403);
    assert_eq!(open.with(&admin, "/api/v1/tokens", &[]).status, 403, "nor sees whom others have let in");
    // The node's own site is one like the others: what it did for them is theirs, and tokens are nobody's.
    let central = open.token("central", &["--role", "reader", "--site", "noc"]);
    let acknowledge = json!({ "action": "acknowledge", "filter": { "cleared": false, "acknowledged": false } });
    let all = open.token("all", &["--role", "operator"]);
    assert_eq!(open.with(&all, "/api/v1/actions", &post(&acknowledge.to_string(), &[])).status, 200);
    let again = json!({ "action": "acknowledge", "alarms": [id("south"), id("noc")] }).to_string();
    assert_eq!(open.with(&all, "/api/v1/actions", &post(&again, &[])).status, 409, "it is so already");
    let history = open.with(&central, "/api/v1/history", &[]).json();
    let kinds: Vec<_> = history["changes"].as_array().expect("a list").iter().map(|change| change["kind"].clone()).collect();
    assert_eq!(kinds, ["refused", "acknowledged", "raised"], "{history:#}");
    assert_eq!(history["changes"][0]["refusal"]["alarm"], json!(id("noc")), "{history:#}");
    let why = open.with(&central, &format!("/api/v1/alarms/{}/why", id("noc")), &[]).body;
    assert!(why.contains("the order came in at") && !why.contains(&id("south")), "{why}");
    let here = curl(&[&open.node.url(&format!("/alarms/{}/why", id("noc")))]).body;
    assert!(here.contains(&id("south")), "who may know of all sees all of the order: {here}");
    // A stream ends with its token.
    open.node.cli_ok(&["token", "revoke", "reader"]);
    open.node.send(&serde_json::from_str(&event("north", "host=i")).expect("is JSON"));
    assert!(!stream.until("no longer allowed").contains("host=i"));
}

/// A stream, as curl shows it.
struct Stream {
    curl: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Stream {
    fn follow(args: &[&str]) -> Self {
        let mut curl =
            Command::new("curl").args(["-sSN", "--max-time", "60"]).args(args).stdout(Stdio::piped()).spawn().expect("curl");
        let lines = BufReader::new(curl.stdout.take().expect("is piped"));
        Self { curl, lines }
    }

    /// What comes up to a line with `word`.
    fn until(&mut self, word: &str) -> String {
        let mut seen = String::new();
        loop {
            let before = seen.len();
            assert!(self.lines.read_line(&mut seen).expect("is read") > 0, "it ended before {word}: {seen}");
            if seen[before..].contains(word) {
                return seen;
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

#[test]
fn who_did_what_from_where_stands_in_history_and_so_do_attempts() {
    let open = Open::start("");
    open.node.send(&json!({ "resource": "host=a", "alarm_type": "fan.failed", "severity": "major" }));
    let (operator, reader) = (open.token("ann", &["--role", "operator"]), open.token("rob", &["--role", "reader"]));
    let order = json!({ "action": "acknowledge", "filter": { "cleared": false } }).to_string();
    assert_eq!(open.with(&operator, "/api/v1/actions", &post(&order, &[])).status, 200);
    let by = |actor: &str| open.node.json(&format!("/history?actor={actor}"))["changes"].clone();
    let ann = by("ann");
    assert_eq!((&ann[0]["kind"], &ann[0]["from"]), (&json!("acknowledged"), &json!("127.0.0.1, by a token")));
    let root = by("root");
    assert_eq!(
        (&root[0]["kind"], &root[0]["token"]["name"], &root[0]["from"]),
        (&json!("token-created"), &json!("rob"), &json!("the Unix socket"))
    );
    assert!(root[0]["token"].get("hash").is_none());
    let denied =
        || open.node.json("/history?alarm_type=klaxon.access-denied&order=asc")["changes"].as_array().expect("a list").clone();
    for _ in 0..5 {
        assert_eq!(open.with(&reader, "/api/v1/actions", &post(&order, &[])).status, 403);
    }
    wait_until("it is told", || denied().len() == 1);
    let event = &denied()[0]["event"];
    assert!(event["text"].as_str().expect("words").starts_with("rob may not act on alarms, and tried"), "{event}");
    assert_eq!((&event["attributes"]["actor"], &event["severity"]), (&json!("rob"), &json!("warning")));
    assert_eq!(open.with("klaxon_guess", "/api/v1/alarms", &[]).status, 401);
    wait_until("that is told as well", || denied().len() == 2);
    assert!(denied()[1]["event"]["text"].as_str().expect("words").starts_with("Somebody showed a token that is not good"));
    let metrics = curl(&[&format!("{}/metrics", open.node.base)]).body;
    assert!(metrics.contains("klaxon_http_denied_total{reason=\"not-allowed\"} 5"), "{metrics}");
    assert!(metrics.contains("klaxon_http_denied_total{reason=\"unknown-token\"} 1"));
}

#[test]
fn guessing_is_slow_and_keeps_nobody_else_out() {
    let open = Open::start("");
    let good = open.token("good", &["--role", "reader"]);
    let began = std::time::Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..12)
            .map(|n| {
                scope.spawn({
                    let open = &open;
                    move || open.with(&format!("klaxon_{n}"), "/api/v1/alarms", &[]).status
                })
            })
            .collect();
        assert_eq!(open.with(&good, "/api/v1/alarms", &[]).status, 200, "whoever has a good one is not kept waiting");
        guesses.into_iter().map(|guess| guess.join().expect("asks")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 401 | 429)) && statuses.contains(&401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    // The node's own wait, not the machine's.
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_certificate_is_a_name_that_the_settings_know() {
    let grants = "[access.certificates.\"grafana.noc\"]\nrole = \"reader\"\nsites = [\"north\"]\n\
                  [access.certificates.ops]\nrole = \"operator\"";
    let open = Open::start(grants);
    open.node.send(&serde_json::from_str(&event("north", "host=a")).expect("is JSON"));
    open.node.send(&serde_json::from_str(&event("south", "host=b")).expect("is JSON"));
    let ask = |common: &str, dns: &[&str], path: &str| {
        let (certificate, key) = open.authority.issue(common, dns);
        open.authority.write("client.pem", &certificate.pem());
        open.authority.write("client.key", &key.serialize_pem());
        open.ask(path, &["--cert", &open.authority.path("client.pem"), "--key", &open.authority.path("client.key")])
    };
    assert_eq!(ask("ops", &[], "/api/v1/alarms").json()["counts"]["active"], 2);
    assert_eq!(ask("x", &["grafana.noc"], "/api/v1/alarms").json()["counts"]["active"], 1);
    assert_eq!(ask("nobody", &[], "/api/v1/alarms").status, 401);
    let stranger = Authority::called("stranger");
    let (certificate, key) = stranger.issue("ops", &[]);
    stranger.write("client.pem", &certificate.pem());
    stranger.write("client.key", &key.serialize_pem());
    let refused = open.ask("/healthz", &["--cert", &stranger.path("client.pem"), "--key", &stranger.path("client.key")]);
    assert_eq!(refused.status, 0, "no connection is made");
    // What the settings take away ends what it allowed.
    let (certificate, key) = open.authority.issue("ops", &[]);
    open.authority.write("ops.pem", &certificate.pem());
    open.authority.write("ops.key", &key.serialize_pem());
    let [ca, certificate, key] = ["ca.pem", "ops.pem", "ops.key"].map(|name| open.authority.path(name));
    let mut stream = Stream::follow(&["--cacert", &ca, "--cert", &certificate, "--key", &key, &open.url("/api/v1/stream")]);
    stream.until("hello");
    let file = open.dir.path().join("data.toml");
    let settings = std::fs::read_to_string(&file).expect("is there").replace("certificates.ops]", "certificates.others]");
    std::fs::write(&file, settings).expect("there is room");
    open.node.signal(rustix::process::Signal::HUP);
    wait_until("it is taken up", || open.node.log_text().contains("new settings are in force"));
    open.node.send(&serde_json::from_str(&event("north", "host=late")).expect("is JSON"));
    assert!(!stream.until("no longer allowed").contains("host=late"));
    // Required, nobody comes in without one.
    let dir = scratch("access-required-");
    let strict = Open::setup(&open.authority, &dir, "client_certificate_required = true").start();
    let url = format!("https://localhost:{}/healthz", strict.listener("noc").port());
    assert_eq!(curl(&["--cacert", &open.authority.path("ca.pem"), &url]).status, 0);
}

#[test]
fn a_proxy_on_this_host_is_not_this_host() {
    if !harness::is_there("nginx") {
        return;
    }
    let open = Open::start("");
    let token = open.token("dash", &["--role", "reader"]);
    let dir = scratch("nginx-");
    let upstream = open.node.base.trim_start_matches("http://").to_owned();
    let socket = dir.path().join("s");
    let config = |forwards: &str| {
        format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/error;\nevents {{}}\nhttp {{\n access_log off;\n\
             client_body_temp_path {0}/b;\n proxy_temp_path {0}/p;\n fastcgi_temp_path {0}/f;\n uwsgi_temp_path {0}/u;\n scgi_temp_path {0}/c;\n\
             server {{ listen unix:{1}; location / {{ proxy_pass http://{upstream}; {forwards} }} }}\n}}\n",
            dir.path().display(),
            socket.display()
        )
    };
    std::fs::write(dir.path().join("conf"), config("proxy_set_header X-Forwarded-For $remote_addr;")).expect("is written");
    let mut proxy = Command::new("nginx").args(["-p"]).arg(dir.path()).args(["-c", "conf"]).spawn().expect("nginx starts");
    wait_until("nginx listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let socket = socket.display().to_string();
    let through = |more: &[&str]| curl(&[&["--unix-socket", &socket, "http://localhost/api/v1/alarms"], more].concat());
    let refused = through(&[]);
    assert_eq!(refused.status, 401, "{}", refused.body);
    assert!(refused.body.contains("x-forwarded-for"), "{}", refused.body);
    assert_eq!(through(&["-u", &format!("x:{token}")]).status, 200);
    proxy.kill().expect("runs");
    proxy.wait().expect("ends");
}

#[test]
fn loopback_is_trusted_unless_it_is_said_and_an_open_listener_says_so_loudly() {
    let dir = scratch("access-strict-");
    let strict =
        Setup::new(&dir.path().join("data")).config("[http]\nlisten = \"127.0.0.1:0\"\ntrust_loopback = false").start_unready();
    let base = || strict.base.clone();
    wait_until("it answers", || curl(&[&format!("{}/healthz", base())]).status == 200);
    assert_eq!(curl(&[&format!("{}/api/v1/alarms", base())]).status, 401);
    let socket = dir.path().join("data/klaxon.sock").display().to_string();
    let made = klaxon().args(["--node", &socket, "token", "create", "t", "--role", "reader"]).output().expect("runs");
    let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    assert_eq!(curl(&["-u", &format!("x:{token}"), &format!("{}/api/v1/alarms", base())]).status, 200);
    let open = harness::Site::start("[listeners.lab]\nlisten = \"127.0.0.1:0\"\ninsecure = true");
    let address = open.listener("lab");
    assert_eq!(curl(&["-H", "Host: anything", &format!("http://{address}/api/v1/alarms")]).status, 200);
    let order = json!({ "action": "suppress", "alarm_type": "x" }).to_string();
    assert_eq!(curl(&post(&order, &[&format!("http://{address}/api/v1/actions")])).status, 401);
    assert!(open.log_text().contains("whoever reaches it may read and report"));
    assert!(curl(&[&format!("{}/metrics", open.base)]).body.contains("klaxon_http_listeners_insecure 1"));
}

#[test]
fn the_command_line_speaks_with_a_node_elsewhere() {
    let open = Open::start("");
    let token = open.token("remote", &["--role", "operator"]);
    let file = open.dir.path().join("token");
    std::fs::write(&file, format!("{token}\n")).expect("is written");
    let (url, ca) = (open.url(""), open.authority.path("ca.pem"));
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let output =
            klaxon().args(["--node", &url, "--ca-file", &ca]).args(args).envs(env.iter().copied()).output().expect("runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let file = file.display().to_string();
    let (ok, said) = run(&["--token-file", &file, "alarms", "suppress", "fan.failed", "--reason", "work"], &[]);
    assert!(ok, "{said}");
    let (ok, said) = run(&["alarms", "suppressions"], &[("KLAXON_TOKEN", &token)]);
    assert!(ok && said.contains("remote") && said.contains("work"), "{said}");
    let (ok, said) = run(&["alarms"], &[]);
    assert!(!ok && said.contains("show a token"), "{said}");
    let other = Authority::called("other").path("ca.pem");
    let output = klaxon().args(["--node", &url, "--ca-file", &other, "alarms"]).output().expect("runs");
    assert!(!output.status.success());
    let plain = klaxon().args(["--node", "http://192.0.2.1:1", "alarms"]).env("KLAXON_TOKEN", &token).output().expect("runs");
    assert!(String::from_utf8_lossy(&plain.stderr).contains("over https:// only"));
}

#[test]
fn keystone_says_whose_a_token_is() {
    let keystone = keystone::Keystone::start();
    keystone.knows("gAAAA-ann", "ann", "Default", &["member", "operator"]);
    keystone.knows("gAAAA-bob", "bob", "railway", &["reader"]);
    keystone.knows("gAAAA-eve", "eve", "Default", &["member"]);
    let open = Open::start(&format!(
        "[access.keystone]\nurl = \"{}\"\ncache = \"1h\"\n[access.keystone.roles]\noperator = {{ role = \"operator\" }}\n\
         reader = {{ role = \"reader\", sites = [\"north\"] }}\nsender = {{ role = \"publisher\" }}",
        keystone.url()
    ));
    open.node.send(&serde_json::from_str(&event("north", "host=a")).expect("is JSON"));
    open.node.send(&serde_json::from_str(&event("south", "host=b")).expect("is JSON"));
    let ask = |token: &str, path: &str, more: &[&str]| {
        let header = format!("X-Auth-Token: {token}");
        open.ask(path, &[&["-H", &header], more].concat())
    };
    let order = json!({ "action": "acknowledge", "filter": { "cleared": false } }).to_string();
    assert_eq!(ask("gAAAA-ann", "/api/v1/actions", &post(&order, &[])).status, 200);
    assert_eq!(open.node.json("/history?actor=ann")["changes"][0]["from"], "127.0.0.1, by Keystone");
    assert_eq!(ask("gAAAA-bob", "/api/v1/alarms", &[]).json()["counts"]["active"], 1);
    assert_eq!(ask("gAAAA-bob", "/api/v1/actions", &post(&order, &[])).status, 403);
    assert_eq!(ask("gAAAA-eve", "/api/v1/alarms", &[]).status, 403, "known, and nothing here");
    assert_eq!(ask("gAAAA-mal", "/api/v1/alarms", &[]).status, 401);
    // Of several roles the one counts that may do most.
    keystone.knows("gAAAA-pat", "pat", "Default", &["operator", "sender"]);
    assert_eq!(ask("gAAAA-pat", "/api/v1/alarms", &[]).status, 200);
    let asked = keystone.asked();
    assert_eq!(ask("gAAAA-bob", "/api/v1/alarms", &[]).status, 200);
    assert_eq!(keystone.asked(), asked, "what it said is believed for a while");
    // While it is away, what it said holds, and nobody guesses.
    drop(keystone);
    assert_eq!(ask("gAAAA-bob", "/api/v1/alarms", &[]).status, 200);
    assert_eq!(ask("gAAAA-new", "/api/v1/alarms", &[]).status, 503);
    assert!(!open.node.log_text().contains("gAAAA"));
}

#[test]
fn what_keystone_takes_back_ends_what_it_allowed() {
    let keystone = keystone::Keystone::start();
    keystone.knows("gAAAA-ann", "ann", "Default", &["reader"]);
    let open = Open::start(&format!(
        "[access.keystone]\nurl = \"{}\"\ncache = \"1s\"\n[access.keystone.roles]\nreader = {{ role = \"reader\" }}",
        keystone.url()
    ));
    let ca = open.authority.path("ca.pem");
    let mut stream = Stream::follow(&["--cacert", &ca, "-H", "X-Auth-Token: gAAAA-ann", &open.url("/api/v1/stream")]);
    stream.until("hello");
    let asked = keystone.asked();
    let send =
        |number: usize| open.node.send(&serde_json::from_str(&event("north", &format!("host=h{number}"))).expect("is JSON"));
    let mut sent = 0;
    // Once a second, as long as somebody is told.
    wait_until("it is asked again", || {
        send(sent);
        sent += 1;
        keystone.asked() > asked
    });
    stream.until(&format!("host=h{}", sent - 1));
    keystone.forgets("gAAAA-ann");
    wait_until("it is asked once more", || {
        send(sent);
        sent += 1;
        open.ask("/api/v1/alarms", &["-H", "X-Auth-Token: gAAAA-ann"]).status == 401
    });
    send(sent);
    stream.until("no longer allowed");
}

#[test]
fn pages_from_elsewhere_are_kept_out_unless_they_are_named() {
    let open = Open::start("[http]\nlisten = \"127.0.0.1:0\"\norigins = [\"https://dash.example\"]");
    let token = open.token("t", &["--role", "reader"]);
    let from = |origin: &str| open.with(&token, "/api/v1/alarms", &["-H", &format!("Origin: {origin}")]);
    let evil = from("https://evil.example");
    assert_eq!(evil.status, 403);
    assert!(!evil.head.contains("access-control-allow-origin"), "{}", evil.head);
    let named = from("https://dash.example");
    assert_eq!(named.status, 200);
    assert!(named.head.contains("access-control-allow-origin: https://dash.example"), "{}", named.head);
    assert_eq!(from(&open.url("")).status, 200, "the node's own page");
    let preflight = open.ask(
        "/api/v1/actions",
        &["-X", "OPTIONS", "-H", "Origin: https://dash.example", "-H", "Access-Control-Request-Method: POST"],
    );
    assert!(preflight.status == 200 && preflight.head.contains("access-control-allow-methods"), "{}", preflight.head);
    for header in ["x-content-type-options: nosniff", "x-frame-options: deny", "cache-control: no-store"] {
        assert!(named.head.contains(header), "{}", named.head);
    }
}

#[test]
fn each_client_has_its_share() {
    let open = Open::start("[http]\nlisten = \"127.0.0.1:0\"\nclient_streams_max = 2\nclient_rate_max = 5");
    let (one, other) = (open.token("one", &["--role", "reader"]), open.token("other", &["--role", "reader"]));
    let ca = open.authority.path("ca.pem");
    let follow = |token: &str| {
        let mut stream =
            Stream::follow(&["--cacert", &ca, "-H", &format!("X-Auth-Token: {token}"), &open.url("/api/v1/stream")]);
        stream.until("hello");
        stream
    };
    let _streams = [follow(&one), follow(&one)];
    let third = open.with(&one, "/api/v1/stream", &[]);
    assert_eq!(third.status, 429, "{}", third.body);
    let _others = follow(&other);
    let statuses: Vec<u16> = (0..40).map(|_| open.with(&one, "/api/v1/alarms", &[]).status).collect();
    let at_once: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..30).map(|_| scope.spawn(|| open.with(&one, "/api/v1/alarms", &[]).status)).collect();
        asking.into_iter().map(|one| one.join().expect("asks")).collect()
    });
    assert!(statuses.iter().chain(&at_once).any(|status| *status == 429), "{statuses:?} {at_once:?}");
    wait_until("its turn comes again", || open.with(&one, "/api/v1/alarms", &[]).status == 200);
}

/// What the process holds in memory, in bytes.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("is said");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn who_is_slow_or_sends_without_end_harms_nobody() {
    let open = Open::start("[http]\nlisten = \"127.0.0.1:0\"\nrequest_timeout = \"2s\"");
    for n in 0..200 {
        open.node.send(&serde_json::from_str(&event("noc", &format!("host=a-{n}"))).expect("is JSON"));
    }
    let address = open.node.base.trim_start_matches("http://").to_owned();
    let before = memory(&open.node);
    // A hundred that never finish their head, and a hundred that never finish their body.
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = std::net::TcpStream::connect(&address).expect("it listens");
        let head = if n % 2 == 0 {
            "GET /api/v1/alarms HTTP/1.1\r\nHost: localhost\r\nX-"
        } else {
            "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n["
        };
        stream.write_all(head.as_bytes()).expect("is sent");
        slow.push(stream);
    }
    // One that asks for a stream of all there is and never reads.
    let mut deaf = std::net::TcpStream::connect(&address).expect("it listens");
    deaf.write_all(b"GET /api/v1/stream?from=0 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("is sent");
    // A million lines.
    let lines = open.dir.path().join("lines");
    let line = event("noc", "host=a") + "\n";
    std::fs::write(&lines, line.repeat(1_000_000)).expect("is written");
    let said = curl(&[
        "-H",
        "content-type: application/x-ndjson",
        "-T",
        &lines.display().to_string(),
        "-X",
        "POST",
        &open.node.url("/events"),
    ]);
    assert!(matches!(said.status, 413 | 0), "{said:?}");
    for n in 0..50 {
        open.node.send(&serde_json::from_str(&event("noc", &format!("host=b-{n}"))).expect("is JSON"));
        assert_eq!(curl(&[&open.node.url("/alarms?limit=1")]).status, 200);
    }
    let grown = memory(&open.node).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    // Whoever does not send their body is told, and let go.
    let mut answer = [0; 12];
    slow[1].set_read_timeout(Some(Duration::from_secs(30))).expect("can be set");
    slow[1].read_exact(&mut answer).expect("is answered");
    assert!(answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&answer));
    drop(deaf);
}

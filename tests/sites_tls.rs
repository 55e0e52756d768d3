//! TLS between a centre and a site, each with its own files: who is believed, who is not and how that is told, and what happens
//! when the files are exchanged.

mod harness;
#[path = "harness/wan.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod wan;

use harness::authority::Authority;
use harness::{Node, Setup, klaxon, scratch, wait_until, write_config};
use serde_json::{Value, json};
use wan::{Wan, Weather};

/// A centre that shows what `authority` has issued, and believes certificates that it issues.
fn centre(authority: &Authority, dir: &tempfile::TempDir) -> Node {
    authority.serve();
    let (certificate, key, ca) = (authority.path("cert.pem"), authority.path("key.pem"), authority.path("ca.pem"));
    let config = format!(
        "[node]\nsite = \"noc\"\n[listeners.sites]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n\
         client_ca_file = \"{ca}\""
    );
    Setup::new(&dir.path().join("noc")).config(&config).start()
}

/// The settings of the site; `uplink` are more of its uplink.
fn depot(uplink: &str) -> String {
    format!("[node]\nsite = \"depot-7\"\n[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n{uplink}")
}

fn state(site: &Node) -> Value {
    site.json("/uplink/state")
}

fn wait_connected(site: &Node) {
    wait_until("the uplink is connected", || state(site)["state"] == "connected");
}

/// Waits until the command line says that the uplink fails for this.
fn wait_error(site: &Node, words: &[&str]) {
    let said = || site.cli_ok(&["uplink"]);
    wait_until(&format!("it says {words:?}"), || words.iter().all(|word| said().contains(word)));
}

fn send(site: &Node, resource: &str) {
    site.send(&json!({ "resource": resource, "alarm_type": "fan.failed", "severity": "major", "text": "stands" }));
}

fn wait_mirrored(centre: &Node, resource: &str) {
    wait_until("it is mirrored", || centre.alarms().iter().any(|alarm| alarm["resource"] == resource));
}

#[test]
fn a_site_joins_over_tls_and_files_are_exchanged_while_it_is_connected() {
    let dir = scratch("tls-sites-");
    let authority = Authority::new();
    let centre = centre(&authority, &dir);
    let wan = Wan::to(centre.listener("sites"));
    let trusted = dir.path().join("trusted.pem");
    std::fs::copy(authority.path("ca.pem"), &trusted).expect("can be copied");
    let site = Setup::new(&dir.path().join("depot")).config(&depot(&format!("ca_file = \"{}\"", trusted.display()))).start();
    let token = centre.cli_ok(&["site", "add", "depot-7"]);
    site.cli_ok(&["join", &format!("https://localhost:{}", wan.address().port()), "--token", token.trim()]);
    wait_connected(&site);
    send(&site, "host=a");
    wait_mirrored(&centre, "host=a");
    assert_eq!(centre.json("/sites/depot-7")["proof"], "join-token");
    // The way back is there as well.
    let id = centre.alarms()[0]["id"].as_str().expect("has one").to_owned();
    let told = centre.cli_ok(&["alarms", "ack", &id]);
    assert!(told.starts_with("acknowledged"), "{told}");
    // Another certificate, of an authority that has the same name and is not the one that the site knows: what is connected goes on.
    let connections = || state(&site)["connections"].as_u64().expect("is counted");
    let before = connections();
    let other = Authority::new();
    let (certificate, key) = other.issue("centre", &["localhost"]);
    authority.write("key.pem", &key.serialize_pem());
    authority.write("cert.pem", &certificate.pem());
    centre.signal(rustix::process::Signal::HUP);
    wait_until("it is in use", || centre.log_text().contains("the certificate of listeners.sites"));
    send(&site, "host=b");
    wait_mirrored(&centre, "host=b");
    assert_eq!(connections(), before);
    // The next connection meets the new one, and says what it thinks of it.
    wan.set(Weather::Cut);
    wait_until("the line is gone", || state(&site)["state"] == "disconnected");
    wan.set(Weather::Fair);
    wait_error(&site, &["uplink.ca_file", "authority"]);
    // Files are read for each connection: nobody has to restart or to reload the site.
    std::fs::copy(other.path("ca.pem"), &trusted).expect("can be copied");
    wait_connected(&site);
    send(&site, "host=c");
    wait_mirrored(&centre, "host=c");
    assert_eq!(centre.json("/sites/depot-7")["proof"], "token");
}

#[test]
fn who_is_not_believed_is_told_why() {
    let dir = scratch("tls-sites-");
    let (authority, stranger) = (Authority::new(), Authority::called("stranger"));
    let centre = centre(&authority, &dir);
    let port = centre.listener("sites").port();
    let token = centre.cli_ok(&["site", "add", "depot-7"]);
    // An authority that did not issue the certificate.
    let trusted = dir.path().join("trusted.pem");
    std::fs::copy(stranger.path("ca.pem"), &trusted).expect("can be copied");
    let site = Setup::new(&dir.path().join("depot")).config(&depot(&format!("ca_file = \"{}\"", trusted.display()))).start();
    site.cli_ok(&["join", &format!("https://localhost:{port}"), "--token", token.trim()]);
    wait_error(&site, &["certificate", "authority", "uplink.ca_file"]);
    assert_eq!(centre.json("/sites/depot-7")["state"], "enrolled");
    // None at all.
    std::fs::write(&trusted, "nonsense").expect("can be written");
    wait_error(&site, &["trusted.pem", "no certificate"]);
    std::fs::remove_file(&trusted).expect("can be removed");
    wait_error(&site, &["cannot read", "trusted.pem"]);
    // The right one, and a certificate for another name.
    std::fs::copy(authority.path("ca.pem"), &trusted).expect("can be copied");
    let (certificate, key) = authority.issue("centre", &["noc.example"]);
    let shown = (certificate.pem(), key.serialize_pem());
    authority.write("key.pem", &shown.1);
    authority.write("cert.pem", &shown.0);
    // It joined, or was about to, with the one before.
    centre.signal(rustix::process::Signal::HUP);
    wait_until("it is in use", || centre.log_text().contains("the certificate of listeners.sites"));
    centre.cli_ok(&["site", "add", "depot-8"]);
    let other = dir.path().join("depot-8");
    let named = depot(&format!("ca_file = \"{}\"", trusted.display())).replace("depot-7", "depot-8");
    let misled = Setup::new(&other).config(&named).start();
    misled.cli_ok(&["join", &format!("https://localhost:{port}"), "--token", "whatever"]);
    wait_error(&misled, &["localhost", "noc.example"]);
}

#[test]
fn a_client_certificate_proves_a_site_and_one_for_another_does_not() {
    let dir = scratch("tls-sites-");
    let (authority, stranger) = (Authority::new(), Authority::called("stranger"));
    let centre = centre(&authority, &dir);
    let url = format!("https://localhost:{}", centre.listener("sites").port());
    centre.cli_ok(&["site", "add", "depot-7", "--no-token"]);
    let (certificate, key) = (dir.path().join("depot.pem"), dir.path().join("depot.key"));
    let give = |authority: &Authority, name: &str| {
        let (issued, secret) = authority.issue(name, &[]);
        std::fs::write(&key, secret.serialize_pem()).expect("can be written");
        std::fs::write(&certificate, issued.pem()).expect("can be written");
    };
    give(&authority, "depot-9");
    let more = format!(
        "url = \"{url}\"\nca_file = \"{}\"\nclient_certificate = \"{}\"\nclient_key = \"{}\"",
        authority.path("ca.pem"),
        certificate.display(),
        key.display()
    );
    let site = Setup::new(&dir.path().join("depot")).config(&depot(&more)).start();
    wait_error(&site, &["does not let this node in"]);
    // By whom the centre knows nobody.
    give(&stranger, "depot-7");
    wait_error(&site, &["uplink.client_certificate"]);
    give(&authority, "depot-7");
    wait_connected(&site);
    send(&site, "host=a");
    wait_mirrored(&centre, "host=a");
    assert_eq!(centre.json("/sites/depot-7")["proof"], "certificate");
    // It holds over a restart.
    site.stop();
    wait_until("it is away", || centre.json("/sites/depot-7")["state"] == "away");
    let site = Setup::new(&dir.path().join("depot")).config(&depot(&more)).start();
    wait_connected(&site);
}

#[test]
fn without_tls_nobody_is_spoken_to_over_a_network_unless_that_is_said() {
    let dir = scratch("tls-sites-");
    // TEST-NET-1 (RFC 5737): nobody is there.
    let url = "http://192.0.2.1:7780";
    let site = Setup::new(&dir.path().join("depot")).config(&depot("")).start();
    let refused = site.cli(&["join", url, "--token", "whatever"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("https://") && said.contains("uplink.insecure"), "{refused:?}");
    assert_eq!(state(&site)["url"], Value::Null);
    site.stop();
    let file = dir.path().join("settings.toml");
    write_config(&file, &depot(&format!("url = \"{url}\"")));
    let data = dir.path().join("depot");
    let run = klaxon().args(["run", "--config"]).arg(&file).arg("--data").arg(&data).output().expect("runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains("uplink.url") && said.contains("uplink.insecure"), "{said}");
    // Offline the store of such a node is not prepared for it either.
    let offline = klaxon().args(["join", url, "--token", "whatever", "--data"]).arg(&data).output().expect("runs");
    let said = String::from_utf8_lossy(&offline.stderr).into_owned();
    if offline.status.success() {
        let site = Setup::new(&data).config(&depot("")).start();
        wait_error(&site, &["uplink.insecure"]);
        site.stop();
    } else {
        assert!(said.contains("uplink.insecure"), "{said}");
    }
    let site = Setup::new(&data).config(&depot("insecure = true\nconnect_timeout = \"1s\"")).start();
    let allowed = site.cli(&["join", url, "--token", "whatever"]);
    assert!(allowed.status.success() || String::from_utf8_lossy(&allowed.stderr).contains("rehome"), "{allowed:?}");
    assert_eq!(state(&site)["url"], url);
}

//! Nodes above and below each other, as processes, with a bad network between them; and what they say of the same thing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::harness::hook::Hook;
use super::harness::http::Wire;
use super::harness::{Node, Reply, Setup, wait_until};
use super::wan::Wan;

/// What a centre has in its settings so that hours pass in seconds.
pub(crate) const QUICK: &str = "[sites]\nheartbeat = \"1s\"\nsilent_after = \"3s\"\n";

/// A node that can be stopped and started again in its folder.
pub(crate) struct Place {
    pub(crate) name: String,
    /// The site whose alarms it owns.
    pub(crate) site: String,
    pub(crate) setup: Setup,
    node: Option<Node>,
}

impl Deref for Place {
    type Target = Node;
    fn deref(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }
}

impl Place {
    /// A node of the site `name`, started.
    pub(crate) fn start(dir: &Path, name: &str, config: &str) -> Self {
        Self::start_as(name, name, Setup::new(&dir.join(name)).config(config))
    }

    /// A node called `name` of `site`, as `setup` says beside that.
    pub(crate) fn start_as(name: &str, site: &str, setup: Setup) -> Self {
        let setup = setup.config(&format!("[node]\nsite = \"{site}\""));
        let node = Some(setup.start());
        Self { name: name.to_owned(), site: site.to_owned(), setup, node }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.base.trim_start_matches("http://").parse().expect("an address")
    }

    pub(crate) fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }

    pub(crate) fn start_again(&mut self) {
        assert!(self.node.is_none(), "it runs");
        self.node = Some(self.setup.start());
    }

    /// A request by which somebody acts: over the socket.
    pub(crate) fn act(&self, method: &str, path: &str, body: &Value) -> Reply {
        let (path, body) = (format!("/api/v1{path}"), body.to_string());
        let headers: &[_] = if body == "null" { &[] } else { &[("content-type", "application/json")] };
        let body = if body == "null" { "" } else { &body };
        self.wire_unix(&Wire { method, path: &path, headers, body: body.as_bytes() })
    }

    /// Enrols a node; its join token.
    pub(crate) fn enrol(&self, name: &str, kind: &str) -> String {
        let reply = self.act("POST", "/sites", &json!({ "name": name, "kind": kind }));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["token"].as_str().expect("is text").to_owned()
    }

    /// How the node below stands, as this one says; nothing if it knows none.
    pub(crate) fn site(&self, name: &str) -> Option<Value> {
        let reply = self.get(&format!("/sites/{name}")).ok().filter(|reply| reply.status == 200)?;
        Some(reply.json())
    }

    pub(crate) fn site_is(&self, name: &str, state: &str) -> bool {
        self.site(name).is_some_and(|site| site["state"] == state)
    }

    pub(crate) fn wait_site(&self, name: &str, state: &str) -> Value {
        wait_until(&format!("{name} is {state} at {}: {:?}", self.name, self.site(name)), || self.site_is(name, state));
        self.site(name).expect("is there")
    }

    /// Reports of one type: raised with a severity, or `cleared`.
    pub(crate) fn report(&self, reports: &[(&str, &str)]) {
        let events = reports.iter().map(|(resource, severity)| event(resource, severity));
        self.send(&events.collect());
    }

    /// The alarm on `resource`, if one is listed.
    pub(crate) fn alarm(&self, resource: &str) -> Option<Value> {
        self.alarms().into_iter().find(|alarm| alarm["resource"] == resource)
    }

    pub(crate) fn id_of(&self, resource: &str) -> String {
        self.alarm(resource).expect("is listed")["id"].as_str().expect("is text").to_owned()
    }

    /// The changes of one owner, the oldest first as they came in here.
    pub(crate) fn changes_of(&self, site: &str) -> Vec<Value> {
        self.history().into_iter().filter(|change| change["site"] == site).collect()
    }

    /// What this node itself said about its nodes below: name and step.
    pub(crate) fn child_steps(&self, name: &str) -> Vec<Value> {
        let changes = self.history().into_iter().filter(|change| change["kind"] == "child" && change["child"]["name"] == name);
        changes.map(|change| change["child"]["what"].clone()).collect()
    }

    /// The lines that tell what came while a site was away.
    pub(crate) fn digests(&self, name: &str) -> Vec<Value> {
        self.child_steps(name).into_iter().filter_map(|step| step.get("caught-up").cloned()).collect()
    }
}

pub(crate) fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "test.fan", "severity": severity, "text": format!("said of {resource}") })
}

/// A node below another, behind a network of its own.
pub(crate) struct Below {
    pub(crate) place: Place,
    pub(crate) wan: Wan,
}

impl Deref for Below {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

/// The settings of a node below the one behind `wan`.
pub(crate) fn uplink(wan: &Wan, kind: &str, token_file: &Path) -> String {
    format!(
        "[uplink]\nurl = \"http://{}\"\nkind = \"{kind}\"\njoin_token_file = \"{}\"\nretry_min = \"20ms\"\nretry_max = \"200ms\"\n\
         connect_timeout = \"2s\"\n",
        wan.address(),
        token_file.display()
    )
}

/// A folder's own file with a token in it.
pub(crate) fn token_file(dir: &Path, name: &str, token: &str) -> PathBuf {
    let file = dir.join(format!("{name}.token"));
    std::fs::write(&file, token).expect("can be written");
    file
}

impl Below {
    /// Enrols `name` above and starts it; returns when it is connected.
    pub(crate) fn join(dir: &Path, above: &Place, name: &str, kind: &str, config: &str) -> Self {
        let below = Self::start(dir, above, name, kind, config);
        above.wait_site(name, "connected");
        // An agent has something to compare when it has reported something.
        let is_whole = |site: Value| kind == "agent" || (!site["reached"].is_null() && site["missing"] == 0);
        wait_until("all that was before has come", || above.site(name).is_some_and(is_whole));
        below
    }

    /// Enrols `name` above and starts it.
    pub(crate) fn start(dir: &Path, above: &Place, name: &str, kind: &str, config: &str) -> Self {
        let wan = Wan::to(above.address());
        let token = token_file(dir, name, &above.enrol(name, kind));
        // An agent is a host of the site above.
        let site = if kind == "agent" { &above.site } else { name };
        let setup = Setup::new(&dir.join(name)).config(&format!("{config}{}", uplink(&wan, kind, &token)));
        Self { place: Place::start_as(name, site, setup), wan }
    }

    /// The node above is somewhere else now.
    pub(crate) fn lead_to(&self, above: &Place) {
        self.wan.lead_to(above.address());
    }
}

/// A centre with one receiver, that is told at once.
pub(crate) fn centre(dir: &Path, hook: &Hook, config: &str) -> Place {
    let receiver = format!("[receivers.noc]\nfold_after = \"0s\"\n[receivers.noc.webhook]\nurl = \"{}\"\n", hook.url());
    Place::start(dir, "centre", &format!("{QUICK}{config}{receiver}"))
}

/// What must be the same of an alarm wherever it is listed.
fn face(alarm: &Value) -> Value {
    let keys = [
        "id",
        "site",
        "resource",
        "alarm_type",
        "severity",
        "cleared",
        "text",
        "raise_seq",
        "raised_at",
        "first_raised_at",
        "acknowledged",
        "assigned",
        "shelved",
    ];
    keys.iter().map(|key| ((*key).to_owned(), alarm[*key].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// The alarms of `owner` that stand, as `node` lists them.
pub(crate) fn standing(node: &Place, owner: &str) -> BTreeMap<String, Value> {
    let alarms = node.alarms().into_iter().filter(|alarm| alarm["cleared"] == false);
    let its = alarms.filter(|alarm| alarm["owner"].as_str().unwrap_or(&node.site) == owner);
    its.map(|alarm| (alarm["id"].as_str().expect("is text").to_owned(), face(&alarm))).collect()
}

/// Waits until `above` lists of the site what it lists itself, and nothing of its history is yet to come.
pub(crate) fn wait_same(above: &Place, site: &Place) {
    let is_same = || {
        let is_whole = above.site(&site.name).is_none_or(|shown| shown["missing"] == 0);
        is_whole && standing(above, &site.name) == standing(site, &site.name)
    };
    let begun = std::time::Instant::now();
    while !is_same() {
        assert!(
            begun.elapsed() < super::harness::PATIENCE,
            "{} and {} do not come to say the same: {:#?}\nabove: {:#?}\nbelow: {:#?}\nuplink: {}",
            above.name,
            site.name,
            above.site(&site.name),
            standing(above, &site.name),
            standing(site, &site.name),
            site.get("/uplink/state").map(|reply| reply.body).unwrap_or_default(),
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// By epoch and number, what the changes of an owner say; none of them twice.
pub(crate) fn numbered(changes: &[Value]) -> BTreeMap<(u64, u64), Value> {
    let mut all = BTreeMap::new();
    for change in changes {
        let number = |field: &str| change[field].as_u64().unwrap_or_else(|| panic!("no {field} in {change}"));
        let alarm = &change["alarm"];
        let said = json!([
            change["at"],
            change["kind"],
            change["actor"],
            alarm["id"],
            alarm["severity"],
            alarm["raise_seq"],
            alarm["raised_at"]
        ]);
        let before = all.insert((number("epoch"), number("seq")), said);
        assert!(before.is_none(), "twice in history: {change}");
    }
    all
}

/// Waits until the history above has all of the site's own, and compares: each change once, with its time and number.
pub(crate) fn wait_whole_history(above: &Place, site: &Place) {
    let own = numbered(&site.changes_of(&site.name));
    wait_until("all history has come", || numbered(&above.changes_of(&site.name)).len() >= own.len());
    let there = numbered(&above.changes_of(&site.name));
    let differs: Vec<_> = own.iter().filter(|(number, said)| there.get(number) != Some(*said)).collect();
    assert!(differs.is_empty(), "{differs:#?}\nis not there so: {there:#?}");
}

/// What a hook was told of alarms on `resource`: how, and in which episode.
pub(crate) fn told_of(hook: &Hook, resource: &str) -> Vec<(String, u64)> {
    let told = hook.told();
    // A number that comes again means the same: whoever was killed does not know that it was confirmed.
    let mut seen = std::collections::BTreeSet::new();
    let first = told.iter().filter(|one| seen.insert((one["epoch"].as_u64(), one["delivery_seq"].as_u64())));
    first
        .filter(|one| one["what"] == "alarm" && one["alarm"]["resource"] == resource)
        .map(|one| {
            let episode = one["alarm"]["raise_seq"].as_u64().expect("is a number");
            (one["how"].as_str().expect("is a word").to_owned(), episode)
        })
        .collect()
}

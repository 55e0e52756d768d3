//! What of the links is an alarm, played over time.

use super::*;
use crate::collect::Pattern;

const DOWN: &str = "link.down";
const DEGRADED: &str = "link.degraded";
const FLAPPING: &str = "link.flapping";

/// Links over time, looked at as the framework does: what was found stands raised at the next look.
struct Play {
    config: LinkConfig,
    known: Known,
    told: Told,
    missing: HashMap<String, Duration>,
    look: Look,
}

impl Play {
    fn new(config: LinkConfig) -> Self {
        let known = Known::test(Table::new(7, 100));
        Self { config, known, told: Told::default(), missing: HashMap::new(), look: Look::default() }
    }

    fn watching(include: &[&str], exclude: &[&str]) -> Self {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text).expect("is one")).collect();
        Self::new(LinkConfig { include: patterns(include), exclude: patterns(exclude), ..LinkConfig::default() })
    }

    fn is(&mut self, at_ms: u64, link: Link) -> &mut Self {
        self.known.table.told(Duration::from_millis(at_ms), link);
        self
    }

    /// What is found: the end of the resource, the type, the severity.
    fn found(&mut self, at_ms: u64) -> Vec<(String, &'static str, Severity)> {
        let host = Host::new("h").expect("is one");
        let now = Duration::from_millis(at_ms);
        let surroundings = Surroundings { config: &self.config, host: &host, now, told: &self.told };
        self.look = Judge::new(surroundings, &mut self.missing).judge(&self.known);
        self.told.0.retain(|subject, _| self.look.unseen.contains(&subject.resource));
        let findings = &self.look.findings;
        self.told.0.extend(findings.iter().map(|finding| (finding.subject.clone(), finding.severity)));
        let mut found: Vec<_> = findings
            .iter()
            .map(|finding| {
                let types = [DOWN, DEGRADED, FLAPPING];
                let kind = types.into_iter().find(|name| finding.subject.alarm_type.to_string() == *name).expect("is ours");
                let resource = finding.subject.resource.to_string();
                (resource.trim_start_matches("host=h.port=").to_owned(), kind, finding.severity)
            })
            .collect();
        found.sort();
        found
    }

    fn reading(&self, name: &str) -> &str {
        let what = format!("host=h.port={name}");
        &self.look.readings.iter().find(|reading| reading.what == what).expect("was looked at").value
    }
}

fn port(name: &str, state: State) -> Link {
    let index = name.bytes().map(u32::from).sum();
    Link::test(index, name, None, state)
}

fn down(name: &str) -> (String, &'static str, Severity) {
    (name.to_owned(), DOWN, Severity::Major)
}

#[test]
fn a_port_is_an_alarm_at_once_and_over_when_it_was_up_for_its_time() {
    let mut play = Play::new(LinkConfig::default());
    assert_eq!(play.is(0, port("a", State::Up)).found(0), []);
    assert_eq!(play.is(1000, port("a", State::Down)).found(1000), [down("a")]);
    assert_eq!(play.look.findings[0].text.to_string(), "a is down: no carrier.");
    assert_eq!(play.is(2000, port("a", State::Up)).found(3000), [down("a")]);
    assert_eq!(play.look.again_in, Some(Duration::from_secs(4)));
    assert_eq!(play.found(6999), [down("a")]);
    assert_eq!(play.found(7000), []);
}

#[test]
fn a_break_between_two_looks_begins_the_time_anew_and_raises_nothing() {
    let mut play = Play::new(LinkConfig::default());
    play.is(0, port("a", State::Up)).is(10, port("a", State::Down)).is(11, port("a", State::Up));
    assert_eq!(play.found(12), []);
    assert_eq!(play.reading("a"), "up; went down 1× within 300 s");
    assert_eq!(play.is(1000, port("a", State::Down)).found(1000), [down("a")]);
    play.is(2000, port("a", State::Up)).is(6000, port("a", State::Down)).is(6001, port("a", State::Up));
    assert_eq!(play.found(7001), [down("a")]);
    assert_eq!(play.found(11_001), []);
}

#[test]
fn an_alarm_may_have_to_wait() {
    let mut play = Play::new(LinkConfig { raise_after: Duration::from_secs(2), ..LinkConfig::default() });
    assert_eq!(play.is(0, port("a", State::Up)).is(1000, port("a", State::Down)).found(1500), []);
    assert_eq!(play.look.again_in, Some(Duration::from_millis(1500)));
    assert_eq!(play.found(3000), [down("a")]);
}

#[test]
fn who_takes_a_link_down_on_purpose_hears_nothing_of_it() {
    let mut play = Play::new(LinkConfig::default());
    assert_eq!(play.is(0, port("a", State::Down)).found(0), [down("a")]);
    assert_eq!(play.is(1000, port("a", State::Off)).found(1000), []);
    assert_eq!(play.reading("a"), "administratively down");
}

#[test]
fn where_nothing_is_plugged_in_nothing_is_down_unless_it_was_asked_for_or_seen_up() {
    let empty = |name, state| Link { carrier_ups: Some(0), ..port(name, state) };
    let mut play = Play::watching(&["b", "c*"], &[]);
    play.is(0, empty("a", State::Down)).is(0, empty("b", State::Down)).is(0, empty("c1", State::Down));
    assert_eq!(play.found(0), [down("b"), down("c1")]);
    assert_eq!(play.reading("a"), "down, it never had a carrier");
    assert_eq!(play.is(1, empty("a", State::Up)).is(2, empty("a", State::Down)).found(2).first(), Some(&down("a")));
}

#[test]
fn hardware_bonds_and_vlans_are_watched_and_the_rest_if_it_is_asked_for() {
    let kinds = ["veth", "bridge", "dummy", "tun", "wireguard", "vlan", "bond", "team"];
    let mut play = Play::new(LinkConfig::default());
    for (index, kind) in (1..).zip(kinds) {
        play.is(0, Link::test(index, kind, Some(kind), State::Down));
    }
    let critical = |name: &str| (name.to_owned(), DOWN, Severity::Critical);
    assert_eq!(play.found(0), [critical("bond"), critical("team"), down("vlan")]);
    let mut play = Play::watching(&["veth", "d*"], &["*"]);
    play.is(0, Link::test(1, "veth", Some("veth"), State::Down)).is(0, port("eth0", State::Down));
    play.is(0, Link::test(3, "dummy", Some("dummy"), State::Down));
    assert_eq!(play.found(0), [down("veth")], "a whole name goes before what is excluded, a pattern does not");
    let mut play = Play::new(LinkConfig::default());
    play.is(0, Link::test(1, "veth", Some("veth"), State::Down));
    play.found(0);
    assert!(play.look.not_applicable.is_some());
}

#[test]
fn what_must_be_there_and_is_not_is_an_alarm() {
    let mut play = Play::watching(&["a", "b*"], &[]);
    assert_eq!(play.found(0), [("a".to_owned(), DOWN, Severity::Critical)]);
    assert_eq!(play.look.findings[0].text.to_string(), "a is missing; it is watched by its name.");
    assert_eq!(play.is(1000, port("a", State::Down)).found(1000), [down("a")]);
    assert_eq!(play.is(2000, port("a", State::Up)).found(7000), []);
    play.known.table.gone(port("a", State::Up).index);
    play.known.is_sure = false;
    assert_eq!(play.found(8000), [], "it may only not have been named yet");
    play.known.is_sure = true;
    assert_eq!(play.found(8000), [("a".to_owned(), DOWN, Severity::Critical)]);
}

#[test]
fn what_is_gone_is_over_unless_it_may_only_not_have_been_named() {
    let mut play = Play::new(LinkConfig::default());
    assert_eq!(play.is(0, port("a", State::Down)).found(0), [down("a")]);
    play.known.table.gone(port("a", State::Up).index);
    play.known.is_sure = false;
    let fault = Subject::new(Host::new("h").expect("is one").part("collector", "link"), "klaxon.collector-failed");
    play.told.0.insert(fault, Severity::Major);
    assert_eq!(play.found(1), []);
    let unseen: Vec<_> = play.look.unseen.iter().map(Resource::as_str).collect();
    assert_eq!(unseen, ["host=h.port=a"], "it stays as it is, and that the collector had failed is over");
    play.known.is_sure = true;
    assert_eq!(play.found(2), []);
    assert!(play.look.unseen.is_empty() && play.told.0.is_empty());
}

#[test]
fn a_link_is_known_by_its_name_whatever_its_index() {
    let mut play = Play::new(LinkConfig::default());
    assert_eq!(play.is(0, port("a", State::Down)).found(0), [down("a")]);
    assert_eq!(play.is(1, Link { name: "b".to_owned(), ..port("a", State::Down) }).found(1), [down("b")]);
    play.known.table.gone(port("a", State::Up).index);
    assert_eq!(play.is(2, Link { index: 900, ..port("b", State::Down) }).found(2), [down("b")]);
}

#[test]
fn a_bond_without_a_member_is_degraded_and_without_all_down() {
    let bond = |state| Link::test(1000, "bond0", Some("bond"), state);
    let leg = |name, state| Link { master: Some(1000), carrier_ups: Some(0), ..port(name, state) };
    let degraded = ("bond0".to_owned(), DEGRADED, Severity::Major);
    let critical = ("bond0".to_owned(), DOWN, Severity::Critical);
    let mut play = Play::new(LinkConfig::default());
    play.is(0, bond(State::Up)).is(0, leg("a", State::Up)).is(0, leg("b", State::Down));
    assert_eq!(play.found(0), [down("b"), degraded.clone()], "a member was meant to have a carrier, if it never had one");
    let text = "bond0 works without b; 1 of 2 members are down.";
    assert!(play.look.findings.iter().any(|finding| finding.text.to_string() == text), "{:?}", play.look.findings);
    assert_eq!(play.reading("bond0"), "up; 1 of 2 members up");
    play.is(1000, leg("a", State::Down)).is(1000, bond(State::Down));
    assert_eq!(play.found(1000), [down("a"), down("b"), critical.clone()]);
    play.is(2000, leg("a", State::Up)).is(2000, bond(State::Up));
    assert_eq!(play.found(2000), [down("a"), down("b"), degraded.clone(), critical]);
    assert_eq!(play.is(10_000, leg("b", State::Up)).found(12_000), [down("b"), degraded]);
    assert_eq!(play.found(15_000), []);
    assert_eq!(play.is(16_000, leg("b", State::Off)).found(16_000), [], "somebody wanted it so");
}

#[test]
fn a_vlan_is_its_ports_matter_until_it_does_not_follow() {
    let vlan = |state| Link { lower: Some(port("a", State::Up).index), ..Link::test(1000, "a.7", Some("vlan"), state) };
    let mut play = Play::new(LinkConfig::default());
    play.is(0, port("a", State::Up)).is(0, vlan(State::Up)).found(0);
    play.is(1000, port("a", State::Down)).is(1000, vlan(State::Down));
    assert_eq!(play.found(1000), [down("a")]);
    assert_eq!(play.reading("a.7"), "down, as is a; went down 1× within 300 s");
    assert_eq!(play.is(2000, port("a", State::Up)).found(2000), [down("a")]);
    assert_eq!(play.look.again_in, Some(Duration::from_secs(1)));
    assert_eq!(play.found(3000), [down("a"), down("a.7")]);
    play.is(3000, vlan(State::Up));
    assert_eq!(play.found(8000), []);
}

#[test]
fn a_link_that_flaps_is_one_alarm_and_its_being_down_is_held() {
    let mut play = Play::new(LinkConfig::default());
    let flapping = ("a".to_owned(), FLAPPING, Severity::Minor);
    play.is(0, port("a", State::Up));
    let mut seen = Vec::new();
    for turn in 1..=20 {
        seen.push(play.is(turn * 10_000, port("a", State::Down)).found(turn * 10_000).len());
        play.is(turn * 10_000 + 1000, port("a", State::Up)).found(turn * 10_000 + 1000);
        seen.push(play.found(turn * 10_000 + 9000).len());
    }
    assert_eq!(seen[..12], [1, 0].repeat(6), "6 times it is raised and cleared");
    assert!(seen[12..].iter().all(|found| *found == 2), "then both stand: {seen:?}");
    let text = "a goes down again and again: it did so more than 6 times within 300 s.";
    assert!(play.look.findings.iter().any(|finding| finding.text.as_str() == text), "{:?}", play.look.findings);
    assert_eq!(play.reading("a"), "up; went down more than 6× within 300 s");
    // Up since 201 s. 300 s / 6 = 50 s later it is not down any more; it flaps until of the last 7 downs 3 are left.
    assert_eq!(play.found(250_999), [down("a"), flapping.clone()]);
    assert_eq!(play.found(251_000), std::slice::from_ref(&flapping));
    assert_eq!(play.look.again_in, Some(Duration::from_secs(170 + 300 - 251)));
    assert_eq!(play.found(469_999), [flapping]);
    assert_eq!(play.found(470_000), []);
}

#[test]
fn flapping_that_another_process_told_of_lasts_until_it_can_be_known_to_be_over() {
    let mut play = Play::new(LinkConfig::default());
    let subject = Subject::new(Host::new("h").expect("is one").part("port", "a"), FLAPPING);
    play.told.0.insert(subject, Severity::Minor);
    assert_eq!(play.is(1000, port("a", State::Up)).found(1000), [("a".to_owned(), FLAPPING, Severity::Minor)]);
    assert_eq!(play.look.again_in, Some(Duration::from_secs(300)));
    assert_eq!(play.found(301_000), []);
}

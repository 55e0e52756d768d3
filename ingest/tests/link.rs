//! The collector `link` against real links, in network namespaces that the tests make.

mod netns;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use klaxon_ingest::collect::{Collector, Host, LinkConfig, Look, Pattern, Spec, Told};
use klaxon_schemas::severity::Severity;
use netns::{ip, ip_batch, is_inside, links, try_ip};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// One who looks as the framework does: when woken, and when a look said so.
struct Watch {
    collector: Box<dyn Collector>,
    told: Told,
    runtime: tokio::runtime::Runtime,
    again_at: Option<Instant>,
    look: Look,
}

impl Watch {
    fn new(config: LinkConfig) -> Self {
        let collector = Spec::Link(config).make(&Host::new("h").expect("is one"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("built");
        let mut watch = Self { collector, told: Told::default(), runtime, again_at: None, look: Look::default() };
        watch.look();
        watch
    }

    fn of(include: &[&str]) -> Self {
        Self::new(LinkConfig { clear_after: Duration::from_millis(300), ..including(include) })
    }

    fn look(&mut self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::new(now.tv_sec.try_into().expect("after boot"), now.tv_nsec.try_into().expect("below a second"));
        self.look = self.collector.look(now, &self.told).expect("looks");
        self.told = Told(self.look.findings.iter().map(|finding| (finding.subject.clone(), finding.severity)).collect());
        self.again_at = self.look.again_in.map(|wait| Instant::now() + wait);
    }

    /// Waits until it is woken, or a look is due; says whether it was woken before `until`.
    fn wait(&self, until: Instant) -> bool {
        let wakes = self.collector.wakes().expect("it wakes");
        let until = self.again_at.map_or(until, |again| again.min(until));
        self.runtime.block_on(async { tokio::time::timeout_at(until.into(), wakes.notified()).await.is_ok() })
    }

    /// `port type` of each finding.
    fn found(&self) -> BTreeSet<String> {
        let findings = self.look.findings.iter();
        findings
            .map(|finding| {
                let resource = finding.subject.resource.to_string();
                format!("{} {}", resource.trim_start_matches("host=h.port="), finding.subject.alarm_type)
            })
            .collect()
    }

    /// Looks when it ought to until this is found, and nothing else.
    fn until(&mut self, found: &[&str]) -> Duration {
        let begun = Instant::now();
        let wanted: BTreeSet<String> = found.iter().map(ToString::to_string).collect();
        while self.found() != wanted {
            assert!(begun.elapsed() < PATIENCE, "wanted {wanted:?}, found {:?}, read {:#?}", self.found(), self.look.readings);
            self.wait(begun + PATIENCE);
            self.look();
        }
        begun.elapsed()
    }

    fn reading(&self, port: &str) -> String {
        let what = if port.is_empty() { "host=h".to_owned() } else { format!("host=h.port={port}") };
        let reading = self.look.readings.iter().find(|reading| reading.what == what);
        reading.unwrap_or_else(|| panic!("{what} in {:?}", self.look.readings)).value.clone()
    }

    fn overruns(&self) -> u64 {
        let reading = self.reading("");
        let (_, count) = reading.rsplit_once(' ').expect("ends with a count");
        count.trim_end_matches('×').parse().expect("is a count")
    }
}

fn including(include: &[&str]) -> LinkConfig {
    let include = include.iter().map(|text| Pattern::new(text).expect("is one")).collect();
    LinkConfig { include, ..LinkConfig::default() }
}

/// A pair of ends, both up.
fn pair(one: &str, other: &str) {
    ip(&format!("link add name {one} type veth peer name {other}"));
    ip(&format!("link set dev {one} up"));
    ip(&format!("link set dev {other} up"));
}

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("is there").filter_map(Result::ok);
    tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "link")).count()
}

/// Processor time of the thread that follows, in ticks of 10 ms.
fn ticks() -> u64 {
    let mut tasks = std::fs::read_dir("/proc/self/task").expect("is there").filter_map(Result::ok);
    let stat = tasks.find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        stat.contains("(link)").then_some(stat)
    });
    let stat = stat.expect("the thread is there");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("has fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("number") + fields[12].parse::<u64>().expect("number")
}

#[test]
fn a_link_that_goes_down_is_found_when_the_kernel_says_so_and_is_over_when_it_stayed_up() {
    if !is_inside("a_link_that_goes_down_is_found_when_the_kernel_says_so_and_is_over_when_it_stayed_up") {
        return;
    }
    pair("a", "b");
    let mut watch = Watch::of(&["a"]);
    watch.until(&[]);
    assert_eq!(watch.reading("a"), "up");
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let begun = Instant::now();
        ip("link set dev b down");
        let commanded = begun.elapsed();
        watch.until(&["a link.down"]);
        println!("down: found {:?} after it was ordered, ip took {commanded:?}", begun.elapsed());
        slowest = slowest.max(begun.elapsed());
        assert_eq!(watch.look.findings[0].severity, Severity::Major);
        let begun = Instant::now();
        ip("link set dev b up");
        watch.until(&[]);
        assert!(begun.elapsed() >= Duration::from_millis(300), "it had to be up for its time");
    }
    assert!(slowest < Duration::from_secs(2), "it was not told of: {slowest:?}");
    assert!(watch.reading("a").starts_with("up; went down 5×"), "{}", watch.reading("a"));
}

#[test]
fn what_an_operator_takes_down_is_no_alarm_and_what_is_deleted_is_over_or_missing() {
    if !is_inside("what_an_operator_takes_down_is_no_alarm_and_what_is_deleted_is_over_or_missing") {
        return;
    }
    pair("a", "b");
    pair("named", "far");
    let mut watch = Watch::of(&["a*", "named"]);
    ip("link set dev b down");
    ip("link set dev far down");
    watch.until(&["a link.down", "named link.down"]);
    ip("link set dev a down");
    watch.until(&["named link.down"]);
    assert_eq!(watch.reading("a"), "administratively down");
    ip("link set dev a up");
    watch.until(&["a link.down", "named link.down"]);
    ip("link set dev a down");
    ip("link set dev a name a2");
    ip("link set dev a2 up");
    watch.until(&["a2 link.down", "named link.down"]);
    ip("link delete dev a2");
    watch.until(&["named link.down"]);
    ip("link delete dev named");
    watch.until(&["named link.down"]);
    while watch.look.findings[0].severity != Severity::Critical {
        assert!(watch.wait(Instant::now() + PATIENCE), "it is missing");
        watch.look();
    }
    assert_eq!(watch.reading("named"), "missing");
    pair("named", "far");
    watch.until(&[]);
}

#[test]
fn breaks_that_are_over_before_anybody_looks_are_in_the_kernels_count() {
    if !is_inside("breaks_that_are_over_before_anybody_looks_are_in_the_kernels_count") {
        return;
    }
    pair("a", "b");
    let mut watch = Watch::of(&["a"]);
    watch.until(&[]);
    let flap = |times| ip_batch(&["link set dev b down", "link set dev b up"].repeat(times));
    flap(6);
    let begun = Instant::now();
    while !watch.reading("a").starts_with("up; went down 6×") {
        assert!(begun.elapsed() < PATIENCE, "{}", watch.reading("a"));
        watch.wait(Instant::now() + Duration::from_secs(1));
        watch.look();
    }
    assert!(!watch.found().contains("a link.flapping"), "as often as it may");
    flap(1);
    while !watch.found().contains("a link.flapping") {
        assert!(begun.elapsed() < PATIENCE, "{}", watch.reading("a"));
        watch.wait(Instant::now() + Duration::from_secs(1));
        watch.look();
    }
    ip("link set dev b down");
    watch.until(&["a link.down", "a link.flapping"]);
    ip("link set dev a down");
    watch.until(&[]);
}

#[test]
fn a_vlan_is_watched_by_its_kind_and_follows_its_port() {
    if !is_inside("a_vlan_is_watched_by_its_kind_and_follows_its_port") {
        return;
    }
    pair("a", "b");
    if !try_ip("link add link a name a.7 type vlan id 7") {
        println!("skipped: this kernel has no vlans");
        return;
    }
    ip("link set dev a.7 up");
    let mut watch = Watch::of(&["a"]);
    while watch.reading("a.7") != "up" {
        assert!(watch.wait(Instant::now() + PATIENCE), "the vlan comes up");
        watch.look();
    }
    ip("link set dev b down");
    watch.until(&["a link.down"]);
    while !watch.reading("a.7").starts_with("down, as is a") {
        assert!(watch.wait(Instant::now() + PATIENCE), "the vlan goes down");
        watch.look();
        assert_eq!(watch.found().len(), 1, "one fault, one alarm");
    }
    ip("link set dev b up");
    watch.until(&[]);
    drop(watch);
    let mut alone = Watch::of(&[]);
    ip("link set dev b down");
    alone.until(&["a.7 link.down"]);
}

#[test]
fn a_bond_is_degraded_without_a_member_and_down_without_all() {
    if !is_inside("a_bond_is_degraded_without_a_member_and_down_without_all") {
        return;
    }
    if !try_ip("link add bond0 type bond mode active-backup miimon 50") {
        println!("skipped: this kernel has no bonds");
        return;
    }
    for (leg, far) in [("leg1", "far1"), ("leg2", "far2")] {
        ip(&format!("link add name {leg} type veth peer name {far}"));
        ip(&format!("link set dev {leg} master bond0"));
        ip(&format!("link set dev {far} up"));
    }
    ip("link set dev bond0 up");
    let mut watch = Watch::of(&[]);
    watch.until(&[]);
    ip("link set dev far1 down");
    watch.until(&["bond0 link.degraded"]);
    ip("link set dev far2 down");
    watch.until(&["bond0 link.down"]);
    assert_eq!(watch.look.findings[0].severity, Severity::Critical);
    ip("link set dev far1 up");
    ip("link set dev far2 up");
    watch.until(&[]);
}

/// 500 links, up and down all the time; whether what is known at the end is what is.
fn storm(receive_bytes: usize) -> u64 {
    const PAIRS: usize = 250;
    let add = |pair| [format!("link add name a{pair} up type veth peer name b{pair}"), format!("link set dev b{pair} up")];
    ip_batch(&(0..PAIRS).flat_map(add).collect::<Vec<_>>());
    let config = LinkConfig { clear_after: Duration::ZERO, flaps: 1000, receive_bytes, ..including(&["*"]) };
    let mut watch = Watch::new(config);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            for round in 0..4 {
                let set = |pair: usize| {
                    format!("link set dev b{pair} {}", if (pair + round).is_multiple_of(3) { "up" } else { "down" })
                };
                ip_batch(&(0..PAIRS).map(set).collect::<Vec<_>>());
            }
            let gone: Vec<_> = (0..PAIRS).step_by(5).map(|pair| format!("link delete dev a{pair}")).collect();
            ip_batch(&gone);
        });
        while !storm.is_finished() {
            watch.wait(Instant::now() + Duration::from_millis(100));
            watch.look();
        }
        storm.join().expect("blows over");
    });
    let down = |link: &serde_json::Value| {
        let flags: Vec<&str> = link["flags"].as_array().expect("is there").iter().filter_map(|flag| flag.as_str()).collect();
        flags.contains(&"UP") && !(flags.contains(&"LOWER_UP") && link["operstate"] == "UP")
    };
    loop {
        let is: BTreeSet<String> = links()
            .iter()
            .filter(|link| down(link))
            .map(|link| format!("{} link.down", link["ifname"].as_str().expect("named")))
            .collect();
        let is: BTreeSet<String> = is.into_iter().filter(|name| name != "lo link.down").collect();
        if watch.found() == is {
            assert!(is.len() > 50, "some are down: {is:?}");
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE * 3,
            "found beyond what is {:?}, is beyond what was found {:?}, {}",
            watch.found().difference(&is),
            is.difference(&watch.found()),
            watch.reading("")
        );
        watch.wait(Instant::now() + Duration::from_secs(1));
        watch.look();
    }
    watch.overruns()
}

#[test]
fn a_storm_of_changes_leaves_behind_what_is() {
    if !is_inside("a_storm_of_changes_leaves_behind_what_is") {
        return;
    }
    storm(LinkConfig::default().receive_bytes);
}

#[test]
fn messages_that_are_lost_are_made_up_for() {
    if !is_inside("messages_that_are_lost_are_made_up_for") {
        return;
    }
    assert!(storm(1) > 0, "some were lost");
}

#[test]
fn the_thread_sleeps_while_nothing_changes_and_ends_with_the_collector() {
    if !is_inside("the_thread_sleeps_while_nothing_changes_and_ends_with_the_collector") {
        return;
    }
    pair("a", "b");
    let mut watch = Watch::of(&["a"]);
    watch.until(&[]);
    assert_eq!(threads(), 1);
    // What the setting up of the links still tells.
    while watch.wait(Instant::now() + Duration::from_secs(2)) {
        watch.look();
    }
    let before = ticks();
    assert!(!watch.wait(Instant::now() + Duration::from_secs(3)), "nothing wakes it");
    assert_eq!(ticks() - before, 0, "it takes no processor time");
    drop(watch);
    assert_eq!(threads(), 0);
}

//! Random schedules of real nodes: a centre and two sites that are killed, cut off, torn in the middle of messages, whose disks fill
//! up and whose clocks are set. The oracle is what each reporter was told is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::harness::load::{Reporter, SEVERITIES};
use super::harness::{Chance, Setup, agent, scratch, wait_until};
use super::world::{Below, Place, wait_same};
use super::{harness::hook::Hook, wan::Wan, wan::Weather, world};

const STEPS: usize = 36;

/// What a run hit.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    pub(crate) reports: u64,
    pub(crate) kills: u64,
    pub(crate) cuts: u64,
    pub(crate) torn: usize,
    pub(crate) full: u64,
    pub(crate) clocks: u64,
    pub(crate) past: u64,
    pub(crate) told: u64,
}

impl Hits {
    pub(crate) fn add(&mut self, other: &Self) {
        self.reports += other.reports;
        self.kills += other.kills;
        self.cuts += other.cuts;
        self.torn += other.torn;
        self.full += other.full;
        self.clocks += other.clocks;
        self.past += other.past;
        self.told += other.told;
    }
}

/// What the shim is told about one node.
struct Shim {
    clock: PathBuf,
    full: PathBuf,
}

impl Shim {
    fn load(setup: Setup, dir: &std::path::Path, name: &str) -> (Setup, Self) {
        let shim = Self { clock: dir.join(format!("{name}.clock")), full: dir.join(format!("{name}.full")) };
        write(&shim.clock, "0");
        let setup = setup
            .shim()
            .env("KLAXON_SHIM_CLOCK", &shim.clock.to_string_lossy())
            .env("KLAXON_SHIM_FULL", &shim.full.to_string_lossy());
        (setup, shim)
    }
}

/// So that who reads sees all of it or what was there before.
fn write(file: &std::path::Path, text: &str) {
    std::fs::write(file.with_extension("new"), text).expect("can be written");
    std::fs::rename(file.with_extension("new"), file).expect("can be renamed");
}

struct Site {
    below: Below,
    reporter: Reporter,
    shim: Shim,
}

/// One schedule.
pub(crate) fn run(seed: u64) -> Hits {
    let (dir, hook, mut hits) = (scratch("lives-"), Hook::start(), Hits::default());
    let mut chance = Chance::new(seed);
    let receiver = format!("[receivers.noc]\nfold_after = \"0s\"\n[receivers.noc.webhook]\nurl = \"{}\"\n", hook.url());
    let setup = Setup::new(&dir.path().join("centre")).config(&format!("{}{receiver}", world::QUICK));
    let (setup, centre_shim) = Shim::load(setup, dir.path(), "centre");
    let mut centre = Place::start_as("centre", "centre", setup);
    let mut sites: Vec<Site> = ["alpha", "beta"]
        .into_iter()
        .zip(0..)
        .map(|(name, number)| {
            let wan = Wan::to(centre.address());
            let token = world::token_file(dir.path(), name, &centre.enrol(name, "site"));
            let setup = Setup::new(&dir.path().join(name)).config(&world::uplink(&wan, "site", &token));
            let (setup, shim) = Shim::load(setup, dir.path(), name);
            let place = Place::start_as(name, name, setup);
            Site { below: Below { place, wan }, reporter: Reporter::new(name, 12, seed + number), shim }
        })
        .collect();
    let client = agent();
    for _ in 0..STEPS {
        let at = chance.below(2) as usize;
        let site = &mut sites[at];
        match chance.below(20) {
            0..9 => {
                let count = 1 + chance.below(60);
                hits.reports += count;
                // What is not acknowledged is sent again, by and by.
                site.reporter.send(&client, &site.below.base, count);
            }
            9..11 => {
                site.below.wan.set(Weather::Cut);
                hits.cuts += 1;
            }
            11..13 => site.below.wan.set(Weather::Fair),
            13..15 => site.below.wan.cut_after(1 + chance.below(3000)),
            15 => {
                site.below.place.kill();
                site.below.place.start_again();
                hits.kills += 1;
            }
            16 => {
                centre.kill();
                centre.start_again();
                sites.iter().for_each(|site| site.below.lead_to(&centre));
                hits.kills += 1;
            }
            17 => {
                write(if chance.below(2) == 0 { &site.shim.full } else { &centre_shim.full }, "1 3");
                hits.full += 1;
            }
            18 => {
                let seconds = chance.below(2 * 72 * 3600) as i64 - 72 * 3600;
                write(if chance.below(2) == 0 { &site.shim.clock } else { &centre_shim.clock }, &seconds.to_string());
                hits.clocks += 1;
            }
            _ => std::thread::sleep(Duration::from_millis(chance.below(300))),
        }
    }
    for site in &mut sites {
        site.below.wan.no_cut();
        site.below.wan.set(Weather::Fair);
        site.reporter.settle(&site.below.base);
        hits.torn += site.below.wan.torn();
    }
    for site in &sites {
        wait_same(&centre, &site.below);
        let last = site.below.changes_of(&site.below.name).len();
        wait_until("its history is there", || centre.changes_of(&site.below.name).len() >= last);
        compare(&centre, site, &mut hits);
    }
    // Whoever is told believes that what stands stands, and nothing else.
    let stands = || -> BTreeMap<String, Value> {
        let alarms =
            centre.alarms().into_iter().filter(|alarm| alarm["cleared"] == false && alarm["alarm_type"] == "test.load");
        alarms.map(|alarm| (alarm["id"].to_string(), alarm["severity"].clone())).collect()
    };
    wait_until("all is told", || believed(&hook.told()) == stands());
    check_told(&hook.told(), &centre, &mut hits);
    hits
}

/// What the centre says of a site against what its reporter was told: what stands, how often each was raised and cleared.
fn compare(centre: &Place, site: &Site, hits: &mut Hits) {
    let name = site.below.name.as_str();
    let alarms: BTreeMap<String, Value> = centre
        .alarms()
        .into_iter()
        .filter(|alarm| alarm["owner"] == name)
        .map(|alarm| (alarm["resource"].as_str().expect("is text").to_owned(), alarm))
        .collect();
    let history = centre.changes_of(name);
    world::numbered(&history);
    let mut steps: BTreeMap<(String, String), u64> = BTreeMap::new();
    for change in &history {
        hits.past += u64::from(change["past"] == true);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        *steps.entry((word(&change["alarm"]["resource"]), word(&change["kind"]))).or_default() += 1;
    }
    for (key, known) in (0..).zip(&site.reporter.acknowledged) {
        let resource = site.reporter.resource(key);
        let alarm = alarms.get(&resource).filter(|alarm| alarm["cleared"] == false);
        let severity = known.severity.map(|severity| SEVERITIES[severity]);
        assert_eq!(alarm.and_then(|alarm| alarm["severity"].as_str()), severity, "{name}: {resource}: {alarm:?}");
        if let Some(alarm) = alarm {
            assert_eq!(alarm["raise_seq"], known.raises, "{alarm}");
        }
        let seen = |kind: &str| steps.get(&(resource.clone(), kind.to_owned())).copied().unwrap_or(0);
        let counted = (seen("raised"), seen("cleared"), seen("severity-changed"));
        assert_eq!(counted, (known.raises, known.clears, known.changes), "{name}: {resource} in the centre's history");
    }
}

/// What stands as far as was told.
fn believed(told: &[Value]) -> BTreeMap<String, Value> {
    let mut stands = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for one in told.iter().filter(|one| one["what"] == "alarm" && one["alarm"]["alarm_type"] == "test.load") {
        if !seen.insert((one["epoch"].as_u64(), one["delivery_seq"].as_u64())) {
            continue;
        }
        let id = one["alarm"]["id"].to_string();
        match one["how"].as_str().expect("is a word") {
            "raised" | "changed" => drop(stands.insert(id, one["alarm"]["severity"].clone())),
            _ => drop(stands.remove(&id)),
        }
    }
    stands
}

/// Of no episode is told twice that it began, and nothing that is past is told.
fn check_told(told: &[Value], centre: &Place, hits: &mut Hits) {
    let past: BTreeSet<String> = centre
        .history()
        .iter()
        .filter(|change| change["past"] == true)
        .map(|change| format!("{} {} {}", change["site"], change["epoch"], change["seq"]))
        .collect();
    let (mut numbers, mut begun) = (BTreeSet::new(), BTreeSet::new());
    for one in told.iter().filter(|one| one["what"] == "alarm") {
        if !numbers.insert((one["epoch"].as_u64(), one["delivery_seq"].as_u64())) {
            continue;
        }
        hits.told += 1;
        let change = &one["change"];
        let number = format!("{} {} {}", change["site"], change["epoch"], change["seq"]);
        assert!(!past.contains(&number), "what is past is told: {one}");
        if one["how"] == "raised" {
            let episode = (one["alarm"]["id"].to_string(), one["alarm"]["raise_seq"].as_u64());
            assert!(begun.insert(episode), "told twice as raised: {one}");
        }
    }
}

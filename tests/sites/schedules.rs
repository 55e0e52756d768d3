//! Random schedules in one process: what happens at the sites, and what happens to lines, nodes and disks, in any order. In the end
//! the centre knows all of it, once. Who says so is neither side: it is a ledger of what each site acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use klaxon_api::notify::{How, What};
use klaxon_schemas::action::{Action, AlarmVerb, Target, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::child::{ChildKind, ChildStep};
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::names::{AlarmType, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_store::publish::{Answer, Item, PublishError};
use klaxon_store::{ReadError, backup};

use super::again::{Began, Restore, began, believed, told_of};
use super::facts::{facts, facts_of, listed, stands};
use super::hits::Hits;
use super::inside::{Design, Node, Told};
use super::line::{Line, Manners};
use super::mishaps::{Folder, Mishaps, scratch};
use super::mix;

/// How long it may take until all is quiet.
const PATIENCE: Duration = Duration::from_secs(30);
/// The alarm type of all that the schedule reports.
pub(crate) const TYPE: &str = "test.schedule";
const KEYS: u64 = 8;
const STEPS: usize = 70;
const EARLY: usize = STEPS / 4;
const MIDDLE: usize = STEPS / 2;
const LATE: usize = 3 * STEPS / 4;
/// Of ten seeds the one in which the centre is lost for sure.
const LOSES_CENTRE: u64 = 4;
const CENTRE: usize = usize::MAX;
/// What is kept of history, where a site is to lose some.
const LITTLE: u64 = 128 * 1024;
/// How often keepers look, as in a node.
const KEEP_EVERY: Duration = Duration::from_secs(1);
const CREDENTIAL: &str = "uplink.json";

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % sides
    }
}

/// A transition that a site acknowledged: of which resource, what, and when its reporter says it was.
type Step = (String, ChangeKind, Timestamp);

/// One alarm as the ledger has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Episode {
    pub(crate) severity: Severity,
    pub(crate) began: Timestamp,
    /// In which cut it began, if in one.
    cut: Option<u64>,
    /// Whether its severity ever changed.
    pub(crate) is_plain: bool,
}

/// What a site acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) stands: BTreeMap<String, Episode>,
    /// Each with the wall clock before and after it was acknowledged.
    pub(crate) sure: BTreeMap<Step, (Timestamp, Timestamp)>,
    /// Acknowledged by a store that is no more, behind what its backup holds: it may be known above, or not.
    maybe: BTreeSet<Step>,
    /// Episodes that were over before anybody above could know of them.
    pub(crate) past: BTreeSet<(String, Timestamp)>,
}

/// A site, the line above it, and its ledger.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    kind: ChildKind,
    dir: PathBuf,
    token: String,
    line: Line,
    node: Option<Node>,
    ledger: Ledger,
    backup: Option<(PathBuf, Ledger)>,
    /// Below which other site it is, if not below the centre.
    above: Option<usize>,
    history_max_bytes: u64,
    restored: bool,
    mishaps: Mishaps,
}

impl Place {
    fn open(&mut self) {
        let above = Some((self.line.address(), self.token.as_str()));
        let (dir, site, kind, history_max_bytes) = (self.dir.as_path(), self.name, self.kind, self.history_max_bytes);
        // A node that finds its disk full does not start.
        self.mishaps.make_room();
        let threads = self.mishaps.threads();
        // History that is to give way gives way at once.
        let keep_every = if history_max_bytes == LITTLE { Duration::from_millis(10) } else { KEEP_EVERY };
        self.node = Some(Node::open(&Design { dir, site, kind, above, told: None, history_max_bytes, keep_every, threads }));
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("is open")
    }
}

pub(crate) struct World {
    dir: Folder,
    dice: Dice,
    centre: Option<Node>,
    centre_backup: Option<(PathBuf, BTreeSet<Began>)>,
    pub(crate) told: Told,
    mishaps: Mishaps,
    /// What is known of restores of the centre, the oldest first.
    pub(crate) restores: Vec<Restore>,
    pub(crate) sites: Vec<Place>,
    /// What time it is for reporters: it leaps where hours are to have passed.
    claimed: Timestamp,
    /// How often a line was cut.
    cuts: u64,
    folders: u64,
    actions: u64,
    pub(crate) hits: Hits,
}

fn open_centre(dir: &Path, told: &Told, mishaps: &Mishaps) -> Node {
    mishaps.make_room();
    let design = Design {
        dir,
        site: "centre",
        kind: ChildKind::Site,
        above: None,
        told: Some(told),
        history_max_bytes: 1 << 30,
        keep_every: KEEP_EVERY,
        threads: mishaps.threads(),
    };
    Node::open(&design)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let dir = scratch();
        let told = Told::default();
        let mishaps = Mishaps::new(&dir.path().join("centre"));
        let centre = open_centre(&dir.path().join("centre"), &told, &mishaps);
        let mut world = Self {
            dir,
            dice: Dice(seed),
            centre: Some(centre),
            centre_backup: None,
            told,
            restores: Vec::new(),
            sites: Vec::new(),
            claimed: mishaps.now().saturating_add_micros(-300 * 3_600_000_000),
            cuts: 0,
            folders: 0,
            actions: 0,
            mishaps,
            hits: Hits::default(),
        };
        let is_chain = seed.is_multiple_of(3);
        let keeps_little = seed % 5 == 1;
        world.add("alpha", if is_chain { ChildKind::Region } else { ChildKind::Site }, None, keeps_little);
        world.add("beta", ChildKind::Site, is_chain.then_some(0), false);
        world.until("all have joined", |world| {
            world.sites.iter().all(|site| world.above(site).child(site.name).is_some_and(|child| child.reached.is_some()))
        });
        world
    }

    fn add(&mut self, name: &'static str, kind: ChildKind, above: Option<usize>, keeps_little: bool) {
        let node = above.map_or_else(|| self.centre.as_ref().expect("is open"), |above| self.sites[above].node());
        let token = node.enrol(name, kind);
        let line = Line::to(node.address, self.dice.roll(u64::MAX));
        let mut place = Place {
            name,
            kind,
            dir: self.dir.path().join(name),
            token,
            line,
            node: None,
            ledger: Ledger::default(),
            backup: None,
            above,
            history_max_bytes: if keeps_little { LITTLE } else { 1 << 30 },
            restored: false,
            mishaps: Mishaps::new(&self.dir.path().join(name)),
        };
        place.open();
        self.sites.push(place);
    }

    pub(crate) fn count(&self) -> usize {
        self.sites.len()
    }

    pub(crate) fn ledger(&self, at: usize) -> (&str, &Ledger) {
        (self.sites[at].name, &self.sites[at].ledger)
    }

    pub(crate) fn was_restored(&self, name: &str) -> bool {
        self.sites.iter().any(|site| site.name == name && site.restored)
    }

    /// Whether it was restored, or the region that it is below: what that brought back is told again.
    pub(crate) fn is_taken_back(&self, name: &str) -> bool {
        self.sites
            .iter()
            .any(|site| site.name == name && (site.restored || site.above.is_some_and(|above| self.sites[above].restored)))
    }

    /// The region that `at` is below, if it is below one.
    pub(crate) fn region(&self, at: usize) -> Option<&Node> {
        self.sites[at].above.map(|above| self.sites[above].node())
    }

    pub(crate) fn centre(&self) -> &Node {
        self.centre.as_ref().expect("is open")
    }

    fn above(&self, site: &Place) -> &Node {
        site.above.map_or_else(|| self.centre(), |above| self.sites[above].node())
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(2);
        while !holds(self) {
            if Instant::now() > until {
                for site in &self.sites {
                    println!("{}: {:#?}", site.name, self.above(site).child(site.name));
                    println!("  ledger {:?}", facts(&site.ledger.stands));
                    println!("  below  {:?}", listed(site.node(), None));
                    println!("  centre {:?}", listed(self.centre(), Some(site.name)));
                }
                for site in &self.sites {
                    println!("{}: its last change is {}", site.name, site.node().last_change());
                    let (below, above) = (listed(site.node(), None), listed(self.centre(), Some(site.name)));
                    let differing = below.iter().chain(&above).filter(|(id, row)| {
                        let is_told = believed(&self.told).get(id).is_some_and(|(told, _)| *told == Some(row.1));
                        !is_told || below.get(id) != Some(*row) || above.get(id) != Some(*row)
                    });
                    for (id, (resource, ..)) in differing {
                        for node in [site.node(), self.centre()] {
                            println!("{id} {:?}", node.store.read().alarms().find(|alarm| alarm.id == *id));
                        }
                        println!("{}", self.story(site, resource));
                        let own = site.node().history();
                        own.iter()
                            .filter(|change| matches!(&change.subject, Subject::Alarm { alarm, .. } if alarm.id == *id))
                            .for_each(|change| println!("below: {change:?}"));
                    }
                }
                println!("pending {}", self.centre().pending());
                println!("told   {:?}", believed(&self.told));
                println!("stands {:?}", stands(self.centre()));
                panic!("waited too long: {what}");
            }
            // To look costs more than most of what is waited for.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn folder(&mut self, what: &str) -> PathBuf {
        self.folders += 1;
        self.dir.path().join(format!("{what}-{}", self.folders))
    }

    /// One request of a reporter to a site.
    pub(crate) fn report(&mut self, at: usize, count: u64) {
        // What is beyond the line above may be away as well, but then what happens is only late there.
        let cut = self.sites[at].line.is_cut().then_some(self.cuts);
        // What is to be taken back if it is refused.
        let stood = self.sites[at].ledger.stands.clone();
        let mut over = Vec::new();
        let mut items = Vec::new();
        let mut steps = Vec::new();
        for _ in 0..count {
            self.claimed = self.claimed.saturating_add_micros(1_000 + self.dice.roll(900_000) as i64);
            let resource = format!("unit={}", self.dice.roll(KEYS));
            let severity = match self.dice.roll(8) {
                roll @ 0..5 => Some(Severity::ALL[roll as usize]),
                _ => None,
            };
            let ledger = &mut self.sites[at].ledger;
            let began = self.claimed;
            let kind = match (ledger.stands.get_mut(&resource), severity) {
                (None, None) => None,
                (None, Some(severity)) => {
                    ledger.stands.insert(resource.clone(), Episode { severity, began, cut, is_plain: true });
                    Some(ChangeKind::Raised)
                }
                (Some(_), None) => {
                    let episode = ledger.stands.remove(&resource).expect("stands");
                    if cut.is_some() && episode.cut == cut {
                        over.push((resource.clone(), episode.began));
                    }
                    Some(ChangeKind::Cleared)
                }
                (Some(episode), Some(severity)) if episode.severity != severity => {
                    (episode.severity, episode.is_plain) = (severity, false);
                    Some(ChangeKind::SeverityChanged)
                }
                _ => None,
            };
            steps.extend(kind.map(|kind| (resource.clone(), kind, self.claimed)));
            let report = severity.map_or(Report::Clear, Report::Raise);
            let key = AlarmKey {
                site: Site::new(self.sites[at].name).expect("valid"),
                resource: Resource::new(&resource).expect("valid"),
                alarm_type: AlarmType::new(TYPE).expect("valid"),
                qualifier: "".parse().expect("valid"),
            };
            let mut event = Event::new(key, report, Text::new("as it is").expect("valid"));
            event.event_time = Some(self.claimed);
            items.push(Item::Event(Arc::new(event)));
        }
        let site = &mut self.sites[at];
        let before = site.mishaps.now();
        let published = match site.node.as_ref().expect("is open").publish(items) {
            Ok(published) => published,
            // Nothing of it is in the journal.
            Err(PublishError::DiskFull { .. } | PublishError::Busy) if site.mishaps.was_full() => {
                site.ledger.stands = stood;
                self.hits.refused += 1;
                return;
            }
            Err(error) => panic!("{}: is not taken: {error}", site.name),
        };
        let after = site.mishaps.now();
        assert!(published.answers.iter().all(|answer| matches!(answer, Answer::Accepted { .. })), "{published:?}");
        site.ledger.past.extend(over);
        site.ledger.sure.extend(steps.into_iter().map(|step| (step, (before, after))));
        self.hits.reports += count;
    }

    /// Somebody at the centre has seen an alarm of a site.
    fn acknowledge(&mut self) {
        let alarms: Vec<(AlarmId, u32)> = {
            let read = self.centre().store.read();
            read.alarms()
                .filter(|alarm| alarm.owner.is_some() && alarm.is_active())
                .map(|alarm| (alarm.id, alarm.raise_seq))
                .collect()
        };
        if alarms.is_empty() {
            return;
        }
        let (id, raise_seq) = alarms[self.dice.roll(alarms.len() as u64) as usize];
        self.actions += 1;
        let action: ActionId =
            serde_json::from_str(&format!("\"00000000-0000-4000-8000-{:012x}\"", self.actions)).expect("is one");
        let verb = Verb::OnAlarms(vec![Target { id, raise_seq: Some(raise_seq) }], AlarmVerb::Acknowledge { note: None });
        let action =
            Action { id: action, actor: "op".parse().expect("valid"), from: None, ordered_at: None, expires_at: None, verb };
        match self.centre().publish(vec![Item::Action(Arc::new(action))]) {
            Ok(_) => {
                self.hits.acknowledged += 1;
                // The centre goes by the clock that was set.
                let (wall, now) = (self.centre().store.read().cursor().wall, self.mishaps.now());
                let away = now.micros_since(wall).abs();
                assert!(away < 60_000_000, "the centre's clock says {wall}, and it is {now} there");
                self.hits.centre_clock += u64::from(!self.mishaps.is_right());
            }
            Err(PublishError::DiskFull { .. } | PublishError::Busy) if self.mishaps.was_full() => self.hits.refused_centre += 1,
            Err(error) => panic!("an action is not taken: {error}"),
        }
    }

    pub(crate) fn cut(&mut self, at: usize) {
        self.sites[at].line.cut();
        self.cuts += 1;
        self.hits.cuts += 1;
        // Up to three days.
        self.claimed = self.claimed.saturating_add_micros(self.dice.roll(72 * 3_600_000_000) as i64 / 16);
    }

    /// Lines to the nodes below one that has another address now.
    fn led(&self, above: Option<usize>) {
        let address = above.map_or_else(|| self.centre(), |above| self.sites[above].node()).address;
        for site in self.sites.iter().filter(|site| site.above == above) {
            site.line.lead_to(address);
        }
    }

    fn log(&self, what: &str) {
        if std::env::var_os("KLAXON_SEED").is_some() {
            println!("{}: {what}", self.mishaps.now());
        }
    }

    fn restart(&mut self, who: u64, is_crash: bool) {
        self.hits.crashes += u64::from(is_crash);
        let at = usize::try_from(who).ok().filter(|at| *at < self.sites.len());
        let node = at.map_or(&mut self.centre, |at| &mut self.sites[at].node).take().expect("is open");
        if is_crash {
            node.crash();
        } else {
            node.close();
        }
        match at {
            None => self.centre = Some(open_centre(&self.dir.path().join("centre"), &self.told, &self.mishaps)),
            Some(at) => self.sites[at].open(),
        }
        self.led(at);
        self.log(&format!("{at:?} is started again, crash {is_crash}"));
    }

    /// So much happens at a site that is cut off that its history gives way, where little is kept.
    fn overflow(&mut self, at: usize) {
        let reached = self.above(&self.sites[at]).child(self.sites[at].name).and_then(|child| child.reached.clone());
        let Some(reached) = reached.filter(|_| self.sites[at].history_max_bytes == LITTLE) else { return };
        self.cut(at);
        self.sites[at].mishaps.make_room();
        (0..8).for_each(|_| self.report(at, 300));
        let begun = Instant::now();
        let is_gone = |world: &Self| {
            matches!(world.sites[at].node().store.changes_after(reached.needed_after(), 1), Err(ReadError::Gap { .. }))
        };
        while !is_gone(self) {
            // A segment goes in a second, on a machine that is not busy.
            assert!(begun.elapsed() < 3 * PATIENCE, "history does not give way");
            // What stands is carried forward with what is written next.
            self.report(at, 20);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn back_up(&mut self, at: usize) {
        let to = self.folder("backup");
        let site = &mut self.sites[at];
        backup::backup(&site.dir, &to, &[]).expect("is backed up");
        site.backup = Some((to, site.ledger.clone()));
        self.log(&format!("{at} is backed up"));
    }

    /// A disk broke; the newest backup is what there is.
    pub(crate) fn restore(&mut self, at: usize) {
        let to = self.folder("restored");
        let site = &mut self.sites[at];
        let Some((from, mut ledger)) = site.backup.take() else { return };
        site.node.take().expect("is open").crash();
        backup::restore(&from, &to, &[]).expect("is restored");
        std::fs::copy(site.dir.join(CREDENTIAL), to.join(CREDENTIAL)).expect("is there");
        site.mishaps.moved(&to);
        site.dir = to;
        let before = std::mem::take(&mut site.ledger);
        ledger.maybe.extend(before.sure.into_keys().filter(|step| !ledger.sure.contains_key(step)));
        ledger.maybe.extend(before.maybe);
        // What was past may stand again.
        site.ledger = ledger;
        site.restored = true;
        site.open();
        self.led(Some(at));
        self.hits.restores += 1;
        self.log(&format!("{at} is restored"));
    }

    fn back_up_centre(&mut self) {
        let to = self.folder("backup");
        backup::backup(&self.dir.path().join("centre"), &to, &[]).expect("is backed up");
        // Behind the backup: what it may know is in it.
        self.centre_backup = Some((to, began(&self.centre().history())));
    }

    fn restore_centre(&mut self) {
        let Some((from, known)) = self.centre_backup.take() else { return };
        self.centre.take().expect("is open").crash();
        let is_over = self.over_and_unknown(&known);
        self.restores.push(Restore { told: self.told.all().len(), is_over, claimed: self.claimed });
        let dir = self.dir.path().join("centre");
        let broken = self.folder("broken");
        std::fs::rename(&dir, broken).expect("can be moved");
        backup::restore(&from, &dir, &[]).expect("is restored");
        self.centre = Some(open_centre(&dir, &self.told, &self.mishaps));
        self.led(None);
        self.hits.centre_restores += 1;
        self.log("the centre is restored");
    }

    /// Of a site, or of the centre where there is no such site.
    fn mishaps_of(&self, who: usize) -> &Mishaps {
        self.sites.get(who).map_or(&self.mishaps, |site| &site.mishaps)
    }

    /// A disk is full, or somebody makes room.
    fn fill_or_empty(&mut self) {
        let who = self.dice.roll(4) as usize;
        let mishaps = self.mishaps_of(who);
        if mishaps.is_full() {
            mishaps.make_room();
        } else {
            mishaps.fill();
        }
    }

    /// A wall clock is set, by up to three days from what time it is.
    fn set_clock(&mut self, who: usize, seconds: i64) {
        let hits = &mut self.hits;
        let (mishaps, forward, back) = match self.sites.get(who) {
            Some(site) => (&site.mishaps, &mut hits.clock_forward, &mut hits.clock_back),
            None => (&self.mishaps, &mut hits.centre_forward, &mut hits.centre_back),
        };
        *(if mishaps.set_clock(seconds) { forward } else { back }) += 1;
        // Something happens there by the new time.
        match self.sites.get(who) {
            Some(_) => self.report(who, 1),
            None => self.acknowledge(),
        }
    }

    /// What a run is to hit in a few schedules, whatever the dice say.
    fn befall(&mut self, seed: u64) {
        if seed % 10 == LOSES_CENTRE {
            self.back_up_centre();
        }
        let hours = 3600 * (1 + seed as i64 % 72);
        match seed % 6 {
            0 => self.mishaps.fill(),
            1 => self.sites[1].mishaps.fill(),
            2 => self.set_clock(CENTRE, hours),
            3 => self.set_clock(CENTRE, -hours),
            4 => self.set_clock(0, hours),
            _ => self.set_clock(1, -hours),
        }
        // Somebody comes who notices.
        match seed % 6 {
            0 => self.acknowledge(),
            1 => self.report(1, 1),
            _ => {}
        }
    }

    fn step(&mut self) {
        let at = self.dice.roll(self.sites.len() as u64) as usize;
        match self.dice.roll(100) {
            0..46 => {
                let count = 1 + self.dice.roll(12);
                self.report(at, count);
            }
            46..48 => (0..6).for_each(|_| self.report(at, 100)),
            48..54 => self.acknowledge(),
            54..64 => self.cut(at),
            64..76 => self.sites[at].line.heal(),
            76..84 => {
                let some = |dice: &mut Dice| if dice.roll(2) == 0 { 0 } else { dice.roll(150) };
                let manners =
                    Manners { tears: some(&mut self.dice), doubles: some(&mut self.dice), loses: some(&mut self.dice) };
                self.sites[at].line.behave(manners);
            }
            84..88 => {
                let who = self.dice.roll(3);
                self.restart(who, true);
            }
            88 => {
                let who = self.dice.roll(3);
                self.restart(who, false);
            }
            89..91 => self.back_up(at),
            91..93 => self.restore(at),
            93 => self.back_up_centre(),
            94 => self.restore_centre(),
            95 => self.fill_or_empty(),
            96 => {
                let who = self.dice.roll(4) as usize;
                let seconds = self.dice.roll(2 * 72 * 3600) as i64 - 72 * 3600;
                self.set_clock(who, seconds);
            }
            _ => std::thread::sleep(Duration::from_millis(self.dice.roll(12))),
        }
    }

    /// The weather is fair; all that is to come comes.
    pub(crate) fn calm(&mut self) {
        self.mishaps.make_room();
        for site in &self.sites {
            site.mishaps.make_room();
            site.line.behave(Manners::default());
            site.line.heal();
        }
        self.until("the centre knows what stands", |world| {
            // From below: what a region has of a site it tells as well.
            world.sites.iter().rev().all(|site| {
                let last = site.node().last_change();
                let is_whole = world.above(site).child(site.name).is_some_and(|child| {
                    child.reached.as_ref().is_some_and(|reached| reached.missing.is_empty() && reached.position >= last)
                });
                is_whole
                    && world.centre().pending() == 0
                    && listed(world.centre(), Some(site.name)) == listed(site.node(), None)
            })
        });
        self.until("whoever is told knows it as well", |world| {
            let (believed, stands) = (believed(&world.told), stands(world.centre()));
            // A centre that was restored does not know what it told since its backup, and so not that it has to take it back. What
            // stands as its backup has it to be told it does not tell again.
            let forgotten = world.restores.last().map_or(0, |restore| restore.told);
            let before = told_of(&world.told, forgotten);
            let knows = stands.iter().all(|(id, severity)| {
                let is_known = |(told, at): &(Option<Severity>, usize)| {
                    *told == Some(*severity) || (*at < forgotten && before.contains(&(*id, *severity)))
                };
                believed.get(id).is_some_and(is_known)
            });
            knows && believed.iter().all(|(id, (told, at))| told.is_none() || *at < forgotten || stands.contains_key(id))
        });
    }

    pub(crate) fn check(&mut self) {
        let history = self.centre().history();
        let mut numbers = BTreeMap::new();
        for change in &history {
            if let Some(first) = numbers.insert((change.site.clone(), change.number), change.clone()) {
                // Today a region that was restored tells again what it was told again by those below it. It should be known by
                // its number here. It is the same, and notifies nobody.
                let is_told_again = self.sites[0].restored && *change.site != *self.sites[0].name && change.past;
                let is_same = first.at == change.at && first.kind == change.kind;
                assert!(is_told_again && is_same, "twice in history: {change:?}");
                self.hits.twice += 1;
            }
            self.hits.past_changes += u64::from(change.past);
            self.hits.realigned += u64::from(change.kind == ChangeKind::Realigned);
            self.hits.silences += u64::from(matches!(&change.subject, Subject::Child(note) if note.what == ChildStep::Silent));
        }
        for at in 0..self.sites.len() {
            let site = &self.sites[at];
            // What stands at the site is what it acknowledged: else nothing of this is worth anything.
            let ledger = facts(&site.ledger.stands);
            assert_eq!(facts_of(site.node(), None), ledger, "{}", site.name);
            assert_eq!(facts_of(self.centre(), Some(site.name)), ledger, "{} at the centre", site.name);
            self.check_history(at, &history);
        }
        if self.restores.is_empty() {
            self.check_told();
        } else {
            self.check_told_again();
        }
    }

    fn check_history(&mut self, at: usize, history: &[Change]) {
        let site = &self.sites[at];
        let mut lost = 0;
        let mut seen = BTreeMap::new();
        for change in history {
            match &change.subject {
                // What a region loses may be of those below it.
                Subject::Child(note)
                    if *note.name != *site.name && site.above.is_some_and(|above| *note.name == *self.sites[above].name) =>
                {
                    if let ChildStep::CaughtUp(meanwhile) = note.what {
                        lost += meanwhile.lost;
                    }
                }
                Subject::Child(note) if *note.name == *site.name => match note.what {
                    ChildStep::CaughtUp(meanwhile) => {
                        self.hits.caught_up += 1;
                        lost += meanwhile.lost;
                    }
                    ChildStep::NewEpoch => self.hits.new_epochs += 1,
                    _ => {}
                },
                Subject::Alarm { alarm, .. } if *change.site == *site.name => {
                    let Some(step) = step_of(change, alarm) else { continue };
                    let span = site.ledger.sure.get(&step);
                    assert!(span.is_some() || site.ledger.maybe.contains(&step), "nobody reported {step:?}: {change:?}");
                    if let Some((before, after)) = span {
                        let at = change.at;
                        assert!(*before <= at && at <= *after, "{at} is not when it happened, {before} to {after}: {change:?}");
                    }
                    let is_new = seen.insert(step, change.number).is_none_or(|before| before == change.number);
                    assert!(is_new, "the same under two numbers: {change:?}");
                }
                _ => {}
            }
        }
        let missing: Vec<_> = site.ledger.sure.keys().filter(|step| !seen.contains_key(*step)).collect();
        let ends = (missing.first(), missing.last());
        assert!(
            missing.len() as u64 <= lost,
            "{}: {lost} records are lost, and {} of {} steps are missing, {ends:?}: {:#?}",
            site.name,
            missing.len(),
            site.ledger.sure.len(),
            self.notes(),
        );
        self.hits.lost_records += lost;
        self.hits.missing_steps += missing.len() as u64;
    }

    /// Nobody is told what is past, and of what stands exactly once.
    fn check_told(&mut self) {
        let mut raised: BTreeMap<(String, String, Timestamp), u64> = BTreeMap::new();
        let mut any = raised.clone();
        for one in self.told.all() {
            let What::Alarm { how, alarm, change, .. } = &one.what else { continue };
            // That somebody has seen it is another thing.
            if change.as_ref().is_some_and(|change| change.kind == ChangeKind::Acknowledged) {
                continue;
            }
            let (Some(owner), Some(began)) = (&alarm.owner, alarm.event_time) else { continue };
            let episode = (owner.as_str().to_owned(), alarm.key.resource.as_str().to_owned(), began);
            if *how == How::Raised {
                *raised.entry(episode.clone()).or_default() += 1;
            }
            if matches!(how, How::Raised | How::Changed) {
                *any.entry(episode).or_default() += 1;
            }
        }
        // What a restore brought back is told again. Today that is so as well for what stands below a region that was restored:
        // until those below it are there again it says that nothing stands. It should not be told.
        let is_below =
            |name: &str| self.sites[0].restored && self.sites.iter().any(|site| site.name == name && site.above.is_some());
        let twice: Vec<_> = raised.iter().filter(|((name, ..), count)| **count > 1 && !self.was_restored(name)).collect();
        let (below, twice): (Vec<_>, Vec<_>) = twice.into_iter().partition(|((name, ..), _)| is_below(name));
        self.hits.told_again += below.len() as u64;
        if let Some(((name, resource, began), count)) = twice.first() {
            let site = self.sites.iter().find(|site| site.name == name).expect("is one of them");
            panic!("{name}: {resource} since {began} is told of as raised {count} times: {}", self.story(site, resource));
        }
        for site in &self.sites {
            let key = |resource: &String, began| (site.name.to_owned(), resource.clone(), began);
            for (resource, began) in &site.ledger.past {
                let is_told = any.contains_key(&key(resource, *began));
                assert!(!is_told, "{}: {resource} since {began} was past: {}", site.name, self.story(site, resource));
            }
            self.hits.past_episodes += site.ledger.past.len() as u64;
            for (resource, episode) in &site.ledger.stands {
                let count = any.get(&key(resource, episode.began)).copied().unwrap_or(0);
                // Where it changed meanwhile, that is told as well; a site that was restored takes some of it back. It numbers
                // episodes as before, so the alarm may stand as one that was told, and nobody is told again of what he knows.
                let is_known = || any.keys().any(|(name, of, _)| name == site.name && of == resource);
                let is_right = match count {
                    0 => site.restored && is_known(),
                    1 => true,
                    _ => !episode.is_plain || site.restored || is_below(site.name),
                };
                assert!(is_right, "{}: {resource} is told of {count} times: {}", site.name, self.story(site, resource));
            }
        }
    }

    pub(crate) fn close(mut self) -> Hits {
        self.hits.full_centres += self.mishaps.times_met();
        for site in &mut self.sites {
            self.hits.full_sites += site.mishaps.times_met();
            let done = site.line.done();
            self.hits.torn += done.torn.load(Ordering::Relaxed);
            self.hits.doubled += done.doubled.load(Ordering::Relaxed);
            self.hits.lost += done.lost.load(Ordering::Relaxed);
            if let Some(node) = site.node.take() {
                node.crash();
            }
        }
        if let Some(node) = self.centre.take() {
            node.crash();
        }
        self.hits
    }
}

fn step_of(change: &Change, alarm: &Alarm) -> Option<Step> {
    if *alarm.key.alarm_type != *TYPE {
        return None;
    }
    let at = match change.kind {
        ChangeKind::Raised => alarm.event_time,
        ChangeKind::Cleared | ChangeKind::SeverityChanged => alarm.last_event_time,
        _ => return None,
    };
    Some((alarm.key.resource.as_str().to_owned(), change.kind, at.expect("is claimed")))
}

/// One schedule.
pub(crate) fn run(seed: u64) -> Hits {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.step();
        match step {
            EARLY => world.befall(seed),
            MIDDLE => world.overflow(0),
            LATE if seed % 10 == LOSES_CENTRE => world.restore_centre(),
            _ => {}
        }
    }
    world.calm();
    world.check();
    world.close()
}

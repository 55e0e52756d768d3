//! What of the links is an alarm.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use klaxon_schemas::event::Attributes;
use klaxon_schemas::names::{AttributeName, AttributeValue};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;

use super::LinkConfig;
use super::follow::Known;
use super::table::{Table, Track};
use super::wire::{Link, State};
use crate::collect::pattern::chosen;
use crate::collect::{Finding, Host, Look, Reading, Subject, Told};

/// How long a vlan may take to follow the port below it that came up.
const VLAN_LAG: Duration = Duration::from_secs(1);
/// The most members of a bond that a text names.
const MEMBERS_SHOWN: usize = 8;

/// What a look is made with.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a LinkConfig,
    pub(super) host: &'a Host,
    pub(super) now: Duration,
    pub(super) told: &'a Told,
}

/// Makes one look.
pub(super) struct Judge<'a> {
    config: &'a LinkConfig,
    host: &'a Host,
    now: Duration,
    told: &'a Told,
    missing: &'a mut HashMap<String, Duration>,
    look: Look,
}

/// Why a link is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// It is of a kind that is watched.
    ByKind,
    /// It was asked for.
    AskedFor,
}

/// A link with what it is made of.
struct Port<'a> {
    track: &'a Track,
    watched: Watched,
    resource: Resource,
    members: Vec<&'a Track>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(surroundings: Surroundings<'a>, missing: &'a mut HashMap<String, Duration>) -> Self {
        let Surroundings { config, host, now, told } = surroundings;
        Self { config, host, now, told, missing, look: Look::default() }
    }

    pub(super) fn judge(mut self, known: &Known) -> Look {
        let table = &known.table;
        let by_name = table.by_name();
        let watched = by_name.values().filter_map(|track| Some((*track, self.watched(&track.link)?)));
        let watched: Vec<_> = watched.collect();
        for (track, watched) in &watched {
            let members = if is_bundle(&track.link) { members(table, &track.link) } else { Vec::new() };
            let resource = self.resource(&track.link.name);
            self.port(table, &Port { track, watched: *watched, resource, members });
        }
        let wanted: Vec<&str> = self.config.include.iter().filter_map(|pattern| pattern.only()).collect();
        self.missing.retain(|name, _| wanted.contains(&name.as_str()) && !by_name.contains_key(name.as_str()));
        if known.is_sure {
            for name in wanted.iter().filter(|name| !by_name.contains_key(**name)) {
                self.missing(name);
            }
        } else {
            self.hold_all();
        }
        if watched.is_empty() && wanted.is_empty() {
            self.look.not_applicable = Some("there is no network hardware, no bond and no vlan".to_owned());
        }
        let (links, dumps, overruns) = (table.len(), known.counts.dumps, known.counts.overruns);
        let value =
            format!("{} of {links} links are watched; asked for all {dumps}×, told too fast {overruns}×", watched.len());
        // First, so that it is shown however many links there are.
        self.look.readings.insert(0, Reading { what: self.host.resource().to_string(), value, severity: None });
        self.look
    }

    /// Whether it is watched, and why: a whole name goes before what is excluded, that before patterns, those before kinds.
    fn watched(&self, link: &Link) -> Option<Watched> {
        match chosen(&self.config.include, &self.config.exclude, &link.name) {
            Some(true) => Some(Watched::AskedFor),
            Some(false) => None,
            None => (is_bundle(link) || is_vlan(link) || is_hardware(link)).then_some(Watched::ByKind),
        }
    }

    fn port(&mut self, table: &Table, port: &Port<'_>) {
        let track = port.track;
        let is_flapping = self.flapping(port);
        let severity = if is_bundle(&track.link) { Severity::Critical } else { Severity::Major };
        let down = Subject::new(port.resource.clone(), "link.down");
        let excuse = self.excuse(table, port, &down);
        let is_down = track.state == State::Down && excuse.is_none();
        let holds = track.state != State::Off && self.holds(&down, is_down, track.since, self.up_for(is_flapping));
        if holds {
            self.find(Finding { attributes: attributes(&track.link), ..Finding::new(down, severity, &self.down_text(port)) });
        }
        let is_degraded = track.state == State::Up && self.degraded(port);
        let mut value = match (track.state, excuse) {
            (State::Off, _) => "administratively down".to_owned(),
            (State::Up, _) => "up".to_owned(),
            (State::Down, Some(excuse)) => format!("down, {excuse}"),
            (State::Down, None) => format!("down, {}", track.link.trouble()),
        };
        let downs = track.downs(self.now, self.config.flap_window);
        if downs > 0 && track.state != State::Off {
            let flaps = usize::try_from(self.config.flaps).unwrap_or(usize::MAX);
            let downs = if downs > flaps { format!("more than {flaps}") } else { downs.to_string() };
            value.push_str(&format!("; went down {downs}× within {} s", self.config.flap_window.as_secs()));
        }
        if !port.members.is_empty() {
            let up = port.members.iter().filter(|member| member.state == State::Up).count();
            value.push_str(&format!("; {up} of {} members up", port.members.len()));
        }
        let shown = holds.then_some(severity).or(is_degraded.then_some(Severity::Major));
        self.read(&port.resource, value, shown.or(is_flapping.then_some(Severity::Minor)));
    }

    /// Why a link that is down is no alarm, if it is not.
    fn excuse(&mut self, table: &Table, port: &Port<'_>, down: &Subject) -> Option<String> {
        let track = port.track;
        if port.watched == Watched::AskedFor || track.state != State::Down || self.told.severity(down).is_some() {
            return None;
        }
        if is_vlan(&track.link) {
            let lower = table.get(track.link.lower?).filter(|lower| self.watched(&lower.link).is_some());
            if let Some(lower) = lower {
                let is_lagging = !self.is_past(VLAN_LAG, lower.since) && lower.state == State::Up;
                if lower.state != State::Up || is_lagging {
                    return Some(format!("as is {}", lower.link.name));
                }
            }
        }
        let is_member = track.link.master.and_then(|master| table.get(master)).is_some_and(|master| is_bundle(&master.link));
        let is_unplugged = track.link.never_had_carrier() && !track.was_up && !is_member && port.members.is_empty();
        is_unplugged.then(|| "it never had a carrier".to_owned())
    }

    /// Judges whether a bond works without one of its members.
    fn degraded(&mut self, port: &Port<'_>) -> bool {
        if port.members.is_empty() {
            return false;
        }
        let subject = Subject::new(port.resource.clone(), "link.degraded");
        let down: Vec<&Track> = port.members.iter().copied().filter(|member| member.state == State::Down).collect();
        let since = if down.is_empty() {
            port.members.iter().map(|member| member.since).max()
        } else {
            down.iter().map(|member| member.since).min()
        };
        if !self.holds(&subject, !down.is_empty(), since.unwrap_or(self.now), self.config.clear_after) {
            return false;
        }
        let (name, all) = (&port.track.link.name, port.members.len());
        let text = if down.is_empty() {
            format!("{name} had a member that was down; all {all} are up again.")
        } else {
            format!("{name} works without {}; {} of {all} members are down.", names(&down), down.len())
        };
        self.find(Finding { attributes: attributes(&port.track.link), ..Finding::new(subject, Severity::Major, &text) });
        true
    }

    /// Judges whether a link goes up and down too often.
    fn flapping(&mut self, port: &Port<'_>) -> bool {
        let (track, window) = (port.track, self.config.flap_window);
        if track.state == State::Off {
            return false;
        }
        let subject = Subject::new(port.resource.clone(), "link.flapping");
        let flaps = usize::try_from(self.config.flaps).unwrap_or(usize::MAX);
        let downs = track.downs(self.now, window);
        let is_flapping = if self.told.severity(&subject).is_none() {
            downs > flaps
        } else if downs > flaps / 2 {
            // Over when the first down too many leaves the window.
            track.down_at(flaps / 2).is_some_and(|at| !self.is_past(window, at))
        } else {
            // What was before it was first seen, another process knew: that may last as long as the window.
            !self.is_past(window, track.first_seen)
        };
        if is_flapping {
            // More are not counted.
            let text = format!(
                "{} goes down again and again: it did so more than {flaps} times within {} s.",
                track.link.name,
                window.as_secs()
            );
            self.find(Finding { attributes: attributes(&track.link), ..Finding::new(subject, Severity::Minor, &text) });
        }
        is_flapping
    }

    /// A link that must be there is not.
    fn missing(&mut self, name: &str) {
        let since = *self.missing.entry(name.to_owned()).or_insert(self.now);
        let resource = self.resource(name);
        let down = Subject::new(resource.clone(), "link.down");
        let holds = self.holds(&down, true, since, Duration::ZERO);
        if holds {
            let text = format!("{name} is missing; it is watched by its name.");
            self.find(Finding::new(down, Severity::Critical, &text));
        }
        self.read(&resource, "missing".to_owned(), holds.then_some(Severity::Critical));
    }

    /// What stands raised about a link that was not named yet stays, while not all have been.
    fn hold_all(&mut self) {
        let looked_at: HashSet<&str> = self.look.readings.iter().map(|reading| reading.what.as_str()).collect();
        // That the collector had failed is over: it looks.
        let links = self.told.0.keys().filter(|subject| subject.alarm_type.as_str() != "klaxon.collector-failed");
        let unseen = links.map(|subject| &subject.resource).filter(|resource| !looked_at.contains(resource.as_str()));
        self.look.unseen = unseen.cloned().collect::<BTreeSet<_>>().into_iter().collect();
    }

    /// How long a link must be up for its being down to be over. One that flaps is down and up all the time: there it is the
    /// time in which it would go down once more.
    fn up_for(&self, is_flapping: bool) -> Duration {
        let apart = self.config.flap_window / self.config.flaps.max(1);
        if is_flapping { self.config.clear_after.max(apart) } else { self.config.clear_after }
    }

    /// Whether a condition holds that `is_bad` or not since `since`.
    fn holds(&mut self, subject: &Subject, is_bad: bool, since: Duration, clear_after: Duration) -> bool {
        let stands = self.told.severity(subject).is_some();
        match (is_bad, stands) {
            (true, true) => true,
            (true, false) => self.is_past(self.config.raise_after, since),
            (false, true) => !self.is_past(clear_after, since),
            (false, false) => false,
        }
    }

    /// Whether `time` is over, counted from `since`; if not, it is looked again then.
    fn is_past(&mut self, time: Duration, since: Duration) -> bool {
        let left = time.saturating_sub(self.now.saturating_sub(since));
        if !left.is_zero() {
            self.look.again_in = Some(self.look.again_in.map_or(left, |sooner| sooner.min(left)));
        }
        left.is_zero()
    }

    fn down_text(&self, port: &Port<'_>) -> String {
        let (link, members) = (&port.track.link, &port.members);
        if port.track.state == State::Up {
            return format!("{} was down and is up again.", link.name);
        }
        match members.len() {
            0 => format!("{} is down: {}.", link.name, link.trouble()),
            count => format!("{} is down, with {count} members: {}.", link.name, names(members)),
        }
    }

    fn resource(&self, name: &str) -> Resource {
        self.host.part("port", name)
    }

    fn find(&mut self, finding: Finding) {
        self.look.findings.push(finding);
    }

    fn read(&mut self, resource: &Resource, value: String, severity: Option<Severity>) {
        self.look.readings.push(Reading { what: resource.to_string(), value, severity });
    }
}

/// The members of a bond.
fn members<'a>(table: &'a Table, bundle: &Link) -> Vec<&'a Track> {
    table.tracks().filter(|track| track.link.master == Some(bundle.index)).collect()
}

fn is_bundle(link: &Link) -> bool {
    matches!(link.kind.as_deref(), Some("bond" | "team"))
}

fn is_vlan(link: &Link) -> bool {
    link.kind.as_deref() == Some("vlan")
}

fn is_hardware(link: &Link) -> bool {
    let is_on_a_bus = || Path::new("/sys/class/net").join(&link.name).join("device").exists();
    !link.is_loopback() && (link.has_parent || link.kind.is_none() && is_on_a_bus())
}

fn names(tracks: &[&Track]) -> String {
    let mut names: Vec<&str> = tracks.iter().map(|track| track.link.name.as_str()).collect();
    names.sort_unstable();
    if names.len() > MEMBERS_SHOWN {
        names.truncate(MEMBERS_SHOWN);
        names.push("…");
    }
    names.join(", ")
}

fn attributes(link: &Link) -> Attributes {
    let pairs = [("index", link.index.to_string()), ("kind", link.kind.clone().unwrap_or_default())];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let checked = pairs.filter_map(|(name, value)| Some((AttributeName::new(name).ok()?, AttributeValue::new(&value).ok()?)));
    Attributes::new(checked.collect()).unwrap_or_default()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

//! Reporters: each owns its alarms, numbers its reports, and sends a batch again until the node acknowledges it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Chance, agent};

/// What a reporter has told the node, and what it knows the node has taken.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) name: String,
    keys: u64,
    seq: u64,
    chance: Chance,
    /// Per key: severity if raised, and how often it was raised and cleared, as far as acknowledged.
    pub(crate) acknowledged: Vec<Known>,
    /// The batch that was sent and not yet acknowledged.
    in_flight: Option<Vec<(u64, Option<usize>, u64)>>,
    pub(crate) duplicates: u64,
}

/// What the reporter knows of one of its alarms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) severity: Option<usize>,
    pub(crate) raises: u64,
    pub(crate) clears: u64,
    pub(crate) changes: u64,
    pub(crate) reports: u64,
}

pub(crate) const SEVERITIES: [&str; 5] = ["indeterminate", "warning", "minor", "major", "critical"];

impl Reporter {
    pub(crate) fn new(name: &str, keys: u64, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            keys,
            seq: 0,
            chance: Chance::new(seed),
            acknowledged: vec![Known::default(); usize::try_from(keys).expect("small")],
            in_flight: None,
            duplicates: 0,
        }
    }

    pub(crate) fn resource(&self, key: u64) -> String {
        format!("reporter={}.key={key}", self.name)
    }

    /// The batch to send: the one in flight again, or a new one.
    fn batch(&mut self, size: u64) -> String {
        if self.in_flight.is_none() {
            let reports = (0..size).map(|_| {
                self.seq += 1;
                let severity = usize::try_from(self.chance.below(7)).expect("small");
                (self.chance.below(self.keys), (severity < 5).then_some(severity), self.seq)
            });
            self.in_flight = Some(reports.collect());
        }
        let events: Vec<Value> = self
            .in_flight
            .iter()
            .flatten()
            .map(|(key, severity, seq)| {
                json!({
                    "resource": self.resource(*key),
                    "alarm_type": "test.load",
                    "severity": severity.map_or("cleared", |severity| SEVERITIES[severity]),
                    "text": "the same words each time",
                    "producer": self.name,
                    "epoch": 1,
                    "seq": seq,
                })
            })
            .collect();
        Value::from(events).to_string()
    }

    /// Sends one batch. True once it is acknowledged, false if the node did not say so.
    pub(crate) fn send(&mut self, agent: &ureq::Agent, base: &str, size: u64) -> bool {
        let body = self.batch(size);
        match post(agent, base, &body) {
            Some(told) => {
                self.acknowledge(&told);
                true
            }
            None => false,
        }
    }

    fn acknowledge(&mut self, told: &Value) {
        assert_eq!(told["rejected"], 0, "{}", &told.to_string()[..500]);
        self.duplicates += told["duplicate"].as_u64().expect("is counted");
        for (key, severity, _) in self.in_flight.take().into_iter().flatten() {
            self.acknowledged[usize::try_from(key).expect("small")].take(severity);
        }
    }

    /// As [`Reporter::run`], but others may look at it between a request and its answer.
    pub(crate) fn run_watched(this: &Mutex<Self>, base: &str, size: u64, stop: &AtomicBool, sent: &AtomicU64) {
        let agent = agent();
        while !stop.load(Ordering::Relaxed) {
            let body = this.lock().expect("nobody panicked").batch(size);
            let Some(told) = post(&agent, base, &body) else { return };
            this.lock().expect("nobody panicked").acknowledge(&told);
            sent.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// Sends until told to stop or until the node is gone.
    pub(crate) fn run(&mut self, base: &str, size: u64, stop: &AtomicBool, sent: &AtomicU64) {
        let agent = agent();
        while !stop.load(Ordering::Relaxed) {
            if !self.send(&agent, base, size) {
                return;
            }
            sent.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// Sends what is in flight until it is acknowledged.
    pub(crate) fn settle(&mut self, base: &str) {
        let agent = agent();
        while self.in_flight.is_some() {
            self.send(&agent, base, 0);
        }
    }
}

/// What the node says once it has acknowledged a batch; nothing if it did not.
fn post(agent: &ureq::Agent, base: &str, body: &str) -> Option<Value> {
    let mut reply = agent.post(format!("{base}/api/v1/events")).content_type("application/json").send(body).ok()?;
    let status = reply.status().as_u16();
    let text = reply.body_mut().read_to_string().ok()?;
    if status != 200 {
        assert!([503, 507].contains(&status), "{status}: {text}");
        return None;
    }
    Some(serde_json::from_str(&text).expect("an acknowledgement is JSON"))
}

impl Known {
    /// What one report does, as RFC 8632 has it.
    fn take(&mut self, severity: Option<usize>) {
        match (self.severity, severity) {
            (None, None) => {}
            (None, Some(_)) => {
                self.raises += 1;
                self.reports = 1;
            }
            (Some(_), None) => self.clears += 1,
            (Some(before), Some(now)) => {
                self.reports += 1;
                self.changes += u64::from(before != now);
            }
        }
        self.severity = severity;
    }
}

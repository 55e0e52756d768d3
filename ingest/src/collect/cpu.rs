//! How busy the processors are, of `/proc/stat`: everything but idle and waiting for disks.

use std::time::Duration;

use procfs::{CurrentSI as _, KernelStats};

use super::gate::Gates;
use super::{Collector, Finding, Host, Look, LookError, Reading, Subject, Thresholds, Told};

/// What the collector `cpu` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuConfig {
    /// How often it looks; the busy share is that of the time between two looks.
    pub interval: Duration,
    /// Levels in per cent.
    pub thresholds: Thresholds,
}

/// Jiffies since the boot.
#[derive(Debug, Clone, Copy)]
struct Spent {
    busy: u64,
    all: u64,
}

pub(super) struct Cpu {
    thresholds: Thresholds,
    subject: Subject,
    gates: Gates,
    before: Option<Spent>,
}

impl Cpu {
    pub(super) fn new(config: &CpuConfig, host: &Host) -> Self {
        let subject = Subject::new(host.resource(), "cpu.high");
        Self { thresholds: config.thresholds.clone(), subject, gates: Gates::default(), before: None }
    }
}

fn spent() -> Result<Spent, LookError> {
    let stat = KernelStats::current().map_err(|error| LookError::new("read /proc/stat", error))?;
    let total = stat.total;
    let idle = total.idle + total.iowait.unwrap_or(0);
    // Time of guests is part of user and nice.
    let busy = total.user + total.nice + total.system + total.irq.unwrap_or(0) + total.softirq.unwrap_or(0);
    let busy = busy + total.steal.unwrap_or(0);
    Ok(Spent { busy, all: busy + idle })
}

impl Collector for Cpu {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let here = spent()?;
        let mut look = Look::default();
        let before = *self.before.get_or_insert(here);
        let all = here.all.saturating_sub(before.all);
        if all == 0 {
            // The first look, or too little time for a jiffy: what stands raised stays, and what is under way goes on.
            let what = self.subject.resource.to_string();
            look.readings.push(Reading { what, value: "is measured until the next look".to_owned(), severity: None });
            look.unseen.push(self.subject.resource.clone());
            return Ok(look);
        }
        self.before = Some(here);
        #[expect(clippy::cast_precision_loss, reason = "a share in per cent")]
        let share = here.busy.saturating_sub(before.busy) as f64 * 100.0 / all as f64;
        look.readings.push(Reading {
            what: self.subject.resource.to_string(),
            value: format!("{share:.1} % busy"),
            severity: self.thresholds.level(share),
        });
        let holds = self.gates.judge(now, &self.thresholds, &self.subject, share, told);
        if let Some(severity) = holds {
            let threshold = self.thresholds.begins(severity).unwrap_or_default();
            let text = format!("Processors are {share:.0} % busy; the threshold is {threshold} %.");
            look.findings.push(Finding::new(self.subject.clone(), severity, &text));
        }
        look.again_in = self.gates.finish();
        Ok(look)
    }
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::severity::Severity;

    use super::*;

    #[test]
    fn the_first_look_judges_nothing_and_a_later_one_only_if_time_has_passed() {
        let thresholds = Thresholds::on_off(Severity::Major, Duration::ZERO, Duration::ZERO);
        let config = CpuConfig { interval: Duration::from_secs(1), thresholds };
        let host = Host::new("a").expect("is a name");
        let mut cpu = Cpu::new(&config, &host);
        let told = Told::default();
        let first = cpu.look(Duration::ZERO, &told).expect("looks");
        assert_eq!((first.findings.len(), &first.unseen[..], first.readings.len()), (0, &[host.resource()][..], 1));
        // Jiffies pass: wait for one.
        let begun = std::time::Instant::now();
        let next = loop {
            let look = cpu.look(Duration::from_secs(1), &told).expect("looks");
            if look.unseen.is_empty() {
                break look;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "time stands still");
            std::thread::yield_now();
        };
        assert!(next.readings[0].value.ends_with(" % busy"), "{next:?}");
    }
}

//! How much memory is taken, of `/proc/meminfo`: everything but what the kernel can give away (`MemAvailable`).

use std::time::Duration;

use procfs::{Current as _, Meminfo};

use super::gate::Gates;
use super::{Collector, Finding, Host, Look, LookError, Reading, Subject, Thresholds, Told};

/// What the collector `memory` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Levels in per cent.
    pub thresholds: Thresholds,
}

pub(super) struct Memory {
    thresholds: Thresholds,
    subject: Subject,
    gates: Gates,
}

impl Memory {
    pub(super) fn new(config: &MemoryConfig, host: &Host) -> Self {
        let subject = Subject::new(host.resource(), "memory.high");
        Self { thresholds: config.thresholds.clone(), subject, gates: Gates::default() }
    }
}

impl Collector for Memory {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let memory = Meminfo::current().map_err(|error| LookError::new("read /proc/meminfo", error))?;
        let available = memory.mem_available.unwrap_or(memory.mem_free + memory.buffers + memory.cached);
        let taken = memory.mem_total.saturating_sub(available);
        #[expect(clippy::cast_precision_loss, reason = "a share in per cent")]
        let share = taken as f64 * 100.0 / memory.mem_total.max(1) as f64;
        let mut look = Look::default();
        let (taken, total) = (taken >> 20, memory.mem_total >> 20);
        look.readings.push(Reading {
            what: self.subject.resource.to_string(),
            value: format!("{share:.1} % taken ({taken} of {total} MiB)"),
            severity: self.thresholds.level(share),
        });
        if let Some(severity) = self.gates.judge(now, &self.thresholds, &self.subject, share, told) {
            let threshold = self.thresholds.begins(severity).unwrap_or_default();
            let text = format!("Memory is {share:.0} % taken ({taken} of {total} MiB); the threshold is {threshold} %.");
            look.findings.push(Finding::new(self.subject.clone(), severity, &text));
        }
        look.again_in = self.gates.finish();
        Ok(look)
    }
}

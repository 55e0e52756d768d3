//! Hysteresis and debounce: when a value becomes a condition, changes its severity, and is over.
//!
//! ```text
//!            at or above a level for its `after`                 below `level − hysteresis` for `clear_after`
//! nothing ─────────────────────────────────────▶ the level ─────────────────────────────────────────▶ a lower level, or nothing
//! ```
//!
//! What stands raised is not kept here but given with each value; only what is under way is kept.

use std::collections::HashMap;
use std::time::Duration;

use klaxon_schemas::severity::Severity;

use super::{Subject, Told};

/// The most levels: one for each severity.
pub(super) const LEVELS_MAX: usize = 5;

/// From which value on a severity holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Which severity.
    pub severity: Severity,
    /// From which value on.
    pub above: f64,
    /// For how long the value must have been there.
    pub after: Duration,
}

/// The levels of a value, the least severe first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thresholds {
    levels: Vec<Level>,
    hysteresis: f64,
    clear_after: Duration,
}

/// Why levels cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ThresholdsError {
    /// A more severe level begins below a less severe one.
    #[error("{severity} begins at {above}, which is not above the next lower level")]
    Order {
        /// Which.
        severity: Severity,
        /// Where it begins.
        above: f64,
    },
    /// There is none.
    #[error("there is no level")]
    Empty,
}

impl Thresholds {
    /// Levels in any order. A level is left only below `above - hysteresis`, and only after `clear_after`.
    pub fn new(mut levels: Vec<Level>, hysteresis: f64, clear_after: Duration) -> Result<Self, ThresholdsError> {
        levels.sort_by_key(|level| level.severity);
        if levels.is_empty() {
            return Err(ThresholdsError::Empty);
        }
        if let Some(pair) =
            levels.windows(2).find(|pair| pair[0].severity == pair[1].severity || pair[0].above >= pair[1].above)
        {
            return Err(ThresholdsError::Order { severity: pair[1].severity, above: pair[1].above });
        }
        Ok(Self { levels, hysteresis, clear_after })
    }

    /// For what is so or is not so (1 or 0).
    pub fn on_off(severity: Severity, after: Duration, clear_after: Duration) -> Self {
        Self { levels: vec![Level { severity, above: 1.0, after }], hysteresis: 0.0, clear_after }
    }

    /// The severity of `value` without hysteresis and debounce.
    pub fn level(&self, value: f64) -> Option<Severity> {
        self.levels.iter().rev().find(|level| value >= level.above).map(|level| level.severity)
    }

    /// From which value on `severity` holds, or the next more severe one if there is no such level any more.
    pub fn begins(&self, severity: Severity) -> Option<f64> {
        let level = self.levels.iter().find(|level| level.severity >= severity).or(self.levels.last());
        level.map(|level| level.above)
    }
}

/// What is under way, by subject.
#[derive(Debug, Default)]
pub(super) struct Gates {
    passing: HashMap<Subject, Passing>,
    looked_at: HashMap<Subject, Passing>,
    again_in: Option<Duration>,
}

/// Since when a value has been where it is.
#[derive(Debug, Clone, Default)]
struct Passing {
    /// Since when it is at or above each level.
    above_since: [Option<Duration>; LEVELS_MAX],
    /// Since when it is below what stands raised.
    below_since: Option<Duration>,
}

impl Gates {
    /// The severity that holds for `subject`, whose value is `value` at `now`.
    pub(super) fn judge(
        &mut self,
        now: Duration,
        thresholds: &Thresholds,
        subject: &Subject,
        value: f64,
        told: &Told,
    ) -> Option<Severity> {
        let stands = told.severity(subject);
        let mut passing = self.passing.remove(subject).or_else(|| self.looked_at.remove(subject)).unwrap_or_default();
        let mut reached = None;
        // Levels may have been configured anew since: as long as the value is at one of them, what stands is not over, and a
        // more severe one that is under way takes its place when its time is over.
        let mut is_held = thresholds.levels.first().is_some_and(|lowest| {
            stands.is_some_and(|stands| lowest.severity > stands) && value >= lowest.above - thresholds.hysteresis
        });
        for (level, since) in thresholds.levels.iter().zip(&mut passing.above_since) {
            let is_told = stands.is_some_and(|stands| level.severity <= stands);
            let from = if is_told { level.above - thresholds.hysteresis } else { level.above };
            if value < from {
                *since = None;
                continue;
            }
            let begun = *since.get_or_insert(now);
            let remaining = level.after.saturating_sub(now.saturating_sub(begun));
            if is_told || remaining.is_zero() {
                reached = Some(level.severity);
            } else {
                is_held = true;
                self.come_again(remaining);
            }
        }
        if is_held {
            reached = reached.max(stands);
        }
        let holds = if reached < stands {
            let begun = *passing.below_since.get_or_insert(now);
            let remaining = thresholds.clear_after.saturating_sub(now.saturating_sub(begun));
            if remaining.is_zero() {
                reached
            } else {
                self.come_again(remaining);
                stands
            }
        } else {
            passing.below_since = None;
            reached
        };
        self.looked_at.insert(subject.clone(), passing);
        holds
    }

    /// Ends a look: what was not looked at is forgotten. Returns after how long a debounce ends, if one is under way.
    pub(super) fn finish(&mut self) -> Option<Duration> {
        self.passing = std::mem::take(&mut self.looked_at);
        self.again_in.take()
    }

    fn come_again(&mut self, wait: Duration) {
        self.again_in = Some(self.again_in.map_or(wait, |sooner| sooner.min(wait)));
    }
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::resource::Resource;

    use super::*;

    const MAJOR: Option<Severity> = Some(Severity::Major);
    const CRITICAL: Option<Severity> = Some(Severity::Critical);

    /// Plays values at times, and says what holds after each.
    fn play(thresholds: &Thresholds, values: &[(u64, f64)]) -> Vec<Option<Severity>> {
        replay(thresholds, None, values)
    }

    /// The same where something stands raised already.
    fn replay(thresholds: &Thresholds, stands: Option<Severity>, values: &[(u64, f64)]) -> Vec<Option<Severity>> {
        let subject = Subject::new(Resource::new("host=a").expect("is one"), "cpu.high");
        let told = stands.map(|severity| (subject.clone(), severity)).into_iter().collect();
        let (mut gates, mut told) = (Gates::default(), Told(told));
        let mut held = Vec::new();
        for (at, value) in values {
            let holds = gates.judge(Duration::from_secs(*at), thresholds, &subject, *value, &told);
            gates.finish();
            match holds {
                Some(severity) => told.0.insert(subject.clone(), severity),
                None => told.0.remove(&subject),
            };
            held.push(holds);
        }
        held
    }

    fn cpu() -> Thresholds {
        let level = |severity, above, after| Level { severity, above, after: Duration::from_secs(after) };
        let levels = vec![level(Severity::Critical, 95.0, 60), level(Severity::Major, 90.0, 180)];
        Thresholds::new(levels, 2.0, Duration::from_secs(60)).expect("in order")
    }

    #[test]
    fn a_level_must_hold_for_its_time_and_each_has_its_own() {
        assert_eq!(play(&cpu(), &[(0, 91.0), (90, 91.0), (179, 91.0), (180, 91.0)]), [None, None, None, MAJOR]);
        assert_eq!(play(&cpu(), &[(0, 91.0), (90, 89.0), (180, 91.0), (359, 91.0), (360, 91.0)])[2..], [None, None, MAJOR]);
        assert_eq!(play(&cpu(), &[(0, 99.0), (60, 99.0)]), [None, CRITICAL]);
        assert_eq!(
            play(&cpu(), &[(0, 91.0), (180, 91.0), (190, 96.0), (249, 96.0), (250, 96.0)])[1..],
            [MAJOR, MAJOR, MAJOR, CRITICAL]
        );
    }

    #[test]
    fn what_is_raised_ends_below_the_hysteresis_and_after_its_time() {
        let raised = [(0, 99.0), (60, 99.0)];
        let after = |values: &[(u64, f64)]| play(&cpu(), &[&raised, values].concat())[2..].to_vec();
        assert_eq!(after(&[(70, 94.0), (500, 93.0)]), [CRITICAL, CRITICAL], "within the hysteresis");
        assert_eq!(after(&[(70, 92.0), (129, 92.0), (130, 92.0)]), [CRITICAL, CRITICAL, MAJOR]);
        assert_eq!(
            after(&[(70, 10.0), (100, 99.0), (130, 10.0), (189, 10.0), (190, 10.0)]),
            [CRITICAL, CRITICAL, CRITICAL, CRITICAL, None]
        );
    }

    #[test]
    fn what_holds_is_not_cleared_because_levels_were_configured_anew() {
        // A severity made worse, as that of failed units.
        let unit = Thresholds::on_off(Severity::Critical, Duration::from_secs(60), Duration::ZERO);
        assert_eq!(replay(&unit, MAJOR, &[(0, 1.0), (59, 1.0), (60, 1.0)]), [MAJOR, MAJOR, CRITICAL]);
        assert_eq!(replay(&unit, MAJOR, &[(0, 1.0), (59, 0.0)]), [MAJOR, None], "it is over");
        let milder = Thresholds::on_off(Severity::Major, Duration::from_secs(60), Duration::ZERO);
        assert_eq!(replay(&milder, CRITICAL, &[(0, 1.0)]), [MAJOR]);
        // The only level that stood is gone or was moved.
        let minor = Some(Severity::Minor);
        assert_eq!(replay(&cpu(), minor, &[(0, 91.0), (60, 89.0), (179, 91.0)]), [minor; 3]);
        assert_eq!(replay(&cpu(), minor, &[(0, 91.0), (180, 91.0)]), [minor, MAJOR]);
        assert_eq!(replay(&cpu(), minor, &[(0, 87.0), (60, 87.0)]), [minor, None], "below all levels that there are now");
        let level = |severity, above, after| Level { severity, above, after: Duration::from_secs(after) };
        let levels = vec![level(Severity::Warning, 70.0, 180), level(Severity::Critical, 80.0, 180)];
        let without_major = Thresholds::new(levels, 2.0, Duration::from_secs(60)).expect("in order");
        assert_eq!(replay(&without_major, MAJOR, &[(0, 85.0), (100, 85.0), (180, 85.0)]), [MAJOR, MAJOR, CRITICAL]);
        assert_eq!(without_major.begins(Severity::Major), Some(80.0));
    }

    #[test]
    fn a_value_that_is_judged_twice_in_a_look_keeps_its_time() {
        let subject = Subject::new(Resource::new("host=a").expect("is one"), "cpu.high");
        let mut gates = Gates::default();
        let mut judge = |at| {
            for _ in 0..2 {
                gates.judge(Duration::from_secs(at), &cpu(), &subject, 99.0, &Told::default());
            }
            gates.finish()
        };
        assert_eq!([judge(5), judge(35)], [60, 30].map(|left| Some(Duration::from_secs(left))));
    }

    #[test]
    fn the_end_of_a_debounce_is_known_beforehand() {
        let subject = Subject::new(Resource::new("host=a").expect("is one"), "cpu.high");
        let mut gates = Gates::default();
        gates.judge(Duration::from_secs(5), &cpu(), &subject, 99.0, &Told::default());
        assert_eq!(gates.finish(), Some(Duration::from_secs(60)));
        gates.judge(Duration::from_secs(35), &cpu(), &subject, 99.0, &Told::default());
        assert_eq!(gates.finish(), Some(Duration::from_secs(30)));
        assert_eq!(gates.finish(), None);
    }

    #[test]
    fn levels_rise_with_their_severity() {
        let level = |severity, above| Level { severity, above, after: Duration::ZERO };
        let wrong = Thresholds::new(vec![level(Severity::Major, 90.0), level(Severity::Critical, 90.0)], 0.0, Duration::ZERO);
        assert!(matches!(wrong, Err(ThresholdsError::Order { severity: Severity::Critical, .. })));
        assert_eq!(Thresholds::new(Vec::new(), 0.0, Duration::ZERO), Err(ThresholdsError::Empty));
    }
}

//! The node's time: journal time runs by CLOCK_BOOTTIME, the wall clock stands beside it, and where the two part the clock
//! was set.

use std::time::{Duration, SystemTime};

use klaxon_schemas::entry::Boot;
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::{JournalTime, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The wall clock was set if it moved by more than this against CLOCK_BOOTTIME between two looks.
const STEP_MIN_US: i64 = 1_000_000;
/// Where the kernel names the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A look at both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Journal time: never less than that of an earlier reading.
    pub at: JournalTime,
    /// What the wall clock says.
    pub wall: Timestamp,
}

/// Makes journal time.
#[derive(Debug)]
pub struct Clock {
    /// Journal time less CLOCK_BOOTTIME, which is constant while the process lives.
    ahead_us: u64,
    /// The wall clock less journal time, at the last reading.
    offset_us: i64,
    /// By how much the wall clock was set, until somebody asks.
    stepped_us: i64,
}

impl Clock {
    /// Goes on from where the journal ended. Within the same boot the time since is known from CLOCK_BOOTTIME; else the wall
    /// clock must be believed, but never backwards.
    pub fn resume(cursor: &Cursor) -> Self {
        let elapsed_us = boottime_us();
        let wall = wall();
        let here = boot_id();
        let now = match &cursor.boot {
            Some(boot) if here.as_ref() == Some(&boot.id) && elapsed_us >= boot.elapsed_us => {
                JournalTime(cursor.started_at.0.saturating_add(elapsed_us - boot.elapsed_us))
            }
            _ if *cursor == Cursor::default() => JournalTime(u64::try_from(wall.as_micros()).unwrap_or(0)),
            _ => cursor.at.saturating_add_micros(wall.micros_since(cursor.wall).max(0)),
        };
        let now = now.max(cursor.at).max(JournalTime(elapsed_us));
        Self { ahead_us: now.0 - elapsed_us, offset_us: offset(wall, now), stepped_us: 0 }
    }

    /// The boot, at this moment.
    pub fn boot(&self) -> Option<Boot> {
        boot_id().map(|id| Boot { id, elapsed_us: boottime_us() })
    }

    /// Looks at both clocks.
    pub fn read(&mut self) -> Reading {
        let at = JournalTime(self.ahead_us.saturating_add(boottime_us()));
        let wall = wall();
        let offset_us = offset(wall, at);
        let moved_us = offset_us.saturating_sub(std::mem::replace(&mut self.offset_us, offset_us));
        // A clock that is slewed moves little between two readings, and much over the days.
        if moved_us.saturating_abs() > STEP_MIN_US {
            self.stepped_us = self.stepped_us.saturating_add(moved_us);
        }
        Reading { at, wall }
    }

    /// By how many microseconds the wall clock was set since this was asked last, as far as readings have noticed.
    pub fn take_step(&mut self) -> Option<i64> {
        let stepped_us = std::mem::take(&mut self.stepped_us);
        (stepped_us != 0).then_some(stepped_us)
    }
}

fn offset(wall: Timestamp, at: JournalTime) -> i64 {
    wall.as_micros().saturating_sub(i64::try_from(at.0).unwrap_or(i64::MAX))
}

fn boottime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string(BOOT_ID).ok()?;
    let id = id.trim();
    (!id.is_empty() && id.len() <= 64).then(|| id.to_owned())
}

/// What the wall clock says, held to what can be written.
pub(crate) fn wall() -> Timestamp {
    let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    };
    Timestamp::default().saturating_add_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_time_goes_on_where_it_ended_and_never_back() {
        let first = Clock::resume(&Cursor::default()).read();
        let far = JournalTime(first.at.0 + 10_000_000);
        let reading = Clock::resume(&Cursor { at: far, wall: first.wall, ..Cursor::default() }).read();
        assert!(reading.at >= far);
    }

    #[test]
    fn a_wall_clock_that_was_set_while_the_node_was_down_does_not_count_within_a_boot() {
        let mut clock = Clock::resume(&Cursor::default());
        let reading = clock.read();
        let years_ago = reading.wall.saturating_add_micros(-10 * 366 * 24 * 3_600_000_000);
        let cursor =
            Cursor { at: reading.at, started_at: reading.at, wall: years_ago, boot: clock.boot(), ..Cursor::default() };
        let resumed = Clock::resume(&cursor).read();
        assert!(resumed.at.since(reading.at) < Duration::from_secs(3600), "ten years passed");
        let elsewhere = Cursor { boot: None, ..cursor };
        let resumed = Clock::resume(&elsewhere).read();
        assert!(resumed.at.since(reading.at) > Duration::from_secs(3600), "the wall clock is all there is after a reboot");
    }
}

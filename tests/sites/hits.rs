//! What random schedules hit.

/// What a run hit: one in which nothing went wrong shows nothing.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    pub(crate) reports: u64,
    pub(crate) cuts: u64,
    pub(crate) torn: u64,
    pub(crate) doubled: u64,
    pub(crate) lost: u64,
    pub(crate) crashes: u64,
    pub(crate) restores: u64,
    pub(crate) centre_restores: u64,
    pub(crate) new_epochs: u64,
    pub(crate) caught_up: u64,
    pub(crate) past_changes: u64,
    pub(crate) past_episodes: u64,
    pub(crate) lost_records: u64,
    pub(crate) missing_steps: u64,
    pub(crate) realigned: u64,
    pub(crate) silences: u64,
    pub(crate) acknowledged: u64,
    pub(crate) twice: u64,
    pub(crate) full_sites: u64,
    pub(crate) full_centres: u64,
    pub(crate) refused: u64,
    pub(crate) clock_forward: u64,
    pub(crate) clock_back: u64,
    pub(crate) centre_clock: u64,
    pub(crate) after_restore: u64,
}

impl std::ops::AddAssign for Hits {
    fn add_assign(&mut self, other: Self) {
        let mine = [
            &mut self.reports,
            &mut self.cuts,
            &mut self.torn,
            &mut self.doubled,
            &mut self.lost,
            &mut self.crashes,
            &mut self.restores,
            &mut self.centre_restores,
            &mut self.new_epochs,
            &mut self.caught_up,
            &mut self.past_changes,
            &mut self.past_episodes,
            &mut self.lost_records,
            &mut self.missing_steps,
            &mut self.realigned,
            &mut self.silences,
            &mut self.acknowledged,
            &mut self.twice,
            &mut self.full_sites,
            &mut self.full_centres,
            &mut self.refused,
            &mut self.clock_forward,
            &mut self.clock_back,
            &mut self.centre_clock,
            &mut self.after_restore,
        ];
        let theirs = [
            other.reports,
            other.cuts,
            other.torn,
            other.doubled,
            other.lost,
            other.crashes,
            other.restores,
            other.centre_restores,
            other.new_epochs,
            other.caught_up,
            other.past_changes,
            other.past_episodes,
            other.lost_records,
            other.missing_steps,
            other.realigned,
            other.silences,
            other.acknowledged,
            other.twice,
            other.full_sites,
            other.full_centres,
            other.refused,
            other.clock_forward,
            other.clock_back,
            other.centre_clock,
            other.after_restore,
        ];
        for (mine, theirs) in mine.into_iter().zip(theirs) {
            *mine += theirs;
        }
    }
}

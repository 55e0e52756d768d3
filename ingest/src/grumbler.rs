//! Of what comes from outside and cannot be used, one line in a while is enough.

use std::time::{Duration, Instant};

/// One is told of in this time.
const GRUMBLE_EVERY: Duration = Duration::from_secs(60);

/// Says when to tell.
#[derive(Debug, Default)]
pub(crate) struct Grumbler {
    last: Option<Instant>,
    others: u64,
}

impl Grumbler {
    /// Something cannot be used. If it is time to tell: how many others there were meanwhile.
    pub(crate) fn hear(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < GRUMBLE_EVERY) {
            self.others += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_of_and_the_others_are_counted() {
        let mut grumbler = Grumbler::default();
        assert_eq!([grumbler.hear(), grumbler.hear(), grumbler.hear()], [Some(0), None, None]);
        grumbler.last = None;
        assert_eq!(grumbler.hear(), Some(2));
    }
}

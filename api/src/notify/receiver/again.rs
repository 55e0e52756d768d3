//! Sending again what was confirmed, because somebody asked for it.

use super::{Command, Parcel, Receiver, ResendError, restore, wall};

/// How many notifications are read again at a time.
const RESEND_STEP: usize = 128;

impl Receiver {
    pub(super) fn obey(&mut self, command: Command) {
        let Command::Resend { from, answer } = command;
        let outcome = self.resend(from);
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
    }

    fn resend(&mut self, from: u64) -> Result<u64, ResendError> {
        let last = self.ledger.assigned;
        if from > last {
            return Err(ResendError::Ahead { from, last });
        }
        let oldest = self.ledger.oldest().unwrap_or(last + 1);
        if from < oldest {
            return Err(ResendError::TooOld { from, oldest });
        }
        let settled = (from..=last).filter(|number| self.ledger.is_settled(*number)).count();
        self.again = Some((self.again.map_or(from, |(next, _)| next.min(from)), last));
        self.read_on_again();
        Ok(settled as u64)
    }

    /// Reads the next of what is to be sent again.
    pub(super) fn read_on_again(&mut self) {
        let Some((next, last)) = self.again else { return };
        if self.reading_again.is_some() || self.queue.waiting() > self.ahead {
            return;
        }
        let until = last.min(next + RESEND_STEP as u64 - 1);
        let settled = (next..=until).filter(|number| self.ledger.is_settled(*number));
        let entries: Vec<_> = settled.filter_map(|number| Some((number, self.ledger.entry(number)?.clone()))).collect();
        self.again = (until < last).then_some((until + 1, last));
        let (store, now) = (self.store.clone(), wall());
        self.reading_again = Some(tokio::task::spawn_blocking(move || {
            let parcels = entries.into_iter().map(|(number, entry)| Parcel::new(number, restore(&store, &entry, now), true));
            parcels.collect()
        }));
    }

    pub(super) fn read_again(&mut self, parcels: Result<Vec<Parcel>, tokio::task::JoinError>) {
        match parcels {
            Ok(mut parcels) => {
                if let Some(groups) = &self.groups {
                    parcels.iter_mut().for_each(|parcel| parcel.group = groups.key(&parcel.what));
                }
                self.queue.push_resent(parcels);
            }
            Err(error) => tracing::error!(receiver = %self.config.name, %error, "what is to be sent again cannot be read"),
        }
        self.read_on_again();
    }
}

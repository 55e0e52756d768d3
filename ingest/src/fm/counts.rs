//! What the door counts beside what every door does.

use std::sync::atomic::{AtomicU64, Ordering};

use super::wire::Action;
use crate::metric::Metric;

/// Why a connection is ended by us: the values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// A packet did not come whole in time.
    HalfPacket,
    /// An answer was not taken in time.
    Unread,
    /// A packet is longer than any may be.
    TooLong,
    /// Another one came, there are as many as there may be, and it was quiet for the longest time.
    Idle,
}

impl Cut {
    const ALL: [(Self, &'static str); 4] = [
        (Self::HalfPacket, "half_packet"),
        (Self::Unread, "unread_answer"),
        (Self::TooLong, "too_long"),
        (Self::Idle, "longest_idle"),
    ];
}

/// Since the start.
#[derive(Debug, Default)]
pub struct FmCounts {
    /// By [`Action::ALL`], and behind them what is none.
    requests: [AtomicU64; 10],
    refused: AtomicU64,
    connections: AtomicU64,
    cut: [AtomicU64; 4],
}

impl FmCounts {
    /// A request came; none that is understood, if it has no action.
    pub(super) fn request(&self, action: Option<Action>) {
        let place = Action::ALL.iter().position(|known| Some(*known) == action).unwrap_or(Action::ALL.len());
        self.requests[place].fetch_add(1, Ordering::Relaxed);
    }

    /// One was answered with a code.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection begins; it is counted until this is dropped.
    pub(super) fn connect(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self)
    }

    /// A connection is ended.
    pub(super) fn cut(&self, why: Cut) {
        self.cut[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them; the samples of one metric stand together.
    pub fn rows(&self) -> Vec<Metric> {
        let row = |name, help, is_counter, label, value: &AtomicU64| Metric {
            name,
            help,
            is_counter,
            label,
            value: value.load(Ordering::Relaxed),
        };
        let words = Action::ALL.iter().map(|action| action.as_str()).chain(std::iter::once("none"));
        let requests = words.zip(&self.requests).map(|(word, count)| {
            let help = "Requests of StarlingX's programs, by action; none is what is not understood.";
            row("klaxon_fm_requests_total", help, true, Some(("action", word)), count)
        });
        let cut = Cut::ALL.iter().zip(&self.cut).map(|((_, word), count)| {
            let help = "Connections of StarlingX's programs that were ended here.";
            row("klaxon_fm_connections_cut_total", help, true, Some(("reason", *word)), count)
        });
        let mut rows: Vec<Metric> = requests.collect();
        let refused = "Requests of StarlingX's programs that were answered with another code than 0.";
        rows.push(row("klaxon_fm_requests_refused_total", refused, true, None, &self.refused));
        let connections = "Connections of StarlingX's programs that are open.";
        rows.push(row("klaxon_fm_connections", connections, false, None, &self.connections));
        rows.extend(cut);
        rows
    }
}

/// A connection that is counted.
pub(super) struct Connected<'a>(&'a FmCounts);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

//! The writer's handle.
use klaxon_schemas::ids::Position;
use crate::frame::Frame;

/// The one who appends. It belongs to the loop that applies the engine, and blocks.
pub struct Writer(());

/// Proof that a frame is on the disk. Only the journal makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    position: Position,
}

impl Durable {
    /// The last record of the frame.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// Why a frame was not appended. Nothing of it is in the journal.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk, a quota or a limit is full; the append was taken back.
    #[error("the disk has no room for {bytes} bytes of the journal")]
    Full {
        /// How large the frame is.
        bytes: u64,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A frame before it failed, so this one was not tried.
    #[error("a frame before this one could not be appended")]
    Dropped,
    /// More than a frame may hold.
    #[error("the frame is {bytes} bytes long, at most {bytes_max} are allowed")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },
}

/// Where things stand after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// The last committed record: the engine is to be loaded from the state at this position.
    pub committed: Position,
    /// Where the next frame begins.
    pub next_position: Position,
}

/// Whether there is room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Ok,
    /// Free space is below the watermark: refuse intake.
    Low {
        /// How much is free.
        free_bytes: u64,
        /// How much should be.
        watermark_bytes: u64,
    },
}

/// Why a store did not close cleanly. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The view could not be brought up to date; it is caught up at the next start.
    #[error("cannot bring the view up to date: {0}")]
    View(String),
    /// The high-water mark could not be written.
    #[error("cannot write the high-water mark")]
    HighWater(#[source] std::io::Error),
}

impl Writer {
    /// The position of the first record of the next frame. Ask anew before each frame: carrying state forward takes positions.
    pub fn next_position(&self) -> Position {
        unimplemented!()
    }
    /// Hands `frame` to the writer thread; blocks while as many frames as may be are in flight. `done` is run on that thread
    /// after the frame is synced, the state published and the watchers woken. Frames are committed in order.
    pub fn submit(&mut self, _frame: Frame, _done: impl FnOnce(Result<Durable, AppendError>) + Send + 'static) {
        unimplemented!()
    }
    /// Waits until nothing is in flight.
    pub fn drain(&mut self) {
        unimplemented!()
    }
    /// After an [`AppendError`]: waits until the pipeline is empty and goes on at the committed end. The engine must be loaded
    /// anew from the committed state.
    pub fn recover(&mut self) -> Recovered {
        unimplemented!()
    }
    /// Does what retention asks of the writer, a bounded piece at a time. To be called when idle, about once a second.
    pub fn maintain(&mut self) {
        unimplemented!()
    }
    /// Whether free space is above the watermark; cheap.
    pub fn room(&self) -> Room {
        unimplemented!()
    }
    /// Finishes what is in flight, brings the view up to date and lets the folder go.
    pub fn close(self) -> Result<(), CloseError> {
        unimplemented!()
    }
}

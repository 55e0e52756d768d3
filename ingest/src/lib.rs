//! What detects and what receives: collectors that look at this machine, and receivers of what devices send.
//!
//! Each brings its reports in by a [`Door`](klaxon_store::door::Door) of its own and knows nothing of what becomes of them
//! beyond its answers. This crate must not know the engine, nor who is told.

pub mod collect;
pub mod fm;
mod grumbler;
pub mod metric;
pub mod own;
pub mod trap;

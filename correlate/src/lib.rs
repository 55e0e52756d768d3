//! The engine: pure, from entries to changes

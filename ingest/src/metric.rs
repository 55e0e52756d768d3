//! A metric as the parts of this crate tell it.

/// A metric: its name, what it says, whether it only grows, its label if it has one, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus has it.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it is a counter; else it is a gauge.
    pub is_counter: bool,
    /// The name of its label, and the label's value.
    pub label: Option<(&'static str, &'static str)>,
    /// How much.
    pub value: u64,
}

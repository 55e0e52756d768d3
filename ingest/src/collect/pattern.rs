//! Patterns of names, as an operator writes them: `eth0`, `enp3s0f*`, `{ens1,ens2}`.

use globset::{Glob, GlobMatcher};

/// A pattern of names.
#[derive(Debug, Clone)]
pub struct Pattern(GlobMatcher);

/// What is written is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern")]
pub struct PatternError(#[from] globset::Error);

impl Pattern {
    /// Reads a pattern: `*`, `?`, `[…]` and `{…,…}` stand for more than themselves.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Ok(Self(Glob::new(text)?.compile_matcher()))
    }

    /// Whether `name` is one that is meant.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    /// The name, if the pattern can mean only one.
    pub fn only(&self) -> Option<&str> {
        let text = self.0.glob().glob();
        (!text.contains(['*', '?', '[', ']', '{', '}', '\\'])).then_some(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_signs_means_one_name() {
        let pattern = |text| Pattern::new(text).expect("is one");
        assert_eq!(pattern("eth0.7").only(), Some("eth0.7"));
        assert!(pattern("eth0.7").matches("eth0.7") && !pattern("eth0.7").matches("eth0x7"));
        for (text, meant, not_meant) in
            [("eth*", "eth12", "ens1"), ("eth?", "eth1", "eth12"), ("{a,b}", "b", "c"), ("e[0-3]", "e2", "e4")]
        {
            assert_eq!(pattern(text).only(), None, "{text}");
            assert!(pattern(text).matches(meant) && !pattern(text).matches(not_meant), "{text}");
        }
        assert!(Pattern::new("eth[").is_err());
    }
}

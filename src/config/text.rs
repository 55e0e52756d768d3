//! The text of a configuration file: why it is not used, and where in it what stands.

use std::path::PathBuf;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {}{reason}", path.display(), key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with its section, where one is at fault.
        key: Option<String>,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings together are wrong.
    #[error("{key}: {reason}")]
    Contradiction {
        /// The key with its section.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What serde says, in our words where its own would not help.
pub(super) fn reason(message: &str) -> String {
    match message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, known)) => format!("is no setting; {}", known.replace('`', "")),
        None => message.trim_end().replace('\n', " "),
    }
}

/// The line, from 1, of a place in the text.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The key that stands on a line, with the section above it.
pub(super) fn key_at(text: &str, line: usize) -> Option<String> {
    let mut section = "";
    for (index, content) in text.lines().enumerate() {
        let content = content.trim();
        if let Some(name) = section_name(content) {
            section = name;
        }
        if index + 1 == line {
            return match content.split_once('=') {
                Some((key, _)) if section.is_empty() => Some(key.trim().to_owned()),
                Some((key, _)) => Some(format!("{section}.{}", key.trim())),
                None => section_name(content).map(str::to_owned),
            };
        }
    }
    None
}

/// The line on which a key with its section is set.
pub(super) fn line_of_key(text: &str, key: &str) -> Option<usize> {
    (1..=text.lines().count()).find(|line| key_at(text, *line).as_deref() == Some(key))
}

fn section_name(line: &str) -> Option<&str> {
    Some(line.strip_prefix('[')?.trim_start_matches('[').split(']').next()?.trim())
}

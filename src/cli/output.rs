//! The one way out: standard output for what was asked for, standard error for what went wrong. A reader that went away ends
//! the program quietly.

use std::io::{self, IsTerminal as _, Write};

use klaxon_schemas::severity::Severity;

/// The width of what is not a terminal, unless `COLUMNS` says another.
const WIDTH_DEFAULT: usize = 120;
/// The narrowest output that is laid out.
const WIDTH_MIN: usize = 40;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum ColorChoice {
    // On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    Always,
    Never,
}

/// Where and how a command writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// The machine's form is wanted.
    pub(super) json: bool,
    color: bool,
    width: Option<usize>,
}

/// What a text is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    /// As it is.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Of less interest.
    Dim,
    /// An alarm of this severity.
    Severity(Severity),
    /// Something that is over.
    Good,
}

impl Output {
    /// As the flags and the surroundings say.
    pub(super) fn new(json: bool, choice: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let color = match choice {
            ColorChoice::Auto => terminal && !no_color && !dumb,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let measured = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        // What goes into a pipe is not cut: somebody may search in it.
        let width = if terminal { Some(measured.or(columns).unwrap_or(WIDTH_DEFAULT).max(WIDTH_MIN)) } else { columns };
        Self { json, color, width }
    }

    /// How many columns there are; absent if lines may be of any length.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes a line.
    pub(super) fn line(&self, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Writes text as it is, and ends its last line.
    pub(super) fn text(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Writes a value for machines: indented for people who look, one line a value otherwise.
    pub(super) fn json(&self, value: &serde_json::Value) -> io::Result<()> {
        let text = if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
        self.line(&text)
    }

    /// The text with its colour.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            _ if !self.color || text.is_empty() => return text.to_owned(),
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Severity(Severity::Critical) => "1;31",
            Style::Severity(Severity::Major) => "31",
            Style::Severity(Severity::Minor) => "33",
            Style::Severity(Severity::Warning) => "36",
            Style::Severity(Severity::Indeterminate) => "35",
            Style::Good => "32",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    #[cfg(test)]
    pub(super) fn plain(width: usize) -> Self {
        Self { json: false, color: false, width: Some(width) }
    }
}

/// Writes a line to standard error: what went wrong, or a remark that is not what was asked for.
pub(super) fn remark(line: &str) {
    // If standard error is gone too, there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The text with its control characters made visible: what came from the network must not drive a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

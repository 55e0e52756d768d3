//! Matchers pick alarms by their labels, as Alertmanager's do: `=`, `!=`, `=~`, `!~`. A label that is not there is one without a value.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::LabelSet;

/// The most matchers that stand together.
pub const LABEL_MATCHERS_MAX: usize = 32;
/// The most bytes in the name of a matcher.
const NAME_BYTES_MAX: usize = 256;
/// The most bytes in its value.
const VALUE_BYTES_MAX: usize = 1024;
/// The most bytes that a regular expression takes when it is compiled.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum MatchOp {
    /// Is the value.
    #[serde(rename = "=")]
    Is,
    /// Is anything else.
    #[serde(rename = "!=")]
    IsNot,
    /// The regular expression matches all of it.
    #[serde(rename = "=~")]
    Matches,
    /// It does not.
    #[serde(rename = "!~")]
    MatchesNot,
}

impl MatchOp {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Is => "=",
            Self::IsNot => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }

    /// Whether what matches is picked.
    pub fn is_equal(self) -> bool {
        matches!(self, Self::Is | Self::Matches)
    }

    /// Whether it compares with a regular expression.
    pub fn is_regex(self) -> bool {
        matches!(self, Self::Matches | Self::MatchesNot)
    }
}

/// One condition on one label. A regular expression is compiled when the matcher is made, and matches from end to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "MatcherForm", into = "MatcherForm")]
pub struct LabelMatcher {
    name: String,
    op: MatchOp,
    value: String,
    regex: Option<Regex>,
}

/// A matcher as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LabelMatcher)]
pub struct MatcherForm {
    /// The name of the label.
    #[schema(max_length = 256)]
    pub name: String,
    /// How it is compared.
    #[schema(inline)]
    pub op: MatchOp,
    /// With what; for `=~` and `!~` a regular expression that must match all of the label's value.
    #[schema(max_length = 1024)]
    pub value: String,
}

/// Why something is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// It names no label.
    #[error("names no label")]
    NoName,
    /// Its name or value is too long.
    #[error("has a {part} of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Which.
        part: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// Its regular expression is none, or too large.
    #[error("has no usable regular expression: {reason}")]
    Regex {
        /// Why.
        reason: String,
    },
    /// It is not written as `name="value"`.
    #[error("is not of the form name=\"value\", with =, !=, =~ or !~")]
    Form,
}

impl PartialEq for LabelMatcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for LabelMatcher {}

impl LabelMatcher {
    /// The label `name`, compared by `op` with `value`.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, MatcherError> {
        let too_long = |part, text: &str, bytes_max| MatcherError::TooLong { part, bytes: text.len(), bytes_max };
        if name.is_empty() {
            return Err(MatcherError::NoName);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(too_long("name", name, NAME_BYTES_MAX));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(too_long("value", value, VALUE_BYTES_MAX));
        }
        let regex = op.is_regex().then(|| compile(value)).transpose()?;
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), regex })
    }

    /// The label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is compared.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// With what.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it picks what has these labels.
    pub fn picks(&self, labels: &LabelSet<'_>) -> bool {
        self.takes(labels.get(&self.name))
    }

    /// Whether it picks an alarm of `site` that has these labels: one that came without a label `site` is of its own site all the same.
    pub fn picks_at(&self, labels: &LabelSet<'_>, site: &str) -> bool {
        let value = labels.get(&self.name);
        self.takes(if value.is_empty() && self.name == SITE { site } else { value })
    }

    /// Whether it takes this value of its label.
    pub fn takes(&self, value: &str) -> bool {
        let matches = self.regex.as_ref().map_or_else(|| self.value == value, |regex| regex.is_match(value));
        matches == self.op.is_equal()
    }
}

/// The label that says whose an alarm is.
const SITE: &str = "site";

/// Whether some matcher wants a label to be there: without one, everything might be picked.
pub fn is_enough(matchers: &[LabelMatcher]) -> bool {
    matchers.iter().any(|matcher| !matcher.takes(""))
}

fn compile(pattern: &str) -> Result<Regex, MatcherError> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    // By itself first, so that no bracket of it closes ours.
    build(pattern).and_then(|_| build(&format!("^(?:{pattern})$"))).map_err(|error| {
        let words = error.to_string();
        let reason = words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        MatcherError::Regex { reason }
    })
}

impl TryFrom<MatcherForm> for LabelMatcher {
    type Error = MatcherError;

    fn try_from(form: MatcherForm) -> Result<Self, MatcherError> {
        Self::new(&form.name, form.op, &form.value)
    }
}

impl From<LabelMatcher> for MatcherForm {
    fn from(matcher: LabelMatcher) -> Self {
        Self { name: matcher.name, op: matcher.op, value: matcher.value }
    }
}

impl utoipa::PartialSchema for LabelMatcher {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        MatcherForm::schema()
    }
}

impl ToSchema for LabelMatcher {}

/// As Alertmanager writes it: `name="value"`.
impl fmt::Display for LabelMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
        if self.name.chars().all(is_plain) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}

/// What [`unquote`] reads, with its quotes.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '\n' => f.write_str("\\n")?,
            '"' | '\\' => write!(f, "\\{character}")?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

/// `name="value"`; the quotes of the value may be left out, and those of the name where it has letters, digits, `_` and `:` only.
impl FromStr for LabelMatcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        let text = text.trim();
        let (name, rest) = match text.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = text.find(['=', '!']).ok_or(MatcherError::Form)?;
                (text[..end].trim_end().to_owned(), &text[end..])
            }
        };
        let rest = rest.trim_start();
        // The longer ones first: each begins like a shorter one.
        let ops = [MatchOp::Matches, MatchOp::MatchesNot, MatchOp::IsNot, MatchOp::Is];
        let read = ops.into_iter().find_map(|op| rest.strip_prefix(op.as_str()).map(|value| (op, value.trim())));
        let (op, value) = read.ok_or(MatcherError::Form)?;
        let value = match value.strip_prefix('"') {
            Some(quoted) => match unquote(quoted)? {
                (value, "") => value,
                _ => return Err(MatcherError::Form),
            },
            None if value.ends_with('"') => return Err(MatcherError::Form),
            None => value.to_owned(),
        };
        Self::new(&name, op, &value)
    }
}

/// What stands before the closing quote, and what behind it. Of escapes there are `\"`, `\\` and `\n`; another backslash is itself.
fn unquote(text: &str) -> Result<(String, &str), MatcherError> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => return Err(MatcherError::Form),
            },
            other => value.push(other),
        }
    }
    Err(MatcherError::Form)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn read(text: &str) -> Result<LabelMatcher, MatcherError> {
        text.parse()
    }

    #[test]
    fn matchers_pick_as_alertmanager_s_do() {
        let labels =
            LabelSet::new(vec![(Cow::Borrowed("job"), Cow::Borrowed("node")), (Cow::Borrowed("a"), Cow::Borrowed("x\ny"))]);
        for (matcher, picks) in [
            (r#"job="node""#, true),
            ("job=node", true),
            ("job=nod", false),
            ("job!=node", false),
            ("job!=x", true),
            ("job=~no", false),
            ("job=~n.*", true),
            ("job=~x|node", true),
            ("job=~n|xode", false),
            ("job!~n.*", false),
            ("job!~x", true),
            (r#"gone="""#, true),
            ("gone!=x", true),
            ("gone=~.+", false),
            ("gone=~.*", true),
            (r#"a="x\ny""#, true),
        ] {
            assert_eq!(read(matcher).expect(matcher).picks(&labels), picks, "{matcher}");
        }
    }

    #[test]
    fn matchers_are_read_and_written() {
        let spaced = read(r#"  foo =~ "b.r|\"q\"" "#).expect("is one");
        assert_eq!((spaced.name(), spaced.op(), spaced.value()), ("foo", MatchOp::Matches, "b.r|\"q\""));
        assert_eq!(read(&spaced.to_string()).expect("round-trips"), spaced);
        let wide = read(r#""a name"!="ü""#).expect("is one");
        assert_eq!((wide.name(), wide.value()), ("a name", "ü"));
        assert_eq!(read(&wide.to_string()).expect("round-trips"), wide);
        for form in ["", "foo", "=x", "\"foo", "foo=\"x", "foo=x\"", "foo=\"x\"y", "!", "foo!x"] {
            assert!(matches!(read(form), Err(MatcherError::Form | MatcherError::NoName)), "{form:?}");
        }
        for wrong in ["foo=~(", "foo=~a)|(b", "foo=~(\\w{1000}){1000}", "foo=~\\1"] {
            assert!(matches!(read(wrong), Err(MatcherError::Regex { .. })), "{wrong}: {:?}", read(wrong));
        }
        assert_eq!(
            read("foo=~)").map_err(|error| error.to_string()),
            Err("has no usable regular expression: unopened group".to_owned())
        );
        let long = format!("foo={}", "x".repeat(VALUE_BYTES_MAX + 1));
        assert!(matches!(read(&long), Err(MatcherError::TooLong { part: "value", .. })));
        let json = r#"{"name":"a","op":"!~","value":"x.*"}"#;
        let stored: LabelMatcher = serde_json::from_str(json).expect("reads");
        assert_eq!((serde_json::to_string(&stored).expect("writes").as_str(), stored.takes("xy")), (json, false));
    }

    #[test]
    fn one_matcher_must_want_something() {
        let enough = |texts: &[&str]| is_enough(&texts.iter().map(|text| read(text).expect("is one")).collect::<Vec<_>>());
        assert!(!enough(&[]) && !enough(&["a=~.*", "b!=x"]));
        assert!(enough(&["a=~.*", "b=x"]) && enough(&["a!=\"\""]));
    }

    #[test]
    fn an_alarm_without_a_label_site_is_of_its_site() {
        let labels = |pairs: &[(&str, &str)]| {
            LabelSet::new(pairs.iter().map(|(name, value)| ((*name).to_owned().into(), (*value).to_owned().into())).collect())
        };
        let is =
            |text: &str, pairs: &[(&str, &str)]| text.parse::<LabelMatcher>().expect(text).picks_at(&labels(pairs), "tower-1");
        assert!(is("site=\"tower-1\"", &[("a", "1")]) && !is("site=\"tower-2\"", &[("a", "1")]));
        assert!(is("site=\"north\"", &[("site", "north")]) && !is("site=\"tower-1\"", &[("site", "north")]));
        assert!(!is("team=\"tower-1\"", &[("a", "1")]));
    }
}

//! Query parameters, read strictly: what is unknown, given twice, badly encoded or out of bounds is refused by name, and all
//! that is wrong is said at once.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use klaxon_schemas::time::Timestamp;
use percent_encoding::percent_decode_str;

use super::body::WholeBody;
use super::problem::{FieldError, Kind, Problem, quoted};

/// The most parameters that are looked at.
const PARAMETERS_MAX: usize = 64;

/// The parameters of one request that nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

/// Query parameters that a handler takes, as a type of their own.
pub(crate) trait FromParams: Sized {
    /// Takes its own parameters out of `params`. What is wrong with them is noted there.
    fn take(params: &mut Params) -> Self;
}

/// The query of a request as a `T`; with all its parameters known and sound.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: FromParams, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut params = Params::of_query(parts.uri.query().unwrap_or_default())?;
        let value = T::take(&mut params);
        params.finish(Kind::InvalidParameter)?;
        Ok(Self(value))
    }
}

/// A handler that takes no parameters, and says so.
pub(crate) struct NoParams;

impl FromParams for NoParams {
    fn take(_: &mut Params) -> Self {
        Self
    }
}

impl Params {
    /// Those of a query string (`application/x-www-form-urlencoded`).
    pub(crate) fn of_query(query: &str) -> Result<Self, Problem> {
        let mut params = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if params.given.len() == PARAMETERS_MAX {
                let detail = format!("the query has more than {PARAMETERS_MAX} parameters");
                return Err(Problem::new(Kind::InvalidParameter, detail));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(name), decode(value)) {
                (Ok(name), Ok(value)) => params.given.push((name, value)),
                (Ok(name), Err(reason)) => return Err(Problem::of_field(Kind::InvalidParameter, &quoted(&name), reason)),
                (Err(reason), _) => return Err(Problem::of_field(Kind::InvalidParameter, &quoted(name), reason)),
            }
        }
        Ok(params)
    }

    /// Those of a JSON object that uses the same names; numbers, booleans and lists of texts as a person would write them.
    pub(crate) fn of_json(object: serde_json::Map<String, serde_json::Value>) -> Self {
        use serde_json::Value;
        let mut params = Self::default();
        for (name, value) in object {
            match value {
                Value::Null => {}
                Value::String(text) => params.given.push((name, text)),
                Value::Bool(_) | Value::Number(_) => params.given.push((name, value.to_string())),
                Value::Array(values) if values.is_empty() => {
                    params.errors.push(FieldError::new(quoted(&name), "is an empty list; leave it out, or name something"));
                    params.given.push((name, String::new()));
                }
                Value::Array(values) if values.iter().all(Value::is_string) => {
                    params.given.extend(values.iter().filter_map(Value::as_str).map(|text| (name.clone(), text.to_owned())));
                }
                Value::Array(_) | Value::Object(_) => {
                    params.errors.push(FieldError::new(quoted(&name), "is no text, number or boolean"));
                    params.given.push((name, String::new()));
                }
            }
        }
        params
    }

    /// Those of a body that is such an object, of at most `bytes_max`.
    pub(crate) fn of_body(body: &WholeBody, bytes_max: usize) -> Result<Self, Problem> {
        let text = body.json()?;
        if text.len() > bytes_max {
            return Err(Problem::new(Kind::TooLarge, format!("such a body has at most {bytes_max} bytes")));
        }
        match serde_json::from_str(text) {
            Ok(serde_json::Value::Object(members)) => Ok(Self::of_json(members)),
            Ok(_) => Err(Problem::new(Kind::InvalidBody, "the body is no JSON object")),
            Err(error) => Err(Problem::new(Kind::MalformedBody, format!("the body is no JSON: {error}"))),
        }
    }

    /// The parameter `name`, if it was given.
    pub(crate) fn one<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        self.read(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// The parameter `name`, read by `parse`, which says what is wrong.
    pub(crate) fn read<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let mut values = self.many(name, parse);
        if values.len() > 1 {
            self.errors.push(FieldError::new(name, "is given more than once"));
        }
        values.pop()
    }

    /// The parameter `name`, as often as it was given.
    pub(crate) fn many<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.known.push(name);
        let mut values = Vec::new();
        let errors = &mut self.errors;
        self.given.retain(|(given, text)| {
            if given != name {
                return true;
            }
            match parse(text) {
                Ok(value) => values.push(value),
                Err(reason) => errors.push(FieldError::new(name, reason)),
            }
            false
        });
        values
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, name: &'static str, words: &'static [(&'static str, T)]) -> Option<T> {
        self.read(name, |text| word(text, words))
    }

    /// A number within bounds, or `default`.
    pub(crate) fn limit(&mut self, name: &'static str, default: usize, max: usize) -> usize {
        let limit = self.read(name, |text| match text.parse::<usize>() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(format!("is no number between 1 and {max}")),
        });
        limit.unwrap_or(default)
    }

    /// A whole number from 0.
    pub(crate) fn number(&mut self, name: &'static str) -> Option<u64> {
        self.read(name, |text| text.parse().map_err(|_| format!("is no whole number between 0 and {}", u64::MAX)))
    }

    /// A moment.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.read(name, |text| Timestamp::parse(&with_plus(text)).map_err(|error| error.to_string()))
    }

    /// Words to look for.
    pub(crate) fn text(&mut self, name: &'static str, bytes_max: usize) -> Option<String> {
        self.read(name, |text| match text.len() {
            0 => Err("is empty".to_owned()),
            bytes if bytes > bytes_max => Err(format!("is {bytes} bytes long, at most {bytes_max} are allowed")),
            _ => Ok(text.to_owned()),
        })
    }

    /// Whether the parameter `name` was given.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| given == name)
    }

    /// Whether something is wrong already.
    pub(crate) fn is_refused(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Notes that `name` cannot stand as it is.
    pub(crate) fn refuse(&mut self, name: &'static str, reason: impl Into<String>) {
        self.errors.push(FieldError::new(name, reason));
    }

    /// Refuses what is wrong, and what nobody asked for.
    pub(crate) fn finish(mut self, kind: Kind) -> Result<(), Problem> {
        for (name, _) in self.given {
            let error = FieldError::new(quoted(&name), unknown(&self.known));
            if !self.errors.iter().any(|other| other.field == error.field) {
                self.errors.push(error);
            }
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::of_fields(kind, self.errors)) }
    }

    /// Refuses what is wrong, and passes over what nobody asked for.
    pub(crate) fn finish_lenient(self, kind: Kind) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::of_fields(kind, self.errors)) }
    }

    /// The names that were asked for.
    #[cfg(test)]
    pub(crate) fn known(&self) -> &[&'static str] {
        &self.known
    }
}

fn unknown(known: &[&'static str]) -> String {
    if known.is_empty() {
        return "is unknown; there are no parameters here".to_owned();
    }
    format!("is unknown; known are {}", known.join(", "))
}

/// One of a few words, or what is wrong.
pub(crate) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => Err(format!("is none of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))),
    }
}

/// Decodes one name or value; refuses what is no UTF-8 and a `%` that no two digits follow, instead of guessing.
fn decode(text: &str) -> Result<String, &'static str> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        if !bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err("has a % that no two hexadecimal digits follow");
        }
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(String::from).map_err(|_| "is no UTF-8")
}

/// A time whose `+` before the offset was read as a space, as a query string has it: people forget to write `%2B`.
fn with_plus(text: &str) -> std::borrow::Cow<'_, str> {
    match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains('T') && offset.starts_with(|digit: char| digit.is_ascii_digit()) => {
            format!("{time}+{offset}").into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(query: &str, take: impl Fn(&mut Params)) -> Vec<(String, String)> {
        let mut params = match Params::of_query(query) {
            Ok(params) => params,
            Err(problem) => return fields(&problem),
        };
        take(&mut params);
        params.finish(Kind::InvalidParameter).err().map(|problem| fields(&problem)).unwrap_or_default()
    }

    fn fields(problem: &Problem) -> Vec<(String, String)> {
        let json = serde_json::to_value(problem).expect("serializes");
        let text = |error: &serde_json::Value, field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| (text(error, "field"), text(error, "reason"))).collect()
    }

    #[test]
    fn what_is_wrong_is_named_and_all_at_once() {
        let take = |params: &mut Params| {
            params.limit("limit", 100, 1000);
            params.number("from");
            params.time("until");
            params.text("text", 8);
        };
        assert!(error("limit=1000&from=0&until=2026-11-22T04:12:00%2B01:00&text=a+b", take).is_empty());
        assert!(error("", take).is_empty());
        assert!(error("&&", take).is_empty());
        assert_eq!(error("limit=0&from=-1", take).len(), 2);
        assert_eq!(error("limit=99999999999999999999999999", take)[0].0, "limit");
        assert_eq!(error("limit=1&limit=2", take), [("limit".to_owned(), "is given more than once".to_owned())]);
        assert_eq!(error("limit", take)[0].1, "is no number between 1 and 1000");
        assert_eq!(error("text=123456789", take)[0].1, "is 9 bytes long, at most 8 are allowed");
        assert_eq!(error("until=yesterday", take)[0].0, "until");
        assert_eq!(error("limt=1", take), [("limt".to_owned(), "is unknown; known are limit, from, until, text".to_owned())]);
        assert_eq!(error("limt=1&limt=2", take).len(), 1);
        assert_eq!(error("a=1", |_| {})[0].1, "is unknown; there are no parameters here");
    }

    #[test]
    fn bad_encoding_is_refused_and_not_guessed() {
        for query in ["text=%", "text=%z1", "text=%1", "text=%ff%fe", "%zz=1", "text=%C3%28"] {
            assert_eq!(
                error(query, |params| {
                    params.text("text", 100);
                })
                .len(),
                1,
                "{query}"
            );
        }
        let mut params = Params::of_query("text=%C3%BC%00").expect("is UTF-8");
        assert_eq!(params.text("text", 100).as_deref(), Some("ü\0"));
        let many = "a=1&".repeat(PARAMETERS_MAX + 1);
        assert!(Params::of_query(&many).is_err());
    }

    #[test]
    fn a_plus_in_an_offset_may_be_written_plainly() {
        let mut params = Params::of_query("from=2026-11-22T04:12:00+01:00").expect("is sound");
        assert_eq!(params.time("from").map(|time| time.to_string()).as_deref(), Some("2026-11-22T03:12:00Z"));
        assert!(params.finish(Kind::InvalidParameter).is_ok());
    }

    #[test]
    fn a_json_object_is_read_by_the_same_names() {
        let object = serde_json::json!({"limit": 5, "text": "x", "kind": ["a", "b"], "from": null, "bad": {}});
        let serde_json::Value::Object(object) = object else { panic!("is an object") };
        let mut params = Params::of_json(object);
        assert_eq!(params.limit("limit", 1, 10), 5);
        assert_eq!(params.number("from"), None);
        assert_eq!(params.many("kind", |text| Ok(text.to_owned())), ["a", "b"]);
        assert_eq!(params.text("text", 9).as_deref(), Some("x"));
        let problem = params.finish(Kind::InvalidBody).expect_err("bad is an object");
        assert_eq!(fields(&problem).len(), 1);
    }
}

//! A message as RFC 5424 has it, and how it is made smaller.
//!
//! ```text
//! <PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [id name="value" …][…] BOM text
//! ```

use std::fmt::{Display, Write as _};

use klaxon_schemas::time::Timestamp;

use super::Facility;

/// The longest HOSTNAME (RFC 5424 section 6).
pub(super) const HOSTNAME_CHARS_MAX: usize = 255;
/// The longest APP-NAME.
pub(super) const APP_NAME_CHARS_MAX: usize = 48;
/// The longest SD-NAME (section 6.3.2).
pub(super) const SD_NAME_CHARS_MAX: usize = 32;
/// Says that the text is UTF-8 (section 6.4).
const BOM: &str = "\u{feff}";
/// Nothing is cut shorter than this to make room.
const CUT_BYTES_MIN: usize = 16;
/// What stands where something was cut.
const CUT: &str = "…";

/// Who sends: the same in every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) facility: Facility,
    pub(super) hostname: String,
    pub(super) app_name: String,
    pub(super) process: u32,
}

/// How urgent a message is (RFC 5424 table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Informational = 6,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) level: Level,
    pub(super) at: Timestamp,
    /// What kind of message it is: MSGID.
    pub(super) kind: &'static str,
    pub(super) elements: Vec<Element>,
    pub(super) text: String,
}

/// A structured data element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    id: String,
    params: Vec<Param>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Param {
    name: &'static str,
    value: String,
    weight: Weight,
}

/// What becomes of a value when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It stays whole: it means nothing in part.
    Whole,
    /// Cut first: words for people.
    Text,
    /// Cut last, because something is looked up by it.
    Name,
}

impl Element {
    /// One without parameters yet.
    pub(super) fn new(id: String) -> Self {
        Self { id, params: Vec::with_capacity(16) }
    }

    /// A value that means nothing in part.
    pub(super) fn fact(&mut self, name: &'static str, value: impl Display) {
        self.put(name, value, Weight::Whole);
    }

    /// A value by which something is looked up.
    pub(super) fn name(&mut self, name: &'static str, value: impl Display) {
        self.put(name, value, Weight::Name);
    }

    /// Words for people.
    pub(super) fn text(&mut self, name: &'static str, value: impl Display) {
        self.put(name, value, Weight::Text);
    }

    fn put(&mut self, name: &'static str, value: impl Display, weight: Weight) {
        debug_assert!(name.len() <= SD_NAME_CHARS_MAX, "{name} is longer than an SD-NAME");
        self.params.push(Param { name, value: value.to_string(), weight });
    }
}

impl Message {
    /// As it is sent, in at most `bytes_max`; nothing, if that cannot be done.
    pub(super) fn write(mut self, sender: &Sender, bytes_max: usize) -> Option<Vec<u8>> {
        loop {
            let written = self.written(sender);
            let over = written.len().saturating_sub(bytes_max);
            if over == 0 {
                return Some(written.into_bytes());
            }
            if !self.cut(over) {
                return None;
            }
        }
    }

    fn written(&self, sender: &Sender) -> String {
        let Sender { facility, hostname, app_name, process } = sender;
        let priority = *facility as u8 * 8 + self.level as u8;
        let mut out = format!("<{priority}>1 {} {hostname} {app_name} {process} {} ", self.at, self.kind);
        for element in &self.elements {
            out.push('[');
            out.push_str(&element.id);
            for param in &element.params {
                let _ = write!(out, " {}=\"", param.name);
                escape(&param.value, &mut out);
                out.push('"');
            }
            out.push(']');
        }
        out.push(' ');
        out.push_str(BOM);
        out.extend(self.text.chars().map(visible));
        out
    }

    /// Takes up to so many bytes from the longest of the texts, or if all are short, of the names. Whether there was something to
    /// take.
    fn cut(&mut self, over: usize) -> bool {
        let params = || self.elements.iter().flat_map(|element| &element.params);
        let longest =
            |weight| params().filter(|param| param.weight == weight).map(|param| param.value.len()).max().unwrap_or(0);
        let is_long = |length: usize| length > CUT_BYTES_MIN + CUT.len();
        let (text, longest_text, longest_name) = (self.text.len(), longest(Weight::Text), longest(Weight::Name));
        if is_long(text) && text >= longest_text {
            shorten(&mut self.text, over);
            return true;
        }
        let (weight, length) = if is_long(longest_text) { (Weight::Text, longest_text) } else { (Weight::Name, longest_name) };
        if !is_long(length) {
            return false;
        }
        let mut params = self.elements.iter_mut().flat_map(|element| &mut element.params);
        let param = params.find(|param| param.weight == weight && param.value.len() == length).expect("it was found before");
        shorten(&mut param.value, over);
        true
    }
}

/// Cuts at least one character, and no more than is needed or leaves the least. Only the longest is cut at a time, so half of it is
/// the most.
fn shorten(text: &mut String, over: usize) {
    let cut = (over + CUT.len()).min(text.len() / 2).max(CUT.len() + 1);
    let mut end = text.len().saturating_sub(cut).max(CUT_BYTES_MIN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(CUT);
}

/// PARAM-VALUE (section 6.3.3).
fn escape(value: &str, out: &mut String) {
    for character in value.chars().map(visible) {
        if matches!(character, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(character);
    }
}

/// Line breaks and tabs end a message at many receivers, or are written as codes.
fn visible(character: char) -> char {
    if character.is_control() { ' ' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> Sender {
        Sender { facility: Facility::Local4, hostname: "gate".to_owned(), app_name: "klaxon".to_owned(), process: 7 }
    }

    fn message(text: &str, note: &str, name: &str) -> Message {
        let mut element = Element::new("alarm".to_owned());
        element.fact("severity", "major");
        element.text("note", note);
        element.name("resource", name);
        let at = Timestamp::parse("2026-11-22T03:12:00.25Z").expect("is a time");
        Message { level: Level::Critical, at, kind: "alarm.raised", elements: vec![element], text: text.to_owned() }
    }

    fn written(message: Message, bytes_max: usize) -> Option<String> {
        message.write(&sender(), bytes_max).map(|bytes| String::from_utf8(bytes).expect("is UTF-8"))
    }

    #[test]
    fn a_message_is_as_rfc_5424_has_it() {
        assert_eq!(
            written(message("ü\nfull", "a \"b\" \\ [c]", "host=a"), 480).expect("fits"),
            "<162>1 2026-11-22T03:12:00.25Z gate klaxon 7 alarm.raised \
             [alarm severity=\"major\" note=\"a \\\"b\\\" \\\\ [c\\]\" resource=\"host=a\"] \u{feff}ü full"
        );
    }

    #[test]
    fn the_longest_text_is_cut_first_and_names_last() {
        let name = "n".repeat(100);
        let long = message(&"é".repeat(400), &"\"".repeat(120), &name);
        for max in [480, 500, 640, 1000] {
            let short = written(long.clone(), max).expect("can be cut");
            assert!(short.len() <= max, "{} {max}", short.len());
            assert!(short.contains(&name) && short.contains('…') && short.ends_with('…'), "{short}");
        }
        let some = written(long.clone(), 1000).expect("can be cut");
        assert!(some.contains(&format!("note=\"{}\"", "\\\"".repeat(120))), "the shorter text is whole: {some}");
        assert!(some.len() > 900, "no more is cut than must be: {}", some.len());
        let least = written(long.clone(), 230).expect("can be cut");
        assert!(least.len() <= 230 && least.contains("nnnn…\"") && least.contains("severity=\"major\""), "{least}");
        assert_eq!(written(long, 100), None);
    }
}

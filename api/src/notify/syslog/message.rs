//! A message as RFC 5424 has it, and how it is made smaller.
//!
//! ```text
//! <PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [id name="value" …][…] BOM text
//! ```

use std::fmt::{Display, Write as _};

use klaxon_schemas::time::Timestamp;

use super::Facility;
#[cfg(doc)]
use super::MESSAGE_BYTES_MIN;

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
    /// Cut first: words for people.
    Text,
    /// Left out next: it means nothing in part, and the rest something without it.
    Extra,
    /// Cut last, because something is looked up by it.
    Name,
    /// It stays as it is, as long as its element does.
    Whole,
}

impl Element {
    /// One without parameters yet.
    pub(super) fn new(id: String) -> Self {
        Self { id, params: Vec::with_capacity(16) }
    }

    /// A value that means nothing in part, and without which the element means nothing.
    pub(super) fn fact(&mut self, name: &'static str, value: impl Display) {
        self.put(name, value, Weight::Whole);
    }

    /// A value that means nothing in part, and that may be left out.
    pub(super) fn extra(&mut self, name: &'static str, value: impl Display) {
        self.put(name, value, Weight::Extra);
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
    /// As it is sent, in at most `bytes_max`, which is [`MESSAGE_BYTES_MIN`] or more.
    pub(super) fn write(mut self, sender: &Sender, bytes_max: usize) -> Vec<u8> {
        loop {
            let written = self.written(sender);
            let over = written.len().saturating_sub(bytes_max);
            if over == 0 || !self.cut(over) {
                debug_assert!(over == 0, "{over} bytes do not fit: {written}");
                return written.into_bytes();
            }
        }
    }

    fn written(&self, sender: &Sender) -> String {
        let Sender { facility, hostname, app_name, process } = sender;
        let priority = *facility as u8 * 8 + self.level as u8;
        let mut out = format!("<{priority}>1 {} {hostname} {app_name} {process} {} ", self.at, self.kind);
        if self.elements.is_empty() {
            out.push('-');
        }
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

    /// Takes up to so many bytes from the longest of the texts; if all are short, leaves out the longest of what may be; if that is
    /// gone, takes from the longest of the names, and then leaves out the last element. Whether there was something to take.
    fn cut(&mut self, over: usize) -> bool {
        let is_long = |length: usize| length > CUT_BYTES_MIN + CUT.len();
        if is_long(self.text.len()) && self.longest(Weight::Text).is_none_or(|(.., length)| length <= self.text.len()) {
            shorten(&mut self.text, over);
        } else if let Some((element, place, _)) = self.longest(Weight::Text).filter(|(.., length)| is_long(*length)) {
            shorten(&mut self.elements[element].params[place].value, over);
        } else if let Some((element, place, _)) = self.longest(Weight::Extra) {
            self.elements[element].params.remove(place);
        } else if let Some((element, place, _)) = self.longest(Weight::Name).filter(|(.., length)| is_long(*length)) {
            shorten(&mut self.elements[element].params[place].value, over);
        } else {
            return self.elements.pop().is_some();
        }
        true
    }

    /// The longest value of that weight: in which element, at which place, and how long it is.
    fn longest(&self, weight: Weight) -> Option<(usize, usize, usize)> {
        let places = self
            .elements
            .iter()
            .enumerate()
            .flat_map(|(element, it)| it.params.iter().enumerate().map(move |(place, param)| (element, place, param)));
        let of_weight = places.filter(|(.., param)| param.weight == weight);
        of_weight.map(|(element, place, param)| (element, place, param.value.len())).max_by_key(|(.., length)| *length)
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
    use super::super::MESSAGE_BYTES_MIN;
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

    fn written(message: Message, bytes_max: usize) -> String {
        String::from_utf8(message.write(&sender(), bytes_max)).expect("is UTF-8")
    }

    #[test]
    fn a_message_is_as_rfc_5424_has_it() {
        assert_eq!(
            written(message("ü\nfull", "a \"b\" \\ [c]", "host=a"), 480),
            "<162>1 2026-11-22T03:12:00.25Z gate klaxon 7 alarm.raised \
             [alarm severity=\"major\" note=\"a \\\"b\\\" \\\\ [c\\]\" resource=\"host=a\"] \u{feff}ü full"
        );
    }

    #[test]
    fn the_longest_text_is_cut_first_and_names_last() {
        let name = "n".repeat(100);
        let long = message(&"é".repeat(400), &"\"".repeat(120), &name);
        for max in [480, 500, 640, 1000] {
            let short = written(long.clone(), max);
            assert!(short.len() <= max, "{} {max}", short.len());
            assert!(short.contains(&name) && short.contains('…') && short.ends_with('…'), "{short}");
        }
        let some = written(long.clone(), 1000);
        assert!(some.contains(&format!("note=\"{}\"", "\\\"".repeat(120))), "the shorter text is whole: {some}");
        assert!(some.len() > 900, "no more is cut than must be: {}", some.len());
        let least = written(long.clone(), 230);
        assert!(least.len() <= 230 && least.contains("nnnn…\"") && least.contains("severity=\"major\""), "{least}");
    }

    #[test]
    fn what_may_be_is_left_out_before_a_name_is_cut_and_an_element_last() {
        let name = "n".repeat(150);
        let mut long = message("full", "", &name);
        let mut own = Element::new("own".to_owned());
        own.fact("epoch", 7);
        own.extra("link", "l".repeat(90));
        own.extra("since", "s".repeat(30));
        long.elements.push(own);
        let length = written(long.clone(), 480).len();
        let one_less = written(long.clone(), length - 1);
        assert!(one_less.contains(&name) && !one_less.contains("link") && one_less.contains("since"), "{one_less}");
        let names_cut = written(long.clone(), 200);
        assert!(names_cut.contains("nnn…\"") && names_cut.contains("[own epoch=\"7\"]"), "{names_cut}");
        let element_gone = written(long.clone(), 140);
        assert!(!element_gone.contains("[own") && element_gone.contains("severity=\"major\""), "{element_gone}");
        assert!(written(long, 80).contains("alarm.raised - \u{feff}full"));
    }

    #[test]
    fn whatever_it_says_it_fits_where_everything_fits() {
        let sender = Sender {
            facility: Facility::Local7,
            hostname: "h".repeat(HOSTNAME_CHARS_MAX),
            app_name: "a".repeat(APP_NAME_CHARS_MAX),
            process: u32::MAX,
        };
        let mut long = message(&"ä".repeat(9000), &"]".repeat(9000), &"\"".repeat(9000));
        (0..100).for_each(|_| long.elements[0].fact("number", u64::MAX));
        assert!(long.write(&sender, MESSAGE_BYTES_MIN).len() <= MESSAGE_BYTES_MIN);
    }
}

//! Fields of a trap, and texts with fields in them.
//!
//! ```text
//! text     = *( literal / "{" field *( "|" field ) [ ":new" ] "}" / "[" text "]" )
//! field    = word / NAME [ "." part ]
//! word     = device | address | source | site | trap | trap_oid | enterprise | version
//! part     = number | instance | index | address
//! ```
//!
//! Of several fields the first that is there counts. What stands in brackets is left out as a whole if a field in it is missing
//! or empty, or, with `:new`, stands in the text already. A literal `{ } [ ]` is doubled.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use klaxon_schemas::names::Site;
use klaxon_snmp::{Notification, Oid, Value};

use super::value::{number, shown};

/// How deep brackets may stand in each other.
const BRACKETS_MAX: usize = 4;

/// What a file calls an OID.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: Box<str>,
    pub(super) oid: Box<[u32]>,
    /// It is a row: any of its columns stands for it, and the column is no part of the instance.
    pub(super) is_row: bool,
    /// Values below are as if they were not there.
    pub(super) at_least: Option<i64>,
    /// What values are called.
    pub(super) words: BTreeMap<String, String>,
    /// What the bits of a BITS value are called.
    pub(super) bits: BTreeMap<u32, String>,
}

/// What of an object is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its value, by its word if it has one.
    Value,
    /// Its value without words.
    Number,
    /// The arcs behind its OID.
    Instance,
    /// The instance, if it is one number above zero.
    Index,
    /// Its value as an address: OCTET STRING of four or sixteen bytes.
    Address,
}

/// Something that a trap says, or that is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The name of the device, or its address.
    Device,
    /// The address of the device.
    Address,
    /// The address that the trap came from.
    Source,
    Site,
    /// The trap's name in the file, or its OID.
    Trap,
    TrapOid,
    Enterprise,
    Version,
    Object(Arc<Object>, Part),
}

/// What is known of a trap that is mapped.
#[derive(Debug, Clone, Copy)]
pub(in crate::trap) struct Subject<'a> {
    pub(in crate::trap) notification: &'a Notification,
    /// The name of the device, or its address.
    pub(in crate::trap) device: &'a str,
    /// The address of the device.
    pub(in crate::trap) address: IpAddr,
    /// The address that it came from.
    pub(in crate::trap) source: IpAddr,
    /// Whose device it is.
    pub(in crate::trap) site: &'a Site,
}

/// A trap, and what the rule that looks at it calls it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) trap: Option<&'a str>,
}

/// Fields, of which the first that is there counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// As it was written.
    pub(super) text: Box<str>,
    fields: Vec<Field>,
}

/// A text with fields in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Choice {
        choice: Choice,
        /// It counts as missing if the text has it already.
        is_new: bool,
    },
    Optional(Vec<Piece>),
}

/// What a template is filled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For people: what is missing is a question mark.
    Text,
    /// For programs: nothing may be missing or empty.
    Attribute,
    /// Part of a key: nothing may be missing or empty, and a key is one line.
    Key,
    /// Part of a key, and no value may begin an element of its own.
    Resource,
}

/// The field that is missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing<'t>(pub(super) &'t str);

impl Object {
    /// The first value under it that says what is asked for.
    fn part<'a>(&'a self, notification: &'a Notification, part: Part) -> Option<Cow<'a, str>> {
        notification.varbinds.iter().find_map(|varbind| {
            let instance = self.instance(varbind.oid.arcs())?;
            let value = &varbind.value;
            match part {
                Part::Instance => (!instance.is_empty()).then(|| Oid::new(instance).to_string().into()),
                Part::Index => match instance {
                    [index] if *index > 0 => Some(index.to_string().into()),
                    _ => None,
                },
                _ if self.is_row || !self.admits(value) => None,
                Part::Number => Some(shown(value).into()),
                Part::Address => address(value).map(|address| address.to_string().into()),
                Part::Value => Some(self.said(value)),
            }
        })
    }

    /// The instance, if `arcs` is one of this object.
    pub(super) fn instance<'a>(&self, arcs: &'a [u32]) -> Option<&'a [u32]> {
        let rest = arcs.strip_prefix(&*self.oid)?;
        if self.is_row { rest.split_first().map(|(_, instance)| instance) } else { Some(rest) }
    }

    fn admits(&self, value: &Value) -> bool {
        match value {
            Value::Null | Value::Exception(_) => false,
            value => self.at_least.is_none_or(|least| number(value).is_some_and(|number| number >= i128::from(least))),
        }
    }

    fn said(&self, value: &Value) -> Cow<'_, str> {
        let text = shown(value);
        if let Some(word) = self.words.get(&text) {
            return word.into();
        }
        let words: Vec<&str> = self.bit_words(value).collect();
        match value {
            // No bit is set: it has nothing to say.
            Value::OctetString(bytes) if !self.bits.is_empty() && bytes.iter().all(|byte| *byte == 0) => "".into(),
            _ if words.is_empty() => text.into(),
            _ => words.join(" ").into(),
        }
    }

    /// The words of the bits that are set, the first bit first.
    fn bit_words<'a>(&'a self, value: &'a Value) -> impl Iterator<Item = &'a str> {
        let bytes: &[u8] = match value {
            Value::OctetString(bytes) => bytes,
            _ => &[],
        };
        let is_set = |bit: u32| bytes.get(bit as usize / 8).is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0);
        self.bits.iter().filter(move |(bit, _)| is_set(**bit)).map(|(_, word)| &**word)
    }
}

fn address(value: &Value) -> Option<IpAddr> {
    match value {
        Value::IpAddress(address) => Some((*address).into()),
        Value::OctetString(bytes) => {
            let v4 = <[u8; 4]>::try_from(&bytes[..]).map(|bytes| Ipv4Addr::from(bytes).into());
            v4.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
        }
        _ => None,
    }
}

impl Field {
    fn get<'a>(&'a self, scene: &Scene<'a>) -> Option<Cow<'a, str>> {
        let Scene { subject, trap } = scene;
        let notification = subject.notification;
        match self {
            Self::Device => Some(subject.device.into()),
            Self::Address => Some(subject.address.to_string().into()),
            Self::Source => Some(subject.source.to_string().into()),
            Self::Site => Some(subject.site.as_str().into()),
            Self::Trap => Some(trap.map_or_else(|| notification.trap_oid.to_string().into(), Cow::from)),
            Self::TrapOid => Some(notification.trap_oid.to_string().into()),
            Self::Enterprise => notification.enterprise.as_ref().map(|oid| oid.to_string().into()),
            Self::Version => Some(notification.version.as_str().into()),
            Self::Object(object, part) => object.part(notification, *part),
        }
    }

    /// All that its value may be called: its word, its number, the words of its bits.
    fn all<'a>(&'a self, scene: &Scene<'a>) -> Vec<Cow<'a, str>> {
        let Self::Object(object, Part::Value) = self else { return self.get(scene).into_iter().collect() };
        let varbinds = &scene.subject.notification.varbinds;
        let found = varbinds
            .iter()
            .find(|varbind| !object.is_row && object.instance(varbind.oid.arcs()).is_some() && object.admits(&varbind.value));
        let Some(varbind) = found else { return Vec::new() };
        let mut all = vec![object.said(&varbind.value), shown(&varbind.value).into()];
        all.extend(object.bit_words(&varbind.value).map(Cow::from));
        all
    }
}

impl Choice {
    /// Reads `a|b`. `resolve` knows the names of the file.
    pub(super) fn parse(text: &str, names: &Names) -> Result<Self, String> {
        let fields = text.split('|').map(|field| names.field(field.trim())).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), fields })
    }

    pub(super) fn get<'a>(&'a self, scene: &Scene<'a>) -> Option<Cow<'a, str>> {
        self.fields.iter().find_map(|field| field.get(scene))
    }

    /// All that the first field which is there may be called; nothing if none is.
    pub(super) fn all<'a>(&'a self, scene: &Scene<'a>) -> Vec<Cow<'a, str>> {
        self.fields.iter().map(|field| field.all(scene)).find(|all| !all.is_empty()).unwrap_or_default()
    }
}

/// The names of a file.
#[derive(Debug, Default)]
pub(super) struct Names(pub(super) BTreeMap<String, Arc<Object>>);

/// Words that stand for what is known of every trap; no name of a file may be one of them.
pub(super) const WORDS: [&str; 8] = ["device", "address", "source", "site", "trap", "trap_oid", "enterprise", "version"];

impl Names {
    fn field(&self, text: &str) -> Result<Field, String> {
        let (name, part) = match text.split_once('.') {
            Some((name, part)) => (name, Some(part)),
            None => (text, None),
        };
        if let Some(object) = self.0.get(name) {
            let part = match part {
                None => Part::Value,
                Some("number") => Part::Number,
                Some("instance") => Part::Instance,
                Some("index") => Part::Index,
                Some("address") => Part::Address,
                Some(other) => {
                    return Err(format!("{name} has no part {other:?}, only number, instance, index and address"));
                }
            };
            if object.is_row && !matches!(part, Part::Instance | Part::Index) {
                return Err(format!("{name} is a row and has no value; write {name}.index or {name}.instance"));
            }
            return Ok(Field::Object(Arc::clone(object), part));
        }
        if part.is_some() {
            return Err(format!("{name:?} is none of the file's [names]"));
        }
        Ok(match name {
            "device" => Field::Device,
            "address" => Field::Address,
            "source" => Field::Source,
            "site" => Field::Site,
            "trap" => Field::Trap,
            "trap_oid" => Field::TrapOid,
            "enterprise" => Field::Enterprise,
            "version" => Field::Version,
            _ => return Err(format!("{name:?} is none of the file's [names], nor of {}", WORDS.join(", "))),
        })
    }
}

impl Template {
    /// Reads a text; the grammar stands above.
    pub(super) fn parse(text: &str, names: &Names) -> Result<Self, String> {
        let mut rest = text;
        let pieces = pieces(&mut rest, names, 0)?;
        Ok(Self { pieces })
    }

    /// The text for a trap.
    pub(super) fn fill<'t>(&'t self, scene: &Scene<'t>, purpose: Purpose) -> Result<String, Missing<'t>> {
        let mut text = String::with_capacity(64);
        fill(&self.pieces, scene, purpose, &mut text)?;
        Ok(text)
    }

    /// The text as it would be for a trap that says `x` wherever it is asked.
    pub(super) fn sample(&self) -> String {
        fn add(pieces: &[Piece], text: &mut String) {
            for piece in pieces {
                match piece {
                    Piece::Literal(literal) => text.push_str(literal),
                    Piece::Choice { .. } => text.push('x'),
                    Piece::Optional(inner) => add(inner, text),
                }
            }
        }
        let mut text = String::new();
        add(&self.pieces, &mut text);
        text
    }
}

fn pieces(rest: &mut &str, names: &Names, depth: usize) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let flush = |literal: &mut String, pieces: &mut Vec<Piece>| {
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(literal).into()));
        }
    };
    while let Some(first) = rest.chars().next() {
        let behind = &rest[first.len_utf8()..];
        if "{}[]".contains(first) && behind.starts_with(first) && !(first == ']' && depth > 0) {
            literal.push(first);
            *rest = &behind[1..];
            continue;
        }
        match first {
            '{' => {
                let (inner, after) = behind.split_once('}').ok_or("has a { that is not closed; a literal one is written {{")?;
                let (fields, is_new) = match inner.split_once(':') {
                    None => (inner, false),
                    Some((fields, "new")) => (fields, true),
                    Some((_, other)) => return Err(format!("has {other:?} behind a colon, where only \"new\" may stand")),
                };
                flush(&mut literal, &mut pieces);
                pieces.push(Piece::Choice { choice: Choice::parse(fields, names)?, is_new });
                *rest = after;
            }
            '[' => {
                if depth >= BRACKETS_MAX {
                    return Err(format!("has more than {BRACKETS_MAX} brackets in each other"));
                }
                flush(&mut literal, &mut pieces);
                *rest = behind;
                pieces.push(Piece::Optional(self::pieces(rest, names, depth + 1)?));
                *rest = rest.strip_prefix(']').ok_or("has a [ that is not closed; a literal one is written [[")?;
            }
            ']' if depth > 0 => break,
            ']' | '}' => return Err(format!("has a {first} that closes nothing; a literal one is written {first}{first}")),
            other => {
                literal.push(other);
                *rest = behind;
            }
        }
    }
    flush(&mut literal, &mut pieces);
    Ok(pieces)
}

fn fill<'t>(pieces: &'t [Piece], scene: &Scene<'t>, purpose: Purpose, text: &mut String) -> Result<(), Missing<'t>> {
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Choice { choice, is_new } => {
                let value = choice.get(scene).filter(|value| !is_new || !text.contains(&**value));
                match (value, purpose) {
                    (Some(value), Purpose::Text) => text.push_str(&value),
                    (Some(value), _) if value.is_empty() => return Err(Missing(&choice.text)),
                    (Some(value), Purpose::Attribute) => text.push_str(&value),
                    (Some(value), Purpose::Key) => text.extend(value.chars().map(visible)),
                    (Some(value), Purpose::Resource) => {
                        text.extend(value.chars().map(|character| if character == '=' { ':' } else { visible(character) }));
                    }
                    (None, Purpose::Text) => text.push('?'),
                    (None, _) => return Err(Missing(&choice.text)),
                }
            }
            Piece::Optional(inner) => {
                let (before, is_whole) = (text.len(), is_there(inner, scene, text));
                if is_whole && fill(inner, scene, purpose, text).is_err() {
                    text.truncate(before);
                }
            }
        }
    }
    Ok(())
}

/// Whether every field that stands in brackets is there, has something to say, and says something new where it should.
fn is_there(pieces: &[Piece], scene: &Scene<'_>, text: &str) -> bool {
    pieces.iter().all(|piece| match piece {
        Piece::Choice { choice, is_new } => {
            let is_said = |value: &str| *is_new && text.contains(value);
            choice.get(scene).is_some_and(|value| !value.is_empty() && !is_said(&value))
        }
        Piece::Literal(_) | Piece::Optional(_) => true,
    })
}

fn visible(character: char) -> char {
    if character.is_control() { '?' } else { character }
}

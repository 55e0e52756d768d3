//! A mapping file: read, checked once, and refused with line and key where it is wrong.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use globset::Glob;
use ipnet::IpNet;
use klaxon_schemas::names::{AlarmType, AttributeName, Qualifier, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::{Perceived, Severity};
use toml::Spanned;

use super::form::{ByForm, FileForm, Many, NameForm, RuleForm, Test as TestForm, TextOr};
use super::matcher::{Condition, Pattern, Test};
use super::rule::{Action, Choose, Key, Rule, Table};
use super::template::{Choice, Names, Object, Template, WORDS};
use crate::trap::devices::network;

/// The most attributes that a rule may give; the others are those of the variables.
pub(super) const ATTRIBUTES_MAX: usize = 16;
/// What every trap has of itself, beside its variables by OID.
const ATTRIBUTES_OURS: [&str; 12] = [
    "source_address",
    "trap_address",
    "snmp_version",
    "security_name",
    "security_level",
    "engine_id",
    "context_engine_id",
    "context_name",
    "trap_oid",
    "enterprise",
    "sys_up_time",
    "encoding",
];
/// How many names may stand behind each other until there is an OID.
const NAMES_DEEP_MAX: usize = 16;
/// The most arcs of an OID (RFC 2578 section 3.5).
const ARCS_MAX: usize = 128;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// From 1.
    pub(super) line: usize,
    /// Of the rule or name it is in.
    pub(super) key: String,
    pub(super) reason: String,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct File {
    pub(super) names: Names,
    pub(super) rules: Vec<Rule>,
}

/// What says where in the text something is wrong.
struct Reader<'t> {
    text: &'t str,
    names: Names,
}

/// Reads the text of a file.
pub(super) fn read(text: &str) -> Result<File, Wrong> {
    let form: FileForm = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        Wrong { line, key: key_at(text, line), reason: reason(error.message()) }
    })?;
    let mut reader = Reader { text, names: Names::default() };
    reader.names = reader.read_names(&form.names)?;
    let mut rules = Vec::with_capacity(form.rule.len());
    let mut known = HashSet::new();
    for spanned in &form.rule {
        let rule = spanned.get_ref();
        if !known.insert(rule.name.get_ref().as_str()) {
            return Err(reader.wrong(&rule.name, "rule.name", format!("{:?} is the name of two rules", rule.name.get_ref())));
        }
        let line = line_of(text, rule.name.span().start);
        rules.push(reader.rule(rule, &form.rule, line)?);
    }
    Ok(File { names: reader.names, rules })
}

impl Reader<'_> {
    fn wrong<T>(&self, place: &Spanned<T>, key: &str, reason: impl Into<String>) -> Wrong {
        self.wrong_at(&place.span(), key, reason)
    }

    fn wrong_at(&self, span: &Range<usize>, key: &str, reason: impl Into<String>) -> Wrong {
        Wrong { line: line_of(self.text, span.start), key: key.to_owned(), reason: reason.into() }
    }

    fn read_names(&self, forms: &BTreeMap<String, Spanned<TextOr<NameForm>>>) -> Result<Names, Wrong> {
        let mut names = BTreeMap::new();
        for (name, spanned) in forms {
            let key = format!("names.{name}");
            let wrong = |reason: String| self.wrong(spanned, &key, reason);
            if !is_name(name) {
                return Err(wrong("is no name: letters, digits, _ and -, and a letter first".to_owned()));
            }
            if WORDS.contains(&name.as_str()) {
                return Err(wrong(format!("{name} means something already; the words {} are taken", WORDS.join(", "))));
            }
            let plain = NameForm { oid: None, row: None, at_least: None, words: BTreeMap::new(), bits: BTreeMap::new() };
            let (oid, form) = match spanned.get_ref() {
                TextOr::Text(oid) => (oid, &plain),
                TextOr::Table(form) => match (&form.oid, &form.row) {
                    (Some(oid), None) | (None, Some(oid)) => (oid, form),
                    _ => return Err(wrong("needs either an oid or a row".to_owned())),
                },
            };
            let is_row = form.row.is_some();
            let has_values = form.at_least.is_some() || !form.words.is_empty() || !form.bits.is_empty();
            if is_row && has_values {
                return Err(wrong("is a row, and a row has no value".to_owned()));
            }
            if !form.words.is_empty() && !form.bits.is_empty() {
                return Err(wrong("has words and bits; a value is a number or a set of bits".to_owned()));
            }
            let bit = |(bit, word): (&String, &String)| match bit.parse::<u32>() {
                Ok(bit) if bit < 1024 => Ok((bit, word.clone())),
                _ => Err(wrong(format!("{bit:?} is no bit from 0 to 1023"))),
            };
            let bits = form.bits.iter().map(bit).collect::<Result<_, _>>()?;
            // A value may be an OID, and that may be written by a name.
            let value = |text: &String| match oid_of(text, forms, 0) {
                Ok(arcs) if text.contains('.') => klaxon_snmp::Oid::new(&arcs).to_string(),
                _ => text.clone(),
            };
            let words = form.words.iter().map(|(text, word)| (value(text), word.clone())).collect();
            let oid = oid_of(oid, forms, 0).map_err(wrong)?;
            let object = Object { name: name.as_str().into(), oid: oid.into(), is_row, at_least: form.at_least, words, bits };
            names.insert(name.clone(), Arc::new(object));
        }
        Ok(Names(names))
    }

    fn rule(&self, form: &RuleForm, all: &[Spanned<RuleForm>], line: usize) -> Result<Rule, Wrong> {
        let name = form.name.get_ref().clone();
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(self.wrong(&form.name, "rule.name", "must be 1 to 128 printable characters"));
        }
        let action = self.action(form)?;
        let key = self.key(form, all)?;
        let severity = self.severity(form, action)?;
        let text = match &form.text {
            Some(text) => self.template(text, "rule.text")?,
            None => Template::parse("{trap} from {device}", &self.names).expect("needs no names"),
        };
        if form.attributes.len() > ATTRIBUTES_MAX {
            let reason = format!("has {} attributes, at most {ATTRIBUTES_MAX} are allowed", form.attributes.len());
            return Err(self.wrong(&form.name, "rule.attributes", reason));
        }
        let attribute = |(name, template): (&String, &Spanned<String>)| {
            let key = format!("rule.attributes.{name}");
            let is_ours = ATTRIBUTES_OURS.contains(&name.as_str()) || name.starts_with("varbinds");
            if is_ours || name.starts_with(|first: char| first.is_ascii_digit()) {
                return Err(self.wrong(template, &key, "is the name of an attribute that every trap has"));
            }
            let name = AttributeName::new(name).map_err(|error| self.wrong(template, &key, format!("the name {error}")))?;
            Ok((name, self.template(template, &key)?))
        };
        let from = form.from.as_ref();
        let networks = from.iter().flat_map(|from| {
            let parse = |text: &String| network(text).map_err(|reason| self.wrong(from, "rule.from", reason));
            from.get_ref().0.iter().map(parse)
        });
        let left_out = form.leave_out.iter().flat_map(|names| {
            let known = |name: &String| match self.names.0.get(name) {
                Some(object) => Ok(object.oid.clone()),
                None => Err(self.wrong(names, "rule.leave_out", format!("{name:?} is none of the file's [names]"))),
            };
            names.get_ref().0.iter().map(known)
        });
        let when = form.when.iter().map(|(field, test)| self.condition(field, test));
        Ok(Rule {
            name,
            line,
            patterns: self.patterns(&form.trap)?,
            from: networks.collect::<Result<Vec<IpNet>, _>>()?,
            when: when.collect::<Result<_, _>>()?,
            action,
            severity,
            key,
            clears: form.clears.as_ref().map(|name| name.get_ref().clone()),
            text,
            attributes: form.attributes.iter().map(attribute).collect::<Result<_, _>>()?,
            leave_out: left_out.collect::<Result<_, _>>()?,
            event_type: self.word(form.event_type.as_ref(), "rule.event_type", |word| {
                let event_type = serde_json::from_value(serde_json::Value::String(word.to_owned()));
                event_type.map_err(|error| error.to_string())
            })?,
            probable_cause: self.word(form.probable_cause.as_ref(), "rule.probable_cause", said)?,
            repair_action: self.word(form.repair_action.as_ref(), "rule.repair_action", said::<Text>)?,
        })
    }

    fn word<T>(
        &self,
        place: Option<&Spanned<String>>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Wrong> {
        place.map(|place| parse(place.get_ref()).map_err(|reason| self.wrong(place, key, reason))).transpose()
    }

    fn action(&self, form: &RuleForm) -> Result<Action, Wrong> {
        let word = form.action.as_ref().map(|action| action.get_ref().as_str());
        match (word, &form.action, &form.clears) {
            (None | Some("clear"), _, Some(_)) => Ok(Action::Clear),
            (_, Some(place), Some(_)) => {
                Err(self.wrong(place, "rule.do", "must be \"clear\" in a rule that says what it clears"))
            }
            (None | Some("raise"), ..) => Ok(Action::Raise),
            (Some("clear"), ..) => Ok(Action::Clear),
            (Some("log"), ..) => Ok(Action::Log),
            (_, Some(place), _) => Err(self.wrong(place, "rule.do", "is none of \"raise\", \"clear\", \"log\"")),
            (Some(_), None, _) => unreachable!("a word stands somewhere"),
        }
    }

    fn severity(&self, form: &RuleForm, action: Action) -> Result<Choose<Perceived>, Wrong> {
        let parse = |word: &str| match (word, action) {
            ("cleared", Action::Log) => Err("is \"cleared\", and what is logged is never raised".to_owned()),
            ("cleared", _) => Ok(Perceived::Cleared),
            _ => word.parse::<Severity>().map(Perceived::Raised).map_err(|error| format!("{word:?} {error}")),
        };
        match (&form.severity, action) {
            (Some(place), Action::Clear) => Err(self.wrong(place, "rule.severity", "is of no use in a rule that clears")),
            (Some(place), _) => self.choose(place, "rule.severity", parse),
            (None, Action::Clear) => Ok(Choose::Fixed(Perceived::Cleared)),
            (None, Action::Log) => Ok(Choose::Fixed(Perceived::Raised(Severity::Indeterminate))),
            (None, Action::Raise) => Err(self.wrong(&form.name, "rule.severity", "is missing")),
        }
    }

    /// The key, which may be that of another rule.
    fn key(&self, form: &RuleForm, all: &[Spanned<RuleForm>]) -> Result<Key, Wrong> {
        let Some(cleared) = &form.clears else { return self.own_key(form) };
        let own = [form.resource.as_ref().map(Spanned::span), form.alarm_type.as_ref().map(Spanned::span)];
        let own = own.into_iter().chain([form.qualifier.as_ref().map(Spanned::span)]).flatten().next();
        if let Some(span) = own {
            let reason = "is that of the rule it clears, with its resource, alarm_type and qualifier; give none of them here";
            return Err(self.wrong_at(&span, "rule.clears", reason));
        }
        let other = all.iter().map(Spanned::get_ref).find(|rule| rule.name.get_ref() == cleared.get_ref());
        let Some(other) = other else {
            return Err(self.wrong(cleared, "rule.clears", format!("no rule of this file is called {:?}", cleared.get_ref())));
        };
        if self.action(other)? != Action::Raise {
            return Err(self.wrong(cleared, "rule.clears", format!("the rule {:?} raises nothing", cleared.get_ref())));
        }
        self.own_key(other)
    }

    fn own_key(&self, form: &RuleForm) -> Result<Key, Wrong> {
        let template = |place: Option<&Spanned<String>>, default: &str, key: &str| match place {
            Some(place) => self.template(place, key),
            None => Ok(Template::parse(default, &self.names).expect("needs no names")),
        };
        let resource = template(form.resource.as_ref(), "device={device}", "rule.resource")?;
        if let (Err(error), Some(place)) = (Resource::new(&resource.sample()), &form.resource) {
            return Err(self.wrong(place, "rule.resource", error.to_string()));
        }
        let qualifier = template(form.qualifier.as_ref(), "", "rule.qualifier")?;
        if let (Err(error), Some(place)) = (Qualifier::new(&qualifier.sample()), &form.qualifier) {
            return Err(self.wrong(place, "rule.qualifier", error.to_string()));
        }
        let Some(alarm_type) = &form.alarm_type else {
            return Err(self.wrong(&form.name, "rule.alarm_type", "is missing"));
        };
        let alarm_type = self.choose(alarm_type, "rule.alarm_type", said::<AlarmType>)?;
        Ok(Key { resource: Arc::new(resource), alarm_type, qualifier: Arc::new(qualifier) })
    }

    fn choose<T>(
        &self,
        place: &Spanned<TextOr<ByForm>>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Choose<T>, Wrong> {
        let wrong = |reason: String| self.wrong(place, key, reason);
        match place.get_ref() {
            TextOr::Text(word) => parse(word).map(Choose::Fixed).map_err(wrong),
            TextOr::Table(ByForm { by, table, otherwise }) => {
                let field = Choice::parse(by, &self.names).map_err(wrong)?;
                let row = |(value, word): (&String, &String)| Ok((value.clone(), parse(word).map_err(wrong)?));
                let rows = table.iter().map(row).collect::<Result<_, _>>()?;
                let otherwise = otherwise.as_deref().map(|word| parse(word).map_err(wrong)).transpose()?;
                Ok(Choose::By(Arc::new(Table { field, rows, otherwise })))
            }
        }
    }

    fn template(&self, place: &Spanned<String>, key: &str) -> Result<Template, Wrong> {
        Template::parse(place.get_ref(), &self.names).map_err(|reason| self.wrong(place, key, reason))
    }

    fn patterns(&self, place: &Spanned<Many>) -> Result<Vec<Pattern>, Wrong> {
        let texts = &place.get_ref().0;
        let wrong = |reason: String| self.wrong(place, "rule.trap", reason);
        if texts.is_empty() || texts.len() > usize::from(u16::MAX) {
            return Err(wrong("must name one trap at least".to_owned()));
        }
        let pattern = |text: &String| {
            let (oid, is_subtree) = text.strip_suffix(".*").map_or((text.as_str(), false), |oid| (oid, true));
            let object = self.names.0.get(oid);
            let arcs = match object {
                Some(object) => object.oid.clone(),
                None => self.oid(oid).map_err(wrong)?,
            };
            let name = object.filter(|_| !is_subtree).map(|object| object.name.clone());
            Ok(Pattern { oid: arcs, is_subtree, name })
        };
        texts.iter().map(pattern).collect()
    }

    /// An OID that may begin with a name.
    fn oid(&self, text: &str) -> Result<Box<[u32]>, String> {
        let (head, rest) = text.split_once('.').unwrap_or((text, ""));
        match self.names.0.get(head) {
            Some(object) if !rest.is_empty() => Ok([&object.oid[..], &arcs(rest)?].concat().into()),
            Some(object) => Ok(object.oid.clone()),
            None if is_name(head) => Err(format!("{head:?} is none of the file's [names]")),
            None => arcs(text).map(Into::into),
        }
    }

    fn condition(&self, field: &str, place: &Spanned<TestForm>) -> Result<Condition, Wrong> {
        let key = format!("rule.when.{field}");
        let wrong = |reason: String| self.wrong(place, &key, reason);
        let test = match place.get_ref() {
            TestForm::OneOf(texts) if texts.is_empty() => {
                return Err(wrong("is an empty list, which nothing is in".to_owned()));
            }
            TestForm::OneOf(texts) => Test::OneOf(texts.clone()),
            TestForm::More(form) => {
                let is_within = form.at_least.is_some() || form.at_most.is_some();
                match (&form.not, &form.like, form.present, is_within) {
                    (Some(Many(texts)), None, None, false) => Test::NoneOf(texts.clone()),
                    (None, Some(glob), None, false) => {
                        let glob = Glob::new(glob).map_err(|error| wrong(error.to_string()))?;
                        Test::Like(glob.compile_matcher())
                    }
                    (None, None, Some(present), false) => Test::Present(present),
                    (None, None, None, true) => Test::Within { at_least: form.at_least, at_most: form.at_most },
                    _ => return Err(wrong("needs one of not, like, present, or at_least and at_most".to_owned())),
                }
            }
        };
        Ok(Condition { field: Choice::parse(field, &self.names).map_err(wrong)?, test })
    }
}

/// A name that has a rule of its own.
fn said<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str) -> Result<T, String> {
    word.parse::<T>().map_err(|error| format!("{word:?} {error}"))
}

/// The arcs of an OID, which may begin with the name of another one.
fn oid_of(text: &str, forms: &BTreeMap<String, Spanned<TextOr<NameForm>>>, depth: usize) -> Result<Vec<u32>, String> {
    let (head, rest) = text.split_once('.').unwrap_or((text, ""));
    if !is_name(head) {
        return arcs(text);
    }
    if depth >= NAMES_DEEP_MAX {
        return Err(format!("{head:?} stands for itself, or for more than {NAMES_DEEP_MAX} names behind each other"));
    }
    let Some(form) = forms.get(head) else { return Err(format!("{head:?} is none of the file's [names]")) };
    let other = match form.get_ref() {
        TextOr::Text(oid) => Some(oid),
        TextOr::Table(form) => form.oid.as_ref().or(form.row.as_ref()),
    };
    let mut oid = oid_of(other.ok_or_else(|| format!("{head:?} has no OID"))?, forms, depth + 1)?;
    if !rest.is_empty() {
        oid.extend(arcs(rest)?);
    }
    if oid.len() > ARCS_MAX { Err(too_long(oid.len())) } else { Ok(oid) }
}

fn too_long(count: usize) -> String {
    format!("has {count} numbers, and an OID has at most {ARCS_MAX}")
}

fn arcs(text: &str) -> Result<Vec<u32>, String> {
    let digits = |arc: &str| arc.bytes().all(|byte| byte.is_ascii_digit()).then(|| arc.parse::<u32>().ok()).flatten();
    let arcs: Option<Vec<u32>> = text.split('.').map(digits).collect();
    match arcs {
        Some(arcs) if arcs.len() > ARCS_MAX => Err(too_long(arcs.len())),
        Some(arcs) => Ok(arcs),
        None => Err(format!("{text:?} is no OID such as 1.3.6.1.6.3.1.1.5.3")),
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// What serde says, in our words where its own would not help.
fn reason(message: &str) -> String {
    match message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, known)) => format!("is no key; {}", known.replace('`', "")),
        None => message.trim_end().replace('\n', " "),
    }
}

/// The line, from 1, of a place in the text.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The key that stands on a line, with the section above it.
fn key_at(text: &str, line: usize) -> String {
    let mut section = "";
    let mut last = "";
    for content in text.lines().take(line).map(str::trim) {
        if let Some(head) = content.strip_prefix('[') {
            section = head.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
        }
        last = content;
    }
    match last.split_once('=') {
        Some((key, _)) if !last.starts_with('[') && section.is_empty() => key.trim().to_owned(),
        Some((key, _)) if !last.starts_with('[') => format!("{section}.{}", key.trim()),
        _ => section.to_owned(),
    }
}

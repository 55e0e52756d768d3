//! The form of a mapping file, as TOML has it. What it means is checked in `file.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileForm {
    #[serde(default)]
    pub(super) names: BTreeMap<String, Spanned<TextOr<NameForm>>>,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RuleForm>>,
}

/// An OID with more to it than its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameForm {
    pub(super) oid: Option<String>,
    pub(super) row: Option<String>,
    pub(super) at_least: Option<i64>,
    #[serde(default)]
    pub(super) words: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) bits: BTreeMap<String, String>,
}

/// A rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleForm {
    pub(super) name: Spanned<String>,
    pub(super) trap: Spanned<Many>,
    pub(super) from: Option<Spanned<Many>>,
    #[serde(default)]
    pub(super) when: BTreeMap<String, Spanned<Test>>,
    #[serde(rename = "do")]
    pub(super) action: Option<Spanned<String>>,
    pub(super) severity: Option<Spanned<TextOr<ByForm>>>,
    pub(super) clears: Option<Spanned<String>>,
    pub(super) resource: Option<Spanned<String>>,
    pub(super) alarm_type: Option<Spanned<TextOr<ByForm>>>,
    pub(super) qualifier: Option<Spanned<String>>,
    pub(super) text: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Spanned<String>>,
    pub(super) leave_out: Option<Spanned<Many>>,
    pub(super) event_type: Option<Spanned<String>>,
    pub(super) probable_cause: Option<Spanned<String>>,
    pub(super) repair_action: Option<Spanned<String>>,
}

/// A word by the value of a field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByForm {
    pub(super) by: String,
    pub(super) table: BTreeMap<String, String>,
    pub(super) otherwise: Option<String>,
}

/// What a condition asks for beyond a value.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestForm {
    pub(super) not: Option<Many>,
    pub(super) like: Option<String>,
    pub(super) present: Option<bool>,
    pub(super) at_least: Option<i64>,
    pub(super) at_most: Option<i64>,
}

/// A text, or a table.
#[derive(Debug)]
pub(super) enum TextOr<T> {
    Text(String),
    Table(T),
}

/// One text or several; a number is its digits.
#[derive(Debug)]
pub(super) struct Many(pub(super) Vec<String>);

/// One value, several, or more than values.
#[derive(Debug)]
pub(super) enum Test {
    OneOf(Vec<String>),
    More(TestForm),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = TextOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a table")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Table)
            }
        }
        deserializer.deserialize_any(V(PhantomData))
    }
}

/// A number is its digits.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Word;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

fn words<'de, A: SeqAccess<'de>>(seq: A) -> Result<Vec<String>, A::Error> {
    let words = Vec::<Word>::deserialize(SeqAccessDeserializer::new(seq))?;
    Ok(words.into_iter().map(|word| word.0).collect())
}

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Many;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a list of them")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Many, E> {
                Ok(Many(vec![text.to_owned()]))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Many, E> {
                Ok(Many(vec![number.to_string()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Many, A::Error> {
                words(seq).map(Many)
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl<'de> Deserialize<'de> for Test {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Test;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, a list of them, or a table such as { not = \"up\" }")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Test, E> {
                Ok(Test::OneOf(vec![text.to_owned()]))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Test, E> {
                Ok(Test::OneOf(vec![number.to_string()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Test, A::Error> {
                words(seq).map(Test::OneOf)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Test, A::Error> {
                TestForm::deserialize(MapAccessDeserializer::new(map)).map(Test::More)
            }
        }
        deserializer.deserialize_any(V)
    }
}

//! Bounded strings: each kind of name has a rule, and a name that breaks its rule cannot be made.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

/// What a kind of bounded string may hold.
pub trait Rule: 'static {
    /// The name of the kind, as the published schemas call it.
    const NAME: &'static str;
    /// The most bytes of UTF-8 it may have.
    const BYTES_MAX: usize;
    /// The fewest bytes it must have.
    const BYTES_MIN: usize = 1;
    /// The allowed characters, said in words for an error message.
    const ALLOWED: &'static str = "printable characters";

    /// Whether a character may stand in it.
    fn allows(character: char) -> bool {
        !character.is_control()
    }
}

/// A string that satisfies the rule `R`. Cloning shares the text.
pub struct Name<R>(Arc<str>, PhantomData<fn() -> R>);

/// Why a text is no name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has fewer bytes than its kind needs.
    #[error("is empty")]
    Empty,
    /// It has more bytes than its kind may have.
    #[error("is {bytes} bytes long, at most {bytes_max} are allowed")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// It has a character that its kind may not have.
    #[error("has the character {character:?}, allowed are {allowed}")]
    Character {
        /// The first such character.
        character: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

impl<R: Rule> Name<R> {
    /// Checks `text` against the rule and keeps it.
    pub fn new(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(Arc::from(text), PhantomData))
    }

    /// Keeps as much of `text` as the rule allows: other characters become `?`, and what is too long is cut at a character.
    pub fn lossy(text: &str) -> Result<Self, NameError> {
        let mut kept = String::with_capacity(text.len().min(R::BYTES_MAX));
        for character in text.chars() {
            let character = if R::allows(character) { character } else { '?' };
            if kept.len() + character.len_utf8() > R::BYTES_MAX {
                break;
            }
            kept.push(character);
        }
        Self::new(&kept)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text, for interning.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// The same name over an equal text that is already held elsewhere.
    pub fn with_shared(&self, text: &Arc<str>) -> Self {
        debug_assert_eq!(&*self.0, &**text);
        Self(Arc::clone(text), PhantomData)
    }

    fn check(text: &str) -> Result<(), NameError> {
        if text.len() < R::BYTES_MIN {
            return Err(NameError::Empty);
        }
        if text.len() > R::BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len(), bytes_max: R::BYTES_MAX });
        }
        match text.chars().find(|character| !R::allows(*character)) {
            Some(character) => Err(NameError::Character { character, allowed: R::ALLOWED }),
            None => Ok(()),
        }
    }
}

impl<R> Clone for Name<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<R> PartialEq for Name<R> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<R> Eq for Name<R> {}

impl<R> PartialOrd for Name<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Name<R> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<R> Hash for Name<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<R> Borrow<str> for Name<R> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<R> Deref for Name<R> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<R> fmt::Debug for Name<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<R> fmt::Display for Name<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl<R: Rule> std::str::FromStr for Name<R> {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<R> Serialize for Name<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, R: Rule> Deserialize<'de> for Name<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor(PhantomData))
    }
}

struct NameVisitor<R>(PhantomData<fn() -> R>);

impl<R: Rule> serde::de::Visitor<'_> for NameVisitor<R> {
    type Value = Name<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of at most {} bytes", R::BYTES_MAX)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name<R>, E> {
        Name::new(text).map_err(E::custom)
    }
}

impl<R: Rule> utoipa::PartialSchema for Name<R> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .min_length(Some(R::BYTES_MIN))
            .max_length(Some(R::BYTES_MAX))
            .description(Some(format!("{}; the length counts bytes of UTF-8.", R::ALLOWED)))
            .into()
    }
}

impl<R: Rule> utoipa::ToSchema for Name<R> {
    fn name() -> std::borrow::Cow<'static, str> {
        R::NAME.into()
    }
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._:/-".contains(character)
}

const TOKEN: &str = "ASCII letters, digits and . _ : / -";

/// Rule of [`Site`].
pub struct SiteRule;
impl Rule for SiteRule {
    const NAME: &'static str = "Site";
    const BYTES_MAX: usize = 128;
    const ALLOWED: &'static str = TOKEN;
    fn allows(character: char) -> bool {
        is_token(character)
    }
}
/// The name of a site: a place whose alarms one node owns.
pub type Site = Name<SiteRule>;

/// Rule of [`AlarmType`].
pub struct AlarmTypeRule;
impl Rule for AlarmTypeRule {
    const NAME: &'static str = "AlarmType";
    const BYTES_MAX: usize = 128;
    const ALLOWED: &'static str = TOKEN;
    fn allows(character: char) -> bool {
        is_token(character)
    }
}
/// RFC 8632 alarm-type-id: what kind of alarm it is, e.g. `disk.full`.
pub type AlarmType = Name<AlarmTypeRule>;

/// Rule of [`Qualifier`].
pub struct QualifierRule;
impl Rule for QualifierRule {
    const NAME: &'static str = "Qualifier";
    const BYTES_MAX: usize = 256;
    const BYTES_MIN: usize = 0;
}
/// RFC 8632 alarm-type-qualifier: tells alarms of one type on one resource apart; most often empty.
pub type Qualifier = Name<QualifierRule>;

/// Rule of [`ProbableCause`].
pub struct ProbableCauseRule;
impl Rule for ProbableCauseRule {
    const NAME: &'static str = "ProbableCause";
    const BYTES_MAX: usize = 64;
    const ALLOWED: &'static str = "lower-case ASCII letters, digits and -";
    fn allows(character: char) -> bool {
        character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
    }
}
/// X.733 8.1.2.2 probable cause, as a word such as `threshold-crossed`. X.733 leaves the set open, and so does this.
pub type ProbableCause = Name<ProbableCauseRule>;

/// Rule of [`Text`].
pub struct TextRule;
impl Rule for TextRule {
    const NAME: &'static str = "Text";
    const BYTES_MAX: usize = 4096;
    const BYTES_MIN: usize = 0;
    const ALLOWED: &'static str = "printable characters, line breaks and tabs";
    fn allows(character: char) -> bool {
        !character.is_control() || character == '\n' || character == '\t'
    }
}
/// X.733 8.1.2.13 additional text, a note, a reason: words for people.
pub type Text = Name<TextRule>;

/// Rule of [`Producer`].
pub struct ProducerRule;
impl Rule for ProducerRule {
    const NAME: &'static str = "Producer";
    const BYTES_MAX: usize = 128;
    const ALLOWED: &'static str = TOKEN;
    fn allows(character: char) -> bool {
        is_token(character)
    }
}
/// Who reports: the name under which a reporter numbers its events.
pub type Producer = Name<ProducerRule>;

/// Rule of [`EventId`].
pub struct EventIdRule;
impl Rule for EventIdRule {
    const NAME: &'static str = "EventId";
    const BYTES_MAX: usize = 128;
    const ALLOWED: &'static str = "printable ASCII characters without spaces";
    fn allows(character: char) -> bool {
        character.is_ascii_graphic()
    }
}
/// A reporter's own identifier of one event, by which a repeated delivery is recognised.
pub type EventId = Name<EventIdRule>;

/// Rule of [`Actor`].
pub struct ActorRule;
impl Rule for ActorRule {
    const NAME: &'static str = "Actor";
    const BYTES_MAX: usize = 128;
}
/// A person or program that acts on alarms.
pub type Actor = Name<ActorRule>;

/// Rule of [`AttributeName`].
pub struct AttributeNameRule;
impl Rule for AttributeNameRule {
    const NAME: &'static str = "AttributeName";
    const BYTES_MAX: usize = 128;
}
/// The name of one additional attribute.
pub type AttributeName = Name<AttributeNameRule>;

/// Rule of [`AttributeValue`].
pub struct AttributeValueRule;
impl Rule for AttributeValueRule {
    const NAME: &'static str = "AttributeValue";
    const BYTES_MAX: usize = 1024;
    const BYTES_MIN: usize = 0;
    const ALLOWED: &'static str = TextRule::ALLOWED;
    fn allows(character: char) -> bool {
        TextRule::allows(character)
    }
}
/// The value of one additional attribute.
pub type AttributeValue = Name<AttributeValueRule>;

/// Rule of [`Follower`].
pub struct FollowerRule;
impl Rule for FollowerRule {
    const NAME: &'static str = "Follower";
    const BYTES_MAX: usize = 128;
    const ALLOWED: &'static str = TOKEN;
    fn allows(character: char) -> bool {
        is_token(character)
    }
}
/// Who follows the changes with a cursor that the store keeps: a receiver of notifications, an uplink.
pub type Follower = Name<FollowerRule>;

/// Rule of [`ChildName`].
pub struct ChildNameRule;
impl Rule for ChildNameRule {
    const NAME: &'static str = "ChildName";
    const BYTES_MAX: usize = 128;
    const ALLOWED: &'static str = TOKEN;
    fn allows(character: char) -> bool {
        is_token(character)
    }
}
/// The name of a node whose uplink ends at this one: of a site, the site's own; of an agent, its host's.
pub type ChildName = Name<ChildNameRule>;

/// Rule of [`TokenName`].
pub struct TokenNameRule;
impl Rule for TokenNameRule {
    const NAME: &'static str = "TokenName";
    const BYTES_MAX: usize = 64;
    const ALLOWED: &'static str = "ASCII letters, digits and . _ @ -";
    fn allows(character: char) -> bool {
        character.is_ascii_alphanumeric() || "._@-".contains(character)
    }
}
/// The name of a token; what its bearer does is done under it.
pub type TokenName = Name<TokenNameRule>;

impl From<&TokenName> for Actor {
    fn from(name: &TokenName) -> Self {
        Self(Arc::clone(&name.0), PhantomData)
    }
}

/// Rule of [`Door`].
pub struct DoorRule;
impl Rule for DoorRule {
    const NAME: &'static str = "Door";
    const BYTES_MAX: usize = 32;
    const ALLOWED: &'static str = TOKEN;
    fn allows(character: char) -> bool {
        is_token(character)
    }
}
/// The way by which an entry came in, e.g. `http`.
pub type Door = Name<DoorRule>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_rule() {
        assert_eq!(Site::new("cell-17/north").expect("valid").as_str(), "cell-17/north");
        assert_eq!(Site::new(""), Err(NameError::Empty));
        assert_eq!(Site::new(&"x".repeat(129)), Err(NameError::TooLong { bytes: 129, bytes_max: 128 }));
        assert!(matches!(Site::new("a b"), Err(NameError::Character { character: ' ', .. })));
        assert!(Qualifier::new("").is_ok());
        assert!(Text::new("two\nlines").is_ok());
        assert!(Text::new("bell\u{7}").is_err());
    }

    #[test]
    fn lossy_cuts_at_a_character_and_replaces_what_is_not_allowed() {
        let long = "ü".repeat(3000);
        let text = Text::lossy(&long).expect("fits after the cut");
        assert_eq!(text.len(), 4096);
        assert!(Site::lossy("a b").is_err(), "a question mark is no token either");
    }
}

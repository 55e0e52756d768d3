//! The resource: a containment path under a site (X.733 managed object instance, RFC 8632 resource).
//!
//! ```text
//! resource = element *( "." element )
//! element  = name "=" value | opaque          only the first may be opaque
//! name     = [A-Za-z_][A-Za-z0-9_-]*
//! ```
//!
//! An element starts at the beginning, or after a `.` that is followed by `name=`; every other dot belongs to the value.
//! So values may hold addresses, slashes and spaces, the text round-trips byte for byte, and `host=web-1` is an ancestor of
//! `host=web-1.port=eth0` but neither of `host=web-1.example.com` nor of `host=web-10`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

/// The most bytes a resource may have.
pub const RESOURCE_BYTES_MAX: usize = 1024;
/// The most elements a resource may have.
pub const RESOURCE_ELEMENTS_MAX: usize = 32;

/// A containment path, kept as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(Arc<str>);

/// One step of a resource's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// What stands before the `=`; `None` if the element is opaque.
    pub name: Option<&'a str>,
    /// What stands behind it, or the whole opaque text.
    pub value: &'a str,
}

/// Why a text is no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// More bytes than [`RESOURCE_BYTES_MAX`].
    #[error("is {bytes} bytes long, at most {RESOURCE_BYTES_MAX} are allowed")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// More elements than [`RESOURCE_ELEMENTS_MAX`].
    #[error("has more than {RESOURCE_ELEMENTS_MAX} elements")]
    TooDeep,
    /// A control character.
    #[error("has the control character {character:?}")]
    Control {
        /// The first one.
        character: char,
    },
}

impl Resource {
    /// Checks `text` and keeps it.
    pub fn new(text: &str) -> Result<Self, ResourceError> {
        if text.is_empty() {
            return Err(ResourceError::Empty);
        }
        if text.len() > RESOURCE_BYTES_MAX {
            return Err(ResourceError::TooLong { bytes: text.len() });
        }
        if let Some(character) = text.chars().find(|character| character.is_control()) {
            return Err(ResourceError::Control { character });
        }
        if boundaries(text).count() >= RESOURCE_ELEMENTS_MAX {
            return Err(ResourceError::TooDeep);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The elements from the outermost to the innermost.
    pub fn elements(&self) -> impl Iterator<Item = Element<'_>> {
        let text = self.as_str();
        let starts = std::iter::once(0).chain(boundaries(text).map(|dot| dot + 1));
        let ends = boundaries(text).chain(std::iter::once(text.len()));
        starts.zip(ends).map(|(start, end)| element(&text[start..end]))
    }

    /// Every path that contains this one, the outermost first, and last the resource itself.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let text = self.as_str();
        boundaries(text).chain(std::iter::once(text.len())).map(move |end| &text[..end])
    }

    /// Whether `other` is this resource or lies under it.
    pub fn contains(&self, other: &Resource) -> bool {
        match other.0.strip_prefix(self.as_str()) {
            Some("") => true,
            Some(rest) => starts_element(rest),
            None => false,
        }
    }
}

fn element(text: &str) -> Element<'_> {
    match text.split_once('=') {
        Some((name, value)) if is_name(name) => Element { name: Some(name), value },
        _ => Element { name: None, value: text },
    }
}

/// The offsets of the dots at which an element begins.
fn boundaries(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices('.').map(|(dot, _)| dot).filter(|dot| starts_element(&text[*dot..]))
}

/// Whether `rest` is `.name=…`.
pub(crate) fn starts_element(rest: &str) -> bool {
    rest.strip_prefix('.')
        .and_then(|behind| behind.as_bytes().iter().position(|byte| !is_name_byte(*byte)).map(|end| (behind, end)))
        .is_some_and(|(behind, end)| behind.as_bytes()[end] == b'=' && is_name(&behind[..end]))
}

pub(crate) fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && bytes.iter().all(|byte| is_name_byte(*byte))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl std::str::FromStr for Resource {
    type Err = ResourceError;
    fn from_str(text: &str) -> Result<Self, ResourceError> {
        Self::new(text)
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ResourceVisitor)
    }
}

struct ResourceVisitor;

impl serde::de::Visitor<'_> for ResourceVisitor {
    type Value = Resource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a resource such as host=web-1.filesystem=/var")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Resource, E> {
        Resource::new(text).map_err(E::custom)
    }
}

impl utoipa::PartialSchema for Resource {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .min_length(Some(1))
            .max_length(Some(RESOURCE_BYTES_MAX))
            .description(Some(
                "A containment path under a site: elements name=value joined by dots; a dot that no name= follows belongs to the value.",
            ))
            .examples(["host=web-1.filesystem=/var"])
            .into()
    }
}

impl utoipa::ToSchema for Resource {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(text: &str) -> Vec<String> {
        let resource = Resource::new(text).expect("valid");
        assert_eq!(resource.as_str(), text);
        resource
            .elements()
            .map(|element| match element.name {
                Some(name) => format!("{name}|{}", element.value),
                None => element.value.to_owned(),
            })
            .collect()
    }

    #[test]
    fn vectors() {
        assert_eq!(elements("host=compute-0"), ["host|compute-0"]);
        assert_eq!(elements("host=compute-0.filesystem=/var/log"), ["host|compute-0", "filesystem|/var/log"]);
        assert_eq!(elements("host=H.ntp"), ["host|H.ntp"]);
        assert_eq!(elements("host=H.ntp=10.0.0.1"), ["host|H", "ntp|10.0.0.1"]);
        assert_eq!(elements("host=H.ntp=2001:db8::1"), ["host|H", "ntp|2001:db8::1"]);
        assert_eq!(elements("cinder_io_monitor"), ["cinder_io_monitor"]);
        assert_eq!(elements("host=web-1.example.com"), ["host|web-1.example.com"]);
        assert_eq!(elements("host=a b.file=/tmp/x y=z"), ["host|a b", "file|/tmp/x y=z"]);
        assert_eq!(elements("system.certificate.mode=ssl.uuid=1"), ["system.certificate", "mode|ssl", "uuid|1"]);
        assert_eq!(elements("peer_group=g,peer=u"), ["peer_group|g,peer=u"]);
        assert_eq!(elements("host="), ["host|"]);
        assert_eq!(elements("a=1..b=2"), ["a|1.", "b|2"]);
        assert_eq!(elements("=x.a=1"), ["=x", "a|1"]);
        assert_eq!(elements("host=o'brien\".x=ü"), ["host|o'brien\"", "x|ü"]);
    }

    #[test]
    fn containment_is_by_element_and_never_by_prefix() {
        let contains =
            |outer: &str, inner: &str| Resource::new(outer).expect("valid").contains(&Resource::new(inner).expect("valid"));
        assert!(contains("host=web-1", "host=web-1"));
        assert!(contains("host=web-1", "host=web-1.port=eth0"));
        assert!(!contains("host=web-1", "host=web-1.example.com"));
        assert!(!contains("host=compute-1", "host=compute-10"));
        assert!(!contains("host=compute_1", "host=computeX1"));
        assert!(contains("host=H", "host=H.ntp=10.0.0.1"));
        assert!(!contains("host=H.ntp", "host=H.ntp=10.0.0.1"));
        assert!(!contains("host=web-1.port=eth0", "host=web-1"));
        assert!(contains("system.certificate", "system.certificate.mode=ssl"));
    }

    #[test]
    fn limits() {
        assert_eq!(Resource::new(""), Err(ResourceError::Empty));
        assert!(matches!(Resource::new(&"x".repeat(1025)), Err(ResourceError::TooLong { bytes: 1025 })));
        let deep = |elements: usize| (0..elements).map(|n| format!("a={n}")).collect::<Vec<_>>().join(".");
        assert!(Resource::new(&deep(32)).is_ok());
        assert_eq!(Resource::new(&deep(33)), Err(ResourceError::TooDeep));
        assert!(matches!(Resource::new("a=\n"), Err(ResourceError::Control { .. })));
    }

    proptest! {
        #[test]
        fn the_elements_join_to_the_text_and_each_path_contains_it(text in "[a-c=._-]{1,40}") {
            let resource = Resource::new(&text).expect("within limits");
            let joined: Vec<String> = resource.elements().map(|element| match element.name {
                Some(name) => format!("{name}={}", element.value),
                None => element.value.to_owned(),
            }).collect();
            prop_assert_eq!(joined.join("."), text);
            for path in resource.paths() {
                if !path.is_empty() {
                    prop_assert!(Resource::new(path).expect("a part of it").contains(&resource));
                }
            }
        }
    }
}

//! The published JSON Schema files of version 1, generated from the types; `schemas/json/` holds them.

use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Action, Alarm, Change, Entry, Event, Notifications, Touched};
use crate::catalogue::CatalogueFile;
use crate::state::Cursor;

/// Every published schema: the file's name and its text.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("event.v1.schema.json", document::<Event>("Event")),
        ("alarm.v1.schema.json", document::<Alarm>("Alarm")),
        ("change.v1.schema.json", document::<Change>("Change")),
        ("notification.v1.schema.json", document::<Notifications>("Notifications")),
        ("action.v1.schema.json", document::<Action>("Action")),
        ("entry.v1.schema.json", document::<Entry>("Entry")),
        ("touched.v1.schema.json", document::<Touched>("Touched")),
        ("cursor.v1.schema.json", document::<Cursor>("Cursor")),
        ("catalogue.v1.schema.json", document::<CatalogueFile>("Catalogue")),
    ]
}

/// One type with all it refers to. OpenAPI 3.1 schemas are JSON Schema 2020-12; only the place of the parts differs.
fn document<T: ToSchema>(title: &str) -> String {
    let mut parts: Vec<(String, RefOr<Schema>)> = Vec::new();
    T::schemas(&mut parts);
    parts.sort_by(|(left, _), (right, _)| left.cmp(right));
    parts.dedup_by(|(left, _), (right, _)| left == right);
    let mut root = serde_json::to_value(<T as PartialSchema>::schema()).expect("a schema serializes");
    let object = root.as_object_mut().expect("a type's schema is an object");
    object.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    object.insert("title".to_owned(), title.into());
    if !parts.is_empty() {
        let defs: serde_json::Map<String, serde_json::Value> = parts
            .into_iter()
            .map(|(name, schema)| (name, serde_json::to_value(schema).expect("a schema serializes")))
            .collect();
        object.insert("$defs".to_owned(), defs.into());
    }
    let text = serde_json::to_string_pretty(&root).expect("a value serializes");
    text.replace("#/components/schemas/", "#/$defs/") + "\n"
}

#[cfg(test)]
mod tests {
    /// Run with `KLAXON_BLESS=1` to write the files anew.
    #[test]
    fn the_published_schemas_are_true() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
        for (name, text) in super::files() {
            let path = folder.join(name);
            if std::env::var_os("KLAXON_BLESS").is_some() {
                std::fs::create_dir_all(&folder).expect("can be made");
                std::fs::write(&path, &text).expect("can be written");
            }
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(published == text, "{} is not what the types say; run the test with KLAXON_BLESS=1", path.display());
        }
    }
}

//! `[catalogue]`: which types of alarms are known beside those that come with the program.

use std::path::PathBuf;
use std::sync::Arc;

use klaxon_schemas::catalogue::{Catalogue, CatalogueFile};
use klaxon_schemas::entry::BUNDLE_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::text::line_of;

/// The most files.
const FILES_MAX: usize = 64;
/// The largest file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where types of alarms are written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogueSection {
    files: Vec<PathBuf>,
}

impl CatalogueSection {
    /// What comes with the program and what the files say; or the key that is wrong, and why. Reads the files.
    pub fn build(&self) -> Result<Arc<Catalogue>, (String, String)> {
        let wrong = |reason: String| ("catalogue.files".to_owned(), reason);
        if self.files.len() > FILES_MAX {
            return Err(wrong(format!("has {} files, at most {FILES_MAX} are allowed", self.files.len())));
        }
        let files: Result<Vec<_>, _> = self.files.iter().map(read).collect();
        let catalogue = Catalogue::built_in().with(files.map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
        let bytes = serde_json::to_vec(&catalogue.to_file()).map_or(usize::MAX, |text| text.len());
        if bytes > BUNDLE_BYTES_MAX {
            return Err(wrong(format!("comes to {bytes} bytes with what is built in, at most {BUNDLE_BYTES_MAX} are allowed")));
        }
        Ok(Arc::new(catalogue))
    }
}

/// A file of types; or what is wrong with it, and where.
pub(crate) fn read(path: &PathBuf) -> Result<CatalogueFile, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let file = CatalogueFile::parse(&text).map_err(|error| match error.span() {
        Some(span) => format!("{}:{}: {}", path.display(), line_of(&text, span.start), error.reason()),
        None => format!("{}: {}", path.display(), error.reason()),
    })?;
    // By itself, so that what stands twice is said of the file in which it does.
    Catalogue::empty().with(vec![file.clone()]).map_err(|error| format!("{}: {}", path.display(), error.reason()))?;
    Ok(file)
}

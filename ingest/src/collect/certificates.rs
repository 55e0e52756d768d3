//! Whether certificates in files are still valid, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use klaxon_schemas::event::Attributes;
use klaxon_schemas::names::{AttributeName, AttributeValue, Qualifier};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::gate::Gates;
use super::pattern::{FILES_MAX, PathGlob};
use super::{Collector, Finding, Host, Look, LookError, Reading, Subject, Thresholds, Told};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The most certificates of one file that are looked at.
const CERTIFICATES_MAX: usize = 500;
/// For how long a file must have been unreadable: one that is being replaced is so for a moment.
const UNREADABLE_AFTER: Duration = Duration::from_secs(60);
/// What a certificate is called in PEM (RFC 7468, and what OpenSSL writes).
const LABELS: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
const DAY_S: i64 = 24 * 3600;

/// What the collector `certificates` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificatesConfig {
    /// How often it looks; it also looks when a certificate comes nearer to its end by a level.
    pub interval: Duration,
    /// Files of certificates, in PEM (several of them, if need be, and keys, which are passed over) or DER.
    pub files: Vec<PathGlob>,
    /// How long before its end a certificate is major.
    pub expiring_before: Duration,
    /// How long before its end a certificate is a warning; none if absent.
    pub warning_before: Option<Duration>,
}

impl Default for CertificatesConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3600),
            files: Vec::new(),
            expiring_before: Duration::from_secs(30 * 24 * 3600),
            warning_before: None,
        }
    }
}

pub(super) struct Certificates {
    config: CertificatesConfig,
    host: Host,
    unreadable: Thresholds,
    gates: Gates,
}

/// What of a certificate counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Certificate {
    subject: String,
    issuer: String,
    serial: String,
    /// In seconds since 1970.
    not_before_s: i64,
    not_after_s: i64,
}

/// Why a file has no certificates.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("has no certificate in it")]
    Empty,
    #[error("certificate {number}: {reason}")]
    Malformed { number: usize, reason: String },
}

impl Certificates {
    pub(super) fn new(config: &CertificatesConfig, host: &Host) -> Self {
        let unreadable = Thresholds::on_off(Severity::Minor, UNREADABLE_AFTER, Duration::ZERO);
        Self { config: config.clone(), host: host.clone(), unreadable, gates: Gates::default() }
    }

    fn look_at(&mut self, now: Duration, wall_s: i64, told: &Told) -> Look {
        if self.config.files.is_empty() {
            return Look::not_applicable("no files are configured");
        }
        let mut look = Look::default();
        let mut boundary_s: Option<i64> = None;
        let (mut paths, mut unreadable) = (BTreeSet::new(), BTreeMap::new());
        for glob in &self.config.files {
            let files = glob.files();
            if files.paths.is_empty() && files.unreadable.is_empty() {
                let what = self.host.part("certificate", glob.as_str()).to_string();
                look.readings.push(Reading { what, value: "no such file".to_owned(), severity: None });
            }
            if files.paths.len() >= FILES_MAX {
                tracing::warn!(files = glob.as_str(), limit = FILES_MAX, "only some of the certificates are looked at");
            }
            paths.extend(files.paths);
            unreadable.extend(files.unreadable);
        }
        for (folder, error) in unreadable {
            self.cannot_read(&folder, &error.to_string(), now, told, &mut look);
            look.unseen.extend(self.told_below(&folder, told));
        }
        for path in paths {
            let resource = self.host.part("certificate", &path.to_string_lossy());
            match read(&path) {
                Ok(certificates) => {
                    let is_one = certificates.len() == 1;
                    for certificate in &certificates {
                        let subject = Subject {
                            qualifier: qualifier(if is_one { "" } else { &certificate.serial }),
                            ..Subject::new(resource.clone(), "certificate.expiring")
                        };
                        let next = self.judge(certificate, subject, wall_s, &mut look);
                        boundary_s = boundary_s.into_iter().chain(next).min();
                    }
                }
                Err(error) => {
                    self.cannot_read(&path, &error.to_string(), now, told, &mut look);
                    // What was known of its certificates is the best there is.
                    look.unseen.push(resource);
                }
            }
        }
        // A second after the boundary: then it is crossed.
        let boundary = boundary_s.and_then(|at_s| u64::try_from(at_s.saturating_sub(wall_s)).ok());
        let boundary = boundary.map(|seconds| Duration::from_secs(seconds.saturating_add(1)));
        look.again_in = self.gates.finish().into_iter().chain(boundary).min();
        look
    }
}

impl Certificates {
    /// What holds of a certificate, and when that changes, in seconds since 1970.
    fn judge(&self, certificate: &Certificate, subject: Subject, wall_s: i64, look: &mut Look) -> Option<i64> {
        let Certificate { subject: holder, issuer, not_before_s, not_after_s, .. } = certificate;
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let major_s = not_after_s.saturating_sub(seconds(self.config.expiring_before));
        let warning_s = self.config.warning_before.map(|before| not_after_s.saturating_sub(seconds(before)));
        let until = date(*not_after_s);
        let days = (not_after_s - wall_s).div_euclid(DAY_S);
        let named = format!("{holder}, issued by {issuer}");
        let (alarm_type, severity, text) = if wall_s > *not_after_s {
            (
                "certificate.expired",
                Some(Severity::Critical),
                format!("The certificate of {named} has expired: it was valid until {until}."),
            )
        } else if wall_s < *not_before_s {
            let text = format!("The certificate of {named} is not valid before {}.", date(*not_before_s));
            ("certificate.not-yet-valid", Some(Severity::Minor), text)
        } else if wall_s >= major_s || warning_s.is_some_and(|warning_s| wall_s >= warning_s) {
            let severity = if wall_s >= major_s { Severity::Major } else { Severity::Warning };
            (
                "certificate.expiring",
                Some(severity),
                format!("The certificate of {named} is valid for {days} more days, until {until}."),
            )
        } else {
            ("certificate.expiring", None, String::new())
        };
        let what = match subject.qualifier.as_str() {
            "" => subject.resource.to_string(),
            serial => format!("{} {serial}", subject.resource),
        };
        look.readings.push(Reading { what, value: format!("{holder}: until {until}, {days} days"), severity });
        if let Some(severity) = severity {
            let subject = Subject { qualifier: subject.qualifier, ..Subject::new(subject.resource, alarm_type) };
            let named = [("subject", holder), ("issuer", issuer), ("serial", &certificate.serial), ("not-after", &until)];
            let attributes = named.into_iter().filter_map(|(name, value)| {
                Some((AttributeName::new(name).expect("is a name"), AttributeValue::lossy(value).ok()?))
            });
            let attributes = Attributes::new(attributes.collect()).expect("are few");
            look.findings.push(Finding { attributes, ..Finding::new(subject, severity, &text) });
        }
        let boundaries = [Some(*not_before_s), warning_s, Some(major_s), Some(*not_after_s)];
        boundaries.into_iter().flatten().filter(|at_s| *at_s >= wall_s).min()
    }

    /// What stands raised about files below `folder`.
    fn told_below(&self, folder: &Path, told: &Told) -> Vec<Resource> {
        // What is escaped in a path depends on the whole of it.
        let plain = |resource: &Resource| resource.as_str().replace("%3D", "=");
        let folder = folder.to_string_lossy();
        let below = plain(&self.host.part("certificate", folder.trim_end_matches('/'))) + "/";
        let resources = told.0.keys().map(|subject| &subject.resource);
        resources.filter(|resource| plain(resource).starts_with(&below)).cloned().collect()
    }

    fn cannot_read(&mut self, path: &Path, why: &str, now: Duration, told: &Told, look: &mut Look) {
        let subject = Subject::new(self.host.part("certificate", &path.to_string_lossy()), "certificate.unreadable");
        let what = subject.resource.to_string();
        look.readings.push(Reading { what, value: format!("unreadable: {why}"), severity: Some(Severity::Minor) });
        if let Some(severity) = self.gates.judge(now, &self.unreadable, &subject, 1.0, told) {
            let text = format!("The certificates of {} cannot be read: {why}.", path.display());
            look.findings.push(Finding::new(subject, severity, &text));
        }
    }
}

fn qualifier(serial: &str) -> Qualifier {
    Qualifier::lossy(serial).expect("may be empty")
}

/// A time as certificates say it, for people.
fn date(at_s: i64) -> String {
    match klaxon_schemas::time::Timestamp::from_micros(at_s.saturating_mul(1_000_000)) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => "a time beyond all clocks".to_owned(),
    }
}

/// The certificates of a file.
fn read(path: &Path) -> Result<Vec<Certificate>, FileError> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge);
    }
    parse(&content)
}

fn parse(content: &[u8]) -> Result<Vec<Certificate>, FileError> {
    let malformed = |number: usize, reason: String| FileError::Malformed { number, reason };
    if !content.windows(11).any(|window| window == b"-----BEGIN ") {
        let certificate = certificate(content).map_err(|reason| malformed(1, reason))?;
        return Ok(vec![certificate]);
    }
    let mut found: BTreeMap<String, Certificate> = BTreeMap::new();
    let mut number = 0;
    for block in Pem::iter_from_buffer(content) {
        let block = block.map_err(|error| malformed(number + 1, error.to_string()))?;
        if !LABELS.contains(&block.label.as_str()) {
            continue;
        }
        number += 1;
        if number > CERTIFICATES_MAX {
            tracing::warn!(limit = CERTIFICATES_MAX, "only some certificates of a file are looked at");
            break;
        }
        let certificate = certificate(&block.contents).map_err(|reason| malformed(number, reason))?;
        // The same one may stand there twice; of two with one number the one that ends first counts.
        match found.get(&certificate.serial) {
            Some(known) if known.not_after_s <= certificate.not_after_s => {}
            _ => _ = found.insert(certificate.serial.clone(), certificate),
        }
    }
    if found.is_empty() { Err(FileError::Empty) } else { Ok(found.into_values().collect()) }
}

fn certificate(der: &[u8]) -> Result<Certificate, String> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| match error {
        x509_parser::nom::Err::Incomplete(_) => "ends too early".to_owned(),
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => error.to_string(),
    })?;
    let name = |name: String| if name.is_empty() { "nobody".to_owned() } else { name };
    Ok(Certificate {
        subject: name(parsed.subject().to_string()),
        issuer: name(parsed.issuer().to_string()),
        serial: parsed.raw_serial_as_string(),
        not_before_s: seconds(parsed.validity().not_before),
        not_after_s: seconds(parsed.validity().not_after),
    })
}

fn seconds(time: ASN1Time) -> i64 {
    time.timestamp()
}

impl Collector for Certificates {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = wall.map_err(|error| LookError::new("read the wall clock", error))?;
        let wall_s = i64::try_from(wall.as_secs()).map_err(|error| LookError::new("read the wall clock", error))?;
        Ok(self.look_at(now, wall_s, told))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber, date_time_ymd};
    use std::path::PathBuf;

    use super::*;

    /// 2026-01-01.
    const NEW_YEAR_S: i64 = 1_767_225_600;

    /// Valid from 2025-12-01 to 2026-06-01.
    fn certificate(name: &str, serial: u64) -> (String, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (date_time_ymd(2025, 12, 1), date_time_ymd(2026, 6, 1));
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        (format!("{}{}", key.serialize_pem(), made.pem()), made.der().to_vec())
    }

    fn file(dir: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    fn of(path: &Path) -> Certificates {
        let files = vec![PathGlob::new(&path.to_string_lossy()).expect("is one")];
        let warning_before = Some(Duration::from_secs(60 * 24 * 3600));
        let config = CertificatesConfig { files, warning_before, ..CertificatesConfig::default() };
        Certificates::new(&config, &Host::new("a").expect("is a name"))
    }

    fn at(certificates: &mut Certificates, wall_s: i64) -> Look {
        certificates.look_at(Duration::ZERO, wall_s, &Told::default())
    }

    #[test]
    fn a_certificate_goes_through_its_life() {
        let dir = tempfile::tempdir().expect("a folder");
        let (pem, der) = certificate("web", 0x2a);
        let ends_s = NEW_YEAR_S + 151 * DAY_S;
        for (name, content) in [("web.pem", pem.as_bytes()), ("web.der", &der)] {
            let path = file(&dir, name, content);
            let mut certificates = of(&path);
            let holds = |look: &Look| {
                let found = look.findings.iter();
                found.map(|finding| (finding.subject.alarm_type.to_string(), finding.severity)).collect::<Vec<_>>()
            };
            let mut play = |wall_s: i64, expected: Option<(&str, Severity)>, again_s: Option<i64>| {
                let look = at(&mut certificates, wall_s);
                let expected: Vec<_> = expected.into_iter().map(|(kind, severity)| (kind.to_owned(), severity)).collect();
                assert_eq!(holds(&look), expected, "{name} at {wall_s}");
                let again = again_s.and_then(|at_s| u64::try_from(at_s - wall_s + 1).ok()).map(Duration::from_secs);
                assert_eq!(look.again_in, again, "{name} at {wall_s}");
            };
            let (warning_s, major_s) = (ends_s - 60 * DAY_S, ends_s - 30 * DAY_S);
            let begins_s = NEW_YEAR_S - 31 * DAY_S;
            play(begins_s - 1, Some(("certificate.not-yet-valid", Severity::Minor)), Some(begins_s));
            play(NEW_YEAR_S, None, Some(warning_s));
            play(warning_s + 1, Some(("certificate.expiring", Severity::Warning)), Some(major_s));
            play(major_s + 1, Some(("certificate.expiring", Severity::Major)), Some(ends_s));
            play(ends_s, Some(("certificate.expiring", Severity::Major)), Some(ends_s));
            play(ends_s + 1, Some(("certificate.expired", Severity::Critical)), None);
            let look = at(&mut certificates, ends_s + 1);
            let finding = &look.findings[0];
            assert_eq!(finding.subject.resource.as_str(), format!("host=a.certificate={}", path.display()));
            assert_eq!(
                finding.text.as_str(),
                "The certificate of CN=web, issued by CN=web has expired: it was valid until 2026-06-01T00:00:00Z."
            );
            assert_eq!(finding.attributes.get("serial").map(AttributeValue::as_str), Some("2a"));
        }
    }

    #[test]
    fn of_several_in_a_file_each_is_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let chain = format!("{}\n# and\n{}{}", certificate("a", 1).0, certificate("b", 2).0, certificate("c", 2).0);
        let look = at(&mut of(&file(&dir, "chain.pem", chain)), NEW_YEAR_S + 365 * DAY_S);
        let serials: Vec<_> = look.findings.iter().map(|finding| finding.subject.qualifier.to_string()).collect();
        assert_eq!(serials, ["01", "02"]);
        assert_eq!(look.readings.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_told_after_a_while_and_what_was_known_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let why = |content: &[u8]| parse(content).expect_err("is none").to_string();
        assert_eq!(why(b""), "certificate 1: ends too early");
        assert_eq!(why(KeyPair::generate().expect("a key").serialize_pem().as_bytes()), "has no certificate in it");
        let (pem, _) = certificate("web", 1);
        assert!(why(&pem.as_bytes()[..pem.len() - 40]).starts_with("certificate 1: "));
        assert!(
            why(pem.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nAAAA").as_bytes())
                .starts_with("certificate 1: ")
        );
        for name in ["broken.pem", "missing.pem"] {
            let path = dir.path().join(name);
            if name == "broken.pem" {
                std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").expect("a file");
            }
            let mut certificates = of(&path);
            let look = at(&mut certificates, NEW_YEAR_S);
            assert_eq!((look.findings.len(), look.again_in), (0, Some(UNREADABLE_AFTER)));
            let resource = certificates.host.part("certificate", &path.to_string_lossy());
            assert_eq!(look.unseen, [resource]);
            let look = certificates.look_at(UNREADABLE_AFTER, NEW_YEAR_S, &Told::default());
            assert_eq!(look.findings.len(), 1);
            assert_eq!(look.findings[0].subject.alarm_type.as_str(), "certificate.unreadable");
        }
        let none = of(&dir.path().join("*.crt")).look_at(Duration::ZERO, NEW_YEAR_S, &Told::default());
        assert_eq!((none.findings.len(), none.readings.len()), (0, 1));
        let off = Certificates::new(&CertificatesConfig::default(), &Host::new("a").expect("is a name"));
        assert!({ off }.look(Duration::ZERO, &Told::default()).expect("looks").not_applicable.is_some());
    }
    #[test]
    fn a_folder_that_cannot_be_read_clears_nothing_below_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for folder in [&one, &two] {
            std::fs::create_dir(folder).expect("a folder");
            std::fs::write(folder.join("web.pem"), certificate("web", 1).0).expect("a file");
        }
        // A link to itself cannot be read by anybody, root included.
        let broken = dir.path().join("broken");
        std::os::unix::fs::symlink(&broken, &broken).expect("a link");
        let mut certificates = of(&dir.path().join("*/*.pem"));
        let (told_at, gone) = (broken.join("a=b.pem"), one.join("gone.pem"));
        let expired = |path: &Path| {
            Subject::new(Host::new("a").expect("is a name").part("certificate", &path.to_string_lossy()), "certificate.expired")
        };
        let told = Told(BTreeMap::from([(expired(&told_at), Severity::Critical), (expired(&gone), Severity::Critical)]));
        let look = certificates.look_at(Duration::ZERO, NEW_YEAR_S + 365 * DAY_S, &told);
        assert_eq!(look.unseen, [expired(&told_at).resource], "what is gone elsewhere is gone");
        let mut found: Vec<_> = look.findings.iter().map(|finding| finding.subject.clone()).collect();
        found.sort();
        assert_eq!(found, [expired(&one.join("web.pem")), expired(&two.join("web.pem"))], "the rest is looked at");
        let look = certificates.look_at(UNREADABLE_AFTER, NEW_YEAR_S, &told);
        let folder = &look.findings[0].subject;
        assert_eq!(folder.alarm_type.as_str(), "certificate.unreadable");
        assert!(folder.resource.as_str().ends_with("/broken"), "{folder:?}");
        // A file of which it cannot be told whether it is one is taken for one.
        let look = at(&mut of(&dir.path().join("bro*")), NEW_YEAR_S);
        assert_eq!(look.unseen.len(), 1);
    }
}

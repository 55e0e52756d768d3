//! Tokens: what a node below, a person or a program proves itself with. Only their hashes are kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// What a token begins with, so that one that was left lying about is known for what it is.
pub(crate) const PREFIX: &str = "klaxon_";
/// The longest text that is looked at as a token.
const BYTES_MAX: usize = 256;

/// A token that was just made. Its text is told once and then forgotten.
#[derive(Clone)]
pub struct NewToken {
    /// The text.
    pub text: String,
    /// SHA-256 of it, in hexadecimal digits.
    pub hash: String,
}

/// A token that nobody can guess: 244 random bits, and their hash.
pub fn new_token() -> NewToken {
    // Version 4 is made of what the system's generator gives.
    let mut hash = Sha256::new();
    hash.update(Uuid::new_v4().as_bytes());
    hash.update(Uuid::new_v4().as_bytes());
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(hash.finalize()));
    NewToken { hash: digest(&text), text }
}

/// SHA-256 of a token, in hexadecimal digits.
fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of a token that somebody shows; nothing if it can be none.
pub(crate) fn hash_of(token: &str) -> Option<String> {
    (!token.is_empty() && token.len() <= BYTES_MAX).then(|| digest(token))
}

/// The hash of what somebody shows that may be another's token, and so longer.
pub(crate) fn hash_of_any(token: &str) -> Option<String> {
    (!token.is_empty()).then(|| digest(token))
}

/// Whether two hashes are the same; how long it takes says nothing of where they differ.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |seen, (one, other)| seen | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_and_no_two_are_the_same() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one.text, other.text);
        assert_eq!(hash_of(&one.text).as_deref(), Some(&*one.hash));
        assert!(is_same(&one.hash, &one.hash) && !is_same(&one.hash, &other.hash) && !is_same(&one.hash, ""));
        assert_eq!((one.hash.len(), one.text.len()), (64, PREFIX.len() + 43));
        assert_eq!(hash_of(&"x".repeat(BYTES_MAX + 1)), None);
    }
}

//! What SNMPv3 is protected by: our words, and those of net-snmp.

/// How messages are authenticated.
pub(crate) const AUTHS: [(&str, &str); 6] = [
    ("md5", "MD5"),
    ("sha1", "SHA"),
    ("sha224", "SHA-224"),
    ("sha256", "SHA-256"),
    ("sha384", "SHA-384"),
    ("sha512", "SHA-512"),
];

/// How messages are hidden; the first is not at all.
pub(crate) const PRIVACIES: [(&str, &str); 7] = [
    ("", ""),
    ("des", "DES"),
    ("aes128", "AES"),
    ("aes192", "AES-192"),
    ("aes256", "AES-256"),
    ("aes192-cisco", "AES-192-C"),
    ("aes256-cisco", "AES-256-C"),
];

//! X.733 probable causes as numbers: those of StarlingX's MIB and those that IANA gives (IANA-ITU-ALARM-TC-MIB, RFC 3877).

/// `other` in IANAItuProbableCause: the word has no number.
pub(crate) const OTHER: i32 = 1024;

/// The words, in the order of WrsAlarmProbableCause, which begins with 1, with the number in IANAItuProbableCause. Where that has
/// two, it is the one of X.733.
const CAUSES: [(&str, i32); 74] = [
    ("adaptor-error", 500),
    ("application-subsystem-failure", 501),
    ("bandwidth-reduced", 502),
    ("call-establishment-error", 503),
    ("communication-protocol-error", 504),
    ("communication-subsystem-failure", 505),
    ("configuration-or-customization-error", 506),
    ("congestion", 507),
    ("corrupt-data", 508),
    ("cpu-cycles-limit-exceeded", 509),
    ("dataset-or-modem-error", 510),
    ("degraded-signal", 511),
    ("dte-dce-interface-error", 512),
    ("enclosure-door-open", 513),
    ("equipment-malfunction", 514),
    ("excessive-vibration", 515),
    ("file-error", 516),
    ("fire-detected", 517),
    ("flood-detected", 121),
    ("framing-error", 518),
    ("heating-ventilation-cooling-system-problem", 519),
    ("humidity-unacceptable", 520),
    ("io-device-error", 521),
    ("input-device-error", 522),
    ("lan-error", 523),
    ("leak-detected", 524),
    ("local-node-transmission-error", 525),
    ("loss-of-frame", 526),
    ("loss-of-signal", 527),
    ("material-supply-exhausted", 528),
    ("multiplexer-problem", 529),
    ("out-of-memory", 530),
    ("output-device-error", 531),
    ("performance-degraded", 532),
    ("power-problem", 533),
    ("processor-problem", 535),
    ("pump-failure", 536),
    ("queue-size-exceeded", 537),
    ("receive-failure", 538),
    ("receiver-failure", 539),
    ("remote-node-transmission-error", 540),
    ("resource-at-or-nearing-capacity", 541),
    ("response-time-excessive", 542),
    ("retransmission-rate-excessive", 543),
    ("software-error", 544),
    ("software-program-abnormally-terminated", 545),
    ("software-program-error", 546),
    ("storage-capacity-problem", 547),
    ("temperature-unacceptable", 548),
    ("threshold-crossed", 549),
    ("timing-problem", 550),
    ("toxic-leak-detected", 551),
    ("transmit-failure", 552),
    ("transmitter-failure", 553),
    ("underlying-resource-unavailable", 554),
    ("version-mismatch", 555),
    ("duplicate-information", 605),
    ("information-missing", 606),
    ("information-modification-detected", 607),
    ("information-out-of-sequence", 608),
    ("unexpected-information", 615),
    ("denial-of-service", 604),
    ("out-of-service", 612),
    ("procedural-error", 613),
    ("unspecified-reason", OTHER),
    ("cable-tamper", 602),
    ("intrusion-detection", 126),
    ("authentication-failure", 600),
    ("breach-of-confidentiality", 601),
    ("non-repudiation-failure", 610),
    ("unauthorized-access-attempt", 614),
    ("delayed-information", 603),
    ("key-expired", 609),
    ("out-of-hours-activity", 611),
];

/// The number that StarlingX gives the word; 0, not-applicable, if it knows no such.
pub(crate) fn wrs(cause: Option<&str>) -> i32 {
    let place = cause.and_then(|cause| CAUSES.iter().position(|(word, _)| *word == cause));
    place.map_or(0, |place| i32::try_from(place + 1).expect("is small"))
}

/// The number that IANA gives the word; [`OTHER`] if it knows no such.
pub(crate) fn iana(cause: Option<&str>) -> i32 {
    CAUSES.iter().find(|(word, _)| Some(*word) == cause).map_or(OTHER, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_numbers() {
        let both = |word| (wrs(Some(word)), iana(Some(word)));
        assert_eq!(both("adaptor-error"), (1, 500));
        assert_eq!(both("threshold-crossed"), (50, 549));
        assert_eq!(both("version-mismatch"), (56, 555));
        assert_eq!(both("out-of-hours-activity"), (74, 611));
        assert_eq!(both("certificate-expiration"), (0, OTHER));
        assert_eq!((wrs(None), iana(None)), (0, OTHER));
    }
}

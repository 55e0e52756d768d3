//! X.733 probable causes as the numbers that IANA gives them (IANA-ITU-ALARM-TC-MIB, RFC 3877).

/// `other` in IANAItuProbableCause: the word has no number.
pub(crate) const OTHER: i32 = 1024;

/// The words, with number and label in IANAItuProbableCause (its
/// misspellings are its own). Where that has two, it is the one of X.733.
const CAUSES: [(&str, i32, &str); 74] = [
    ("adaptor-error", 500, "adapterError"),
    ("application-subsystem-failure", 501, "applicationSubsystemFailture"),
    ("bandwidth-reduced", 502, "bandwidthReducedX733"),
    ("call-establishment-error", 503, "callEstablishmentError"),
    ("communication-protocol-error", 504, "communicationsProtocolError"),
    ("communication-subsystem-failure", 505, "communicationsSubsystemFailure"),
    ("configuration-or-customization-error", 506, "configurationOrCustomizationError"),
    ("congestion", 507, "congestionX733"),
    ("corrupt-data", 508, "coruptData"),
    ("cpu-cycles-limit-exceeded", 509, "cpuCyclesLimitExceeded"),
    ("dataset-or-modem-error", 510, "dataSetOrModemError"),
    ("degraded-signal", 511, "degradedSignalX733"),
    ("dte-dce-interface-error", 512, "dteDceInterfaceError"),
    ("enclosure-door-open", 513, "enclosureDoorOpenX733"),
    ("equipment-malfunction", 514, "equipmentMalfunction"),
    ("excessive-vibration", 515, "excessiveVibration"),
    ("file-error", 516, "fileErrorX733"),
    ("fire-detected", 517, "fireDetected"),
    ("flood-detected", 121, "flood"),
    ("framing-error", 518, "framingErrorX733"),
    ("heating-ventilation-cooling-system-problem", 519, "heatingVentCoolingSystemProblem"),
    ("humidity-unacceptable", 520, "humidityUnacceptable"),
    ("io-device-error", 521, "inputOutputDeviceError"),
    ("input-device-error", 522, "inputDeviceError"),
    ("lan-error", 523, "lanError"),
    ("leak-detected", 524, "leakDetected"),
    ("local-node-transmission-error", 525, "localNodeTransmissionErrorX733"),
    ("loss-of-frame", 526, "lossOfFrameX733"),
    ("loss-of-signal", 527, "lossOfSignalX733"),
    ("material-supply-exhausted", 528, "materialSupplyExhausted"),
    ("multiplexer-problem", 529, "multiplexerProblemX733"),
    ("out-of-memory", 530, "outOfMemoryX733"),
    ("output-device-error", 531, "ouputDeviceError"),
    ("performance-degraded", 532, "performanceDegraded"),
    ("power-problem", 533, "powerProblems"),
    ("processor-problem", 535, "processorProblems"),
    ("pump-failure", 536, "pumpFailureX733"),
    ("queue-size-exceeded", 537, "queueSizeExceeded"),
    ("receive-failure", 538, "receiveFailureX733"),
    ("receiver-failure", 539, "receiverFailureX733"),
    ("remote-node-transmission-error", 540, "remoteNodeTransmissionErrorX733"),
    ("resource-at-or-nearing-capacity", 541, "resourceAtOrNearingCapacity"),
    ("response-time-excessive", 542, "responseTimeExecessive"),
    ("retransmission-rate-excessive", 543, "retransmissionRateExcessive"),
    ("software-error", 544, "softwareErrorX733"),
    ("software-program-abnormally-terminated", 545, "softwareProgramAbnormallyTerminated"),
    ("software-program-error", 546, "softwareProgramError"),
    ("storage-capacity-problem", 547, "storageCapacityProblemX733"),
    ("temperature-unacceptable", 548, "temperatureUnacceptable"),
    ("threshold-crossed", 549, "thresholdCrossed"),
    ("timing-problem", 550, "timingProblemX733"),
    ("toxic-leak-detected", 551, "toxicLeakDetected"),
    ("transmit-failure", 552, "transmitFailureX733"),
    ("transmitter-failure", 553, "transmiterFailure"),
    ("underlying-resource-unavailable", 554, "underlyingResourceUnavailable"),
    ("version-mismatch", 555, "versionMismatchX733"),
    ("duplicate-information", 605, "duplicateInformation"),
    ("information-missing", 606, "informationMissing"),
    ("information-modification-detected", 607, "informationModificationDetected"),
    ("information-out-of-sequence", 608, "informationOutOfSequence"),
    ("unexpected-information", 615, "unexpectedInformation"),
    ("denial-of-service", 604, "denialOfService"),
    ("out-of-service", 612, "outOfService"),
    ("procedural-error", 613, "proceduralError"),
    ("unspecified-reason", OTHER, "other"),
    ("cable-tamper", 602, "cableTamper"),
    ("intrusion-detection", 126, "intrusionDetection"),
    ("authentication-failure", 600, "authenticationFailure"),
    ("breach-of-confidentiality", 601, "breachOfConfidentiality"),
    ("non-repudiation-failure", 610, "nonRepudiationFailure"),
    ("unauthorized-access-attempt", 614, "unauthorizedAccessAttempt"),
    ("delayed-information", 603, "delayedInformation"),
    ("key-expired", 609, "keyExpired"),
    ("out-of-hours-activity", 611, "outOfHoursActivity"),
];

/// The number that IANA gives the word; [`OTHER`] if it knows no such.
pub(crate) fn iana(cause: Option<&str>) -> i32 {
    CAUSES.iter().find(|(word, _, _)| Some(*word) == cause).map_or(OTHER, |(_, number, _)| *number)
}

/// The label that IANA gives it; `other` if it knows no such.
pub(crate) fn label(cause: Option<&str>) -> &'static str {
    CAUSES.iter().find(|(word, _, _)| Some(*word) == cause).map_or("other", |(_, _, label)| *label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_numbers() {
        assert_eq!(iana(Some("adaptor-error")), 500);
        assert_eq!(iana(Some("threshold-crossed")), 549);
        assert_eq!(iana(Some("version-mismatch")), 555);
        assert_eq!(iana(Some("out-of-hours-activity")), 611);
        assert_eq!((iana(Some("certificate-expiration")), iana(None)), (OTHER, OTHER));
        assert_eq!((label(Some("threshold-crossed")), label(Some("certificate-expiration"))), ("thresholdCrossed", "other"));
    }
}

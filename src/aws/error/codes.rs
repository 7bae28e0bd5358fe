//! What AWS's error codes mean for the next step. Pure: one table, each row with its source.
//!
//! Sources: R: AWS SDKs and Tools Reference Guide, "Retry behavior", and the SDKs' tables of the standard mode;
//! I: IAM User Guide, "Troubleshoot access denied error messages"; D: DynamoDB Developer Guide, "Error messages and
//! codes"; E: EC2 API Reference, "Common client errors"; Q: the "Common errors" of the Query APIs (Auto Scaling, STS).

/// What a code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Too many calls, too fast: passes.
    Throttled,
    /// A passing fault of the service, which may come with a status below 500.
    Transient,
    /// The signature's time is not AWS's: the clock of this machine is wrong.
    Clock,
    /// The signature does not fit: a wrong secret, or a wrong clock.
    Signature,
    /// The credentials have ended.
    Expired,
    /// The credentials are not known, or none came along.
    Credentials,
    /// The credentials are known and may not do this.
    Denied,
    /// The request does not fit the table or the service.
    Unfit,
}

/// Every code that hsdo knows. A code that is not here is final, unless its status is 429 or 500 and above.
const TABLE: [(&str, Kind); 45] = [
    ("BandwidthLimitExceeded", Kind::Throttled),                 // R
    ("EC2ThrottledException", Kind::Throttled),                  // R
    ("LimitExceededException", Kind::Throttled),                 // R
    ("PriorRequestNotComplete", Kind::Throttled),                // R
    ("ProvisionedThroughputExceededException", Kind::Throttled), // R, D
    ("RequestLimitExceeded", Kind::Throttled),                   // R, E
    ("RequestThrottled", Kind::Throttled),                       // R
    ("RequestThrottledException", Kind::Throttled),              // R
    ("SlowDown", Kind::Throttled),                               // R
    ("ThrottledException", Kind::Throttled),                     // R
    ("Throttling", Kind::Throttled),                             // R, Q
    ("ThrottlingException", Kind::Throttled),                    // R, D
    ("TooManyRequestsException", Kind::Throttled),               // R
    ("TransactionInProgressException", Kind::Throttled),         // R, D
    ("IDPCommunicationError", Kind::Transient),                  // STS API Reference, AssumeRoleWithWebIdentity
    ("InternalError", Kind::Transient),                          // E
    ("InternalFailure", Kind::Transient),                        // Q
    ("InternalServerError", Kind::Transient),                    // D
    ("ReplicatedWriteConflictException", Kind::Transient),       // DynamoDB API Reference, UpdateItem
    ("RequestTimeout", Kind::Transient),                         // R
    ("RequestTimeoutException", Kind::Transient),                // R
    ("ServiceUnavailable", Kind::Transient),                     // Q
    ("TransactionConflictException", Kind::Transient),           // DynamoDB API Reference, UpdateItem
    ("Unavailable", Kind::Transient),                            // E
    ("RequestExpired", Kind::Clock),                             // E, Q
    ("RequestInTheFuture", Kind::Clock),                         // R
    ("RequestTimeTooSkewed", Kind::Clock),                       // R
    ("AuthFailure", Kind::Signature),                            // E
    ("InvalidSignatureException", Kind::Signature),              // D
    ("SignatureDoesNotMatch", Kind::Signature),                  // Q
    ("ExpiredToken", Kind::Expired),                             // Q
    ("ExpiredTokenException", Kind::Expired),                    // D
    ("IncompleteSignature", Kind::Credentials),                  // Q
    ("IncompleteSignatureException", Kind::Credentials),         // D
    ("InvalidClientTokenId", Kind::Credentials),                 // Q
    ("MissingAuthenticationToken", Kind::Credentials),           // Q
    ("MissingAuthenticationTokenException", Kind::Credentials),  // D
    ("UnrecognizedClientException", Kind::Credentials),          // D
    ("AccessDenied", Kind::Denied),                              // I, Q
    ("AccessDeniedException", Kind::Denied),                     // I, D
    ("NotAuthorized", Kind::Denied),                             // Q
    ("OptInRequired", Kind::Denied),                             // E, Q
    ("UnauthorizedOperation", Kind::Denied),                     // I, E
    ("ResourceNotFoundException", Kind::Unfit),                  // D
    ("ValidationException", Kind::Unfit),                        // D
];

/// What the code says, where it is known.
pub(crate) fn kind(code: &str) -> Option<Kind> {
    TABLE.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind)
}

/// What the code of one reason of a cancelled transaction says, where it may be gone a moment later (DynamoDB API
/// Reference, "TransactionCanceledException").
pub(crate) fn reason(code: &str) -> Option<Kind> {
    match code {
        "ProvisionedThroughputExceeded" | "ThrottlingError" => Some(Kind::Throttled),
        "TransactionConflict" => Some(Kind::Transient),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_stands_twice() {
        for (index, (code, _)) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|(other, _)| other != code), "{code}");
            assert!(code.chars().all(|c| c.is_ascii_alphanumeric()), "{code}");
        }
    }

    #[test]
    fn a_code_is_matched_whole() {
        assert_eq!(kind("Throttling"), Some(Kind::Throttled));
        for unknown in ["throttling", "ThrottlingX", "", "TransactionCanceledException", "HTTP 503"] {
            assert_eq!(kind(unknown), None, "{unknown}");
        }
    }
}

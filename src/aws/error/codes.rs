//! Classifies AWS's error codes. Pure: one table, each row with its source.
//!
//! Sources: R: AWS SDKs and Tools Reference Guide, "Retry behavior", and the SDKs' tables of the standard mode;
//! I: IAM User Guide, "Troubleshoot access denied error messages"; D: DynamoDB Developer Guide, "Error messages and
//! codes"; E: EC2 API Reference, "Common client errors"; Q: the "Common errors" of the Query APIs (Auto Scaling, STS).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Too many calls: transient.
    Throttled,
    /// A transient fault of the service, even with a status below 500.
    Transient,
    /// The signature's time is off: a wrong clock.
    Clock,
    /// The signature does not match: a wrong secret or a wrong clock.
    Signature,
    Expired,
    Credentials,
    Denied,
    /// The request does not match the table or the service.
    Invalid,
}

/// Any other code is final, unless its status is 429 or at least 500.
const CLASSES: [(&str, ErrorClass); 45] = [
    ("BandwidthLimitExceeded", ErrorClass::Throttled),                 // R
    ("EC2ThrottledException", ErrorClass::Throttled),                  // R
    ("LimitExceededException", ErrorClass::Throttled),                 // R
    ("PriorRequestNotComplete", ErrorClass::Throttled),                // R
    ("ProvisionedThroughputExceededException", ErrorClass::Throttled), // R, D
    ("RequestLimitExceeded", ErrorClass::Throttled),                   // R, E
    ("RequestThrottled", ErrorClass::Throttled),                       // R
    ("RequestThrottledException", ErrorClass::Throttled),              // R
    ("SlowDown", ErrorClass::Throttled),                               // R
    ("ThrottledException", ErrorClass::Throttled),                     // R
    ("Throttling", ErrorClass::Throttled),                             // R, Q
    ("ThrottlingException", ErrorClass::Throttled),                    // R, D
    ("TooManyRequestsException", ErrorClass::Throttled),               // R
    ("TransactionInProgressException", ErrorClass::Throttled),         // R, D
    ("IDPCommunicationError", ErrorClass::Transient),                  // STS API Reference, AssumeRoleWithWebIdentity
    ("InternalError", ErrorClass::Transient),                          // E
    ("InternalFailure", ErrorClass::Transient),                        // Q
    ("InternalServerError", ErrorClass::Transient),                    // D
    ("ReplicatedWriteConflictException", ErrorClass::Transient),       // DynamoDB API Reference, UpdateItem
    ("RequestTimeout", ErrorClass::Transient),                         // R
    ("RequestTimeoutException", ErrorClass::Transient),                // R
    ("ServiceUnavailable", ErrorClass::Transient),                     // Q
    ("TransactionConflictException", ErrorClass::Transient),           // DynamoDB API Reference, UpdateItem
    ("Unavailable", ErrorClass::Transient),                            // E
    ("RequestExpired", ErrorClass::Clock),                             // E, Q
    ("RequestInTheFuture", ErrorClass::Clock),                         // R
    ("RequestTimeTooSkewed", ErrorClass::Clock),                       // R
    ("AuthFailure", ErrorClass::Signature),                            // E
    ("InvalidSignatureException", ErrorClass::Signature),              // D
    ("SignatureDoesNotMatch", ErrorClass::Signature),                  // Q
    ("ExpiredToken", ErrorClass::Expired),                             // Q
    ("ExpiredTokenException", ErrorClass::Expired),                    // D
    ("IncompleteSignature", ErrorClass::Credentials),                  // Q
    ("IncompleteSignatureException", ErrorClass::Credentials),         // D
    ("InvalidClientTokenId", ErrorClass::Credentials),                 // Q
    ("MissingAuthenticationToken", ErrorClass::Credentials),           // Q
    ("MissingAuthenticationTokenException", ErrorClass::Credentials),  // D
    ("UnrecognizedClientException", ErrorClass::Credentials),          // D
    ("AccessDenied", ErrorClass::Denied),                              // I, Q
    ("AccessDeniedException", ErrorClass::Denied),                     // I, D
    ("NotAuthorized", ErrorClass::Denied),                             // Q
    ("OptInRequired", ErrorClass::Denied),                             // E, Q
    ("UnauthorizedOperation", ErrorClass::Denied),                     // I, E
    ("ResourceNotFoundException", ErrorClass::Invalid),                // D
    ("ValidationException", ErrorClass::Invalid),                      // D
];

pub(crate) fn class(code: &str) -> Option<ErrorClass> {
    CLASSES.iter().find(|(known, _)| *known == code).map(|(_, class)| *class)
}

/// The class of a transient cancellation reason; `None` for any other (DynamoDB API Reference,
/// "TransactionCanceledException").
pub(crate) fn reason_class(code: &str) -> Option<ErrorClass> {
    match code {
        "ProvisionedThroughputExceeded" | "ThrottlingError" => Some(ErrorClass::Throttled),
        "TransactionConflict" => Some(ErrorClass::Transient),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        for (index, (code, _)) in CLASSES.iter().enumerate() {
            assert!(CLASSES[..index].iter().all(|(other, _)| other != code), "{code}");
            assert!(code.chars().all(|c| c.is_ascii_alphanumeric()), "{code}");
        }
    }

    #[test]
    fn a_code_is_matched_whole() {
        assert_eq!(class("Throttling"), Some(ErrorClass::Throttled));
        for unknown in ["throttling", "ThrottlingX", "", "TransactionCanceledException", "HTTP 503"] {
            assert_eq!(class(unknown), None, "{unknown}");
        }
    }
}

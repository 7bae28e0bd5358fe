//! Parses AWS's access denied message: the action, the kind of policy that blocks it, and the remedy. Pure.
//!
//! IAM User Guide, "Troubleshoot access denied error messages": `... is not authorized to perform: ACTION on resource: ...`,
//! then `because no KIND policy allows the ACTION action` or `with an explicit deny in a KIND policy`. If a service says
//! less, the IAM policy of the caller is the likely cause.

use super::action::action;
use crate::aws::service::Service;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Identity,
    Resource,
    ServiceControl,
    ResourceControl,
    Boundary,
    Session,
    Endpoint,
    Trust,
}

/// Their spelling in messages, in lower case.
const POLICIES: [(&str, Policy); 8] = [
    ("identity-based policy", Policy::Identity),
    ("resource-based policy", Policy::Resource),
    ("service control policy", Policy::ServiceControl),
    ("resource control policy", Policy::ResourceControl),
    ("permissions boundary", Policy::Boundary),
    ("session policy", Policy::Session),
    ("vpc endpoint policy", Policy::Endpoint),
    ("role trust policy", Policy::Trust),
];

/// The start of DynamoDB's message if it may not use the table's KMS key.
const KEY_DENIED: &str = "KMS key access denied error";

pub(crate) fn remedy(message: &str, service: Service, operation: &str) -> String {
    let named = named_action(message);
    let explicit = message.contains("explicit deny");
    let policy = policy(message);
    if message.contains(KEY_DENIED) || named.is_some_and(|action| action.starts_with("kms:")) {
        let action = named.filter(|action| action.starts_with("kms:")).unwrap_or("kms:Decrypt");
        return match (policy, explicit) {
            (Some(Policy::Resource), false) => format!("allow {action} in the policy of the table's KMS key"),
            (Some(Policy::Resource), true) => format!("the policy of the table's KMS key denies {action}: change it"),
            (None, false) => {
                format!(
                    "allow {action} on the table's KMS key, in the IAM policy of these credentials or in the key's policy"
                )
            }
            _ => policy_remedy(policy, explicit, &format!("{action} on the table's KMS key")),
        };
    }
    // Emulators name `TransactWriteItems`, which is not an action.
    let named = named.filter(|name| !name.ends_with(":TransactWriteItems"));
    match named.or(action(service, operation)) {
        Some("sts:AssumeRole") if policy.is_none() && !explicit => {
            "allow sts:AssumeRole in the IAM policy of these credentials, and let the role trust them".to_string()
        }
        Some(action) => policy_remedy(policy, explicit, action),
        None if service == Service::Sts => "let the role trust this identity".to_string(),
        None => policy_remedy(policy, explicit, "this action"),
    }
}

fn policy_remedy(policy: Option<Policy>, explicit: bool, action: &str) -> String {
    let Some(policy) = policy else {
        return if explicit {
            format!("a policy explicitly denies {action}: find it and change it")
        } else {
            format!("allow {action} in the IAM policy of these credentials")
        };
    };
    let place = match policy {
        Policy::Identity => "the IAM policy of these credentials",
        Policy::Resource => "the resource-based policy of what was called",
        Policy::Boundary => "the permissions boundary of these credentials",
        Policy::Session => "the session policy that these credentials were issued with",
        Policy::Endpoint => "the policy of the VPC endpoint that the call goes through",
        Policy::Trust => "the trust policy of the role",
        Policy::ServiceControl | Policy::ResourceControl => {
            let kind = if policy == Policy::ServiceControl { "service" } else { "resource" };
            return format!(
                "a {kind} control policy of the organization blocks {action}, and no policy of this account can override it: \
                 ask the organization's administrators"
            );
        }
    };
    if explicit { format!("{place} denies {action}: change it") } else { format!("allow {action} in {place}") }
}

/// The kind of policy blamed: the first one named after the reason begins.
fn policy(message: &str) -> Option<Policy> {
    let message = message.to_ascii_lowercase();
    let reason = ["because no ", "explicit deny"].into_iter().filter_map(|begin| message.find(begin)).min()?;
    let named = POLICIES.iter().filter_map(|(text, policy)| Some((message[reason..].find(text)?, *policy)));
    named.min_by_key(|(place, _)| *place).map(|(_, policy)| policy)
}

fn named_action(message: &str) -> Option<&str> {
    let rest = message.split("not authorized to perform: ").nth(1)?;
    let word = rest.split_whitespace().next()?.trim_end_matches([',', '.', ';']);
    is_action(word).then_some(word)
}

/// Whether a word looks like an IAM action, such as `dynamodb:Scan`.
fn is_action(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ':';
    word.len() < 80 && word.contains(':') && word.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str = "User: arn:aws:sts::123456789012:assumed-role/web/i-1 is not authorized to perform: ";
    const TABLE: &str = "on resource: arn:aws:dynamodb:eu-west-1:123456789012:table/web";

    fn of_scan(reason: &str) -> String {
        remedy(&format!("{WHO}dynamodb:Scan {TABLE} {reason}"), Service::DynamoDb, "Scan")
    }

    #[test]
    fn the_remedy_follows_the_blocking_policy() {
        for (reason, expected) in [
            ("", "allow dynamodb:Scan in the IAM policy of these credentials"),
            (
                "because no identity-based policy allows the dynamodb:Scan action",
                "allow dynamodb:Scan in the IAM policy of these credentials",
            ),
            (
                "with an explicit deny in an identity-based policy",
                "the IAM policy of these credentials denies dynamodb:Scan: change it",
            ),
            ("with an explicit deny", "a policy explicitly denies dynamodb:Scan: find it and change it"),
            (
                "with an explicit deny in a service control policy",
                "a service control policy of the organization blocks dynamodb:Scan, and no policy of this account can \
                 override it: ask the organization's administrators",
            ),
            (
                "because no service control policy allows the dynamodb:Scan action",
                "a service control policy of the organization blocks dynamodb:Scan, and no policy of this account can \
                 override it: ask the organization's administrators",
            ),
            (
                "with an explicit deny in a resource control policy",
                "a resource control policy of the organization blocks dynamodb:Scan, and no policy of this account can \
                 override it: ask the organization's administrators",
            ),
            (
                "because no VPC endpoint policy allows the dynamodb:Scan action",
                "allow dynamodb:Scan in the policy of the VPC endpoint that the call goes through",
            ),
            (
                "with an explicit deny in a VPC endpoint policy",
                "the policy of the VPC endpoint that the call goes through denies dynamodb:Scan: change it",
            ),
            (
                "with an explicit deny in a resource-based policy",
                "the resource-based policy of what was called denies dynamodb:Scan: change it",
            ),
            (
                "because no resource-based policy allows the dynamodb:Scan action",
                "allow dynamodb:Scan in the resource-based policy of what was called",
            ),
            (
                "because no permissions boundary allows the dynamodb:Scan action",
                "allow dynamodb:Scan in the permissions boundary of these credentials",
            ),
            (
                "with an explicit deny in a permissions boundary",
                "the permissions boundary of these credentials denies dynamodb:Scan: change it",
            ),
            (
                "because no session policy allows the dynamodb:Scan action",
                "allow dynamodb:Scan in the session policy that these credentials were issued with",
            ),
        ] {
            assert_eq!(of_scan(reason), expected, "{reason}");
        }
    }

    #[test]
    fn the_kms_key_is_distinguished_from_the_table() {
        let of = |message: &str| remedy(message, Service::DynamoDb, "Scan");
        let denied = "KMS key access denied error: com.amazonaws.services.kms.model.AWSKMSException: The ciphertext refers \
                      to a customer master key that does not exist, does not exist in this region, or you are not allowed \
                      to access. (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException; Request ID: r)";
        assert_eq!(
            of(denied),
            "allow kms:Decrypt on the table's KMS key, in the IAM policy of these credentials or in the key's policy"
        );
        let with = |reason: &str| {
            of(&format!("KMS key access denied error: {WHO}kms:DescribeKey on resource: arn:aws:kms:::key/k {reason}"))
        };
        assert_eq!(
            with("because no resource-based policy allows the kms:DescribeKey action"),
            "allow kms:DescribeKey in the policy of the table's KMS key"
        );
        assert_eq!(
            with("because no identity-based policy allows the kms:DescribeKey action"),
            "allow kms:DescribeKey on the table's KMS key in the IAM policy of these credentials"
        );
        assert!(
            with("with an explicit deny in a service control policy").contains("ask the organization's administrators")
        );
    }

    #[test]
    fn the_action_is_the_one_named_or_the_one_needed() {
        for (message, expected) in [
            (
                "User: arn:u is not authorized to perform: dynamodb:GetItem on resource: arn:t",
                "allow dynamodb:GetItem in the",
            ),
            ("not authorized to perform: dynamodb:TransactWriteItems", "allow dynamodb:Scan in the"),
            ("not authorized to perform: dynamodb:\u{1b}[2J", "allow dynamodb:Scan in the"),
            ("You are not authorized to perform this operation.", "allow dynamodb:Scan in the"),
            ("because no \u{212a} allows", "allow dynamodb:Scan in the"),
            ("", "allow dynamodb:Scan in the"),
        ] {
            let text = remedy(message, Service::DynamoDb, "Scan");
            assert!(text.starts_with(expected), "{message}: {text}");
        }
    }

    #[test]
    fn assuming_a_role_needs_policy_and_trust() {
        let of = |message: &str, operation| remedy(message, Service::Sts, operation);
        assert!(of("", "AssumeRole").contains("let the role trust them"));
        assert_eq!(of("Not authorized", "AssumeRoleWithWebIdentity"), "let the role trust this identity");
        let trust = "is not authorized to perform: sts:AssumeRole on resource: arn:r because no role trust policy allows \
                     the sts:AssumeRole action";
        assert_eq!(of(trust, "AssumeRole"), "allow sts:AssumeRole in the trust policy of the role");
    }
}

//! The IAM action that allows each operation: for messages about denied calls, and to test `conf/terraform`.

use crate::aws::service::Service;

/// Every operation that hsdo calls and the action it needs (Service Authorization Reference). `TransactWriteItems` is not
/// an action: its updates are authorised one by one. `AssumeRoleWithWebIdentity` needs only the role's trust policy.
const ACTIONS: [(Service, &str, &str); 15] = [
    (Service::DynamoDb, "CreateTable", "dynamodb:CreateTable"),
    (Service::DynamoDb, "DeleteItem", "dynamodb:DeleteItem"),
    (Service::DynamoDb, "DescribeTable", "dynamodb:DescribeTable"),
    (Service::DynamoDb, "DescribeTimeToLive", "dynamodb:DescribeTimeToLive"),
    (Service::DynamoDb, "GetItem", "dynamodb:GetItem"),
    (Service::DynamoDb, "Scan", "dynamodb:Scan"),
    (Service::DynamoDb, "TransactWriteItems", "dynamodb:UpdateItem"),
    (Service::DynamoDb, "UpdateItem", "dynamodb:UpdateItem"),
    (Service::DynamoDb, "UpdateTimeToLive", "dynamodb:UpdateTimeToLive"),
    (Service::AutoScaling, "CompleteLifecycleAction", "autoscaling:CompleteLifecycleAction"),
    (Service::AutoScaling, "DescribeLifecycleHooks", "autoscaling:DescribeLifecycleHooks"),
    (Service::AutoScaling, "DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingGroups"),
    (Service::Ec2, "DescribeInstances", "ec2:DescribeInstances"),
    (Service::Ec2, "DescribeSpotInstanceRequests", "ec2:DescribeSpotInstanceRequests"),
    (Service::Sts, "AssumeRole", "sts:AssumeRole"),
];

pub(crate) fn action(service: Service, operation: &str) -> Option<&'static str> {
    ACTIONS.iter().find(|(s, known, _)| *s == service && *known == operation).map(|(_, _, action)| *action)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The first quoted text after each `marker` in the non-test part of a source file.
    fn literals(source: &'static str, marker: &str) -> BTreeSet<&'static str> {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        code.split(marker).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    /// The operations called, extracted from the source code.
    fn called() -> Vec<(Service, &'static str)> {
        let mut called = Vec::new();
        for (service, source, marker) in [
            (Service::DynamoDb, include_str!("../table/dynamodb.rs"), "request(\""),
            (Service::AutoScaling, include_str!("../query/autoscaling.rs"), "Query::new(\""),
            (Service::AutoScaling, include_str!("../query/hooks.rs"), "Query::new(\""),
            (Service::Ec2, include_str!("../query/ec2.rs"), "Query::new(\""),
            (Service::Ec2, include_str!("../query/spot.rs"), "Query::new(\""),
        ] {
            let found = literals(source, marker);
            assert!(!found.is_empty(), "no operation of {service:?} is found: has the spelling of its calls changed?");
            called.extend(found.into_iter().map(|operation| (service, operation)));
        }
        called
    }

    /// The actions that the policies in `conf/terraform` allow.
    fn allowed() -> BTreeSet<&'static str> {
        let text = include_str!("../../../conf/terraform/iam.tf");
        let quoted = text.split('"').skip(1).step_by(2);
        let services = ["dynamodb:", "autoscaling:", "ec2:", "sts:", "iam:"];
        quoted.filter(|text| services.iter().any(|service| text.starts_with(service))).collect()
    }

    #[test]
    fn the_policies_allow_what_the_code_calls_and_nothing_else() {
        let needed: BTreeSet<&str> = called()
            .into_iter()
            .map(|(service, operation)| {
                action(service, operation).unwrap_or_else(|| panic!("no action for {operation}"))
            })
            .collect();
        assert_eq!(allowed(), needed);
    }

    #[test]
    fn other_operations_have_no_action() {
        assert_eq!(action(Service::Sts, "AssumeRoleWithWebIdentity"), None);
        assert_eq!(action(Service::Ec2, "Scan"), None);
    }
}

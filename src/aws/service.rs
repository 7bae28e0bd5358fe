//! The AWS services called, and their names. Pure.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Service-specific endpoints".

/// An AWS service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The table.
    DynamoDb,
    /// Groups and their members.
    AutoScaling,
    /// Addresses and states of instances.
    Ec2,
    /// Credentials of roles.
    Sts,
    /// Credentials of users who logged in.
    Sso,
}

impl Service {
    /// Every service, in the order of declaration.
    pub(crate) const ALL: [Service; 5] =
        [Service::DynamoDb, Service::AutoScaling, Service::Ec2, Service::Sts, Service::Sso];

    /// The display name.
    pub fn name(self) -> &'static str {
        match self {
            Service::DynamoDb => "DynamoDB",
            Service::AutoScaling => "AutoScaling",
            Service::Ec2 => "EC2",
            Service::Sts => "STS",
            Service::Sso => "SSO",
        }
    }

    /// The name in signatures and metrics.
    pub fn id(self) -> &'static str {
        match self {
            Service::DynamoDb => "dynamodb",
            Service::AutoScaling => "autoscaling",
            Service::Ec2 => "ec2",
            Service::Sts => "sts",
            Service::Sso => "sso",
        }
    }

    /// The host name prefix.
    pub(crate) fn host_name(self) -> &'static str {
        if self == Service::Sso { "portal.sso" } else { self.id() }
    }

    /// The variable that overrides the endpoint.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Service::DynamoDb => "AWS_ENDPOINT_URL_DYNAMODB",
            Service::AutoScaling => "AWS_ENDPOINT_URL_AUTO_SCALING",
            Service::Ec2 => "AWS_ENDPOINT_URL_EC2",
            Service::Sts => "AWS_ENDPOINT_URL_STS",
            Service::Sso => "AWS_ENDPOINT_URL_SSO",
        }
    }

    /// The name in a `services` section of the shared config file.
    pub(crate) fn section(self) -> &'static str {
        if self == Service::AutoScaling { "auto_scaling" } else { self.id() }
    }
}

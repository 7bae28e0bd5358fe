//! Which services are called, and how each is spelled. Pure.
//!
//! Spellings: AWS SDKs and Tools Reference Guide, "Service-specific endpoints", which names the variables
//! `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>` and their counterparts in the profile.

/// A service that hsdo calls.
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
    /// Credentials of people who logged in.
    Sso,
}

impl Service {
    /// Every one.
    pub(crate) const ALL: [Service; 5] =
        [Service::DynamoDb, Service::AutoScaling, Service::Ec2, Service::Sts, Service::Sso];

    /// The name that people use.
    pub fn name(self) -> &'static str {
        match self {
            Service::DynamoDb => "DynamoDB",
            Service::AutoScaling => "AutoScaling",
            Service::Ec2 => "EC2",
            Service::Sts => "STS",
            Service::Sso => "SSO",
        }
    }

    /// The name in the scope of a signature, and in metrics.
    pub fn id(self) -> &'static str {
        match self {
            Service::DynamoDb => "dynamodb",
            Service::AutoScaling => "autoscaling",
            Service::Ec2 => "ec2",
            Service::Sts => "sts",
            Service::Sso => "sso",
        }
    }

    /// The name in host names.
    pub(crate) fn host_name(self) -> &'static str {
        if self == Service::Sso { "portal.sso" } else { self.id() }
    }

    /// The variable that replaces this service's endpoint.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Service::DynamoDb => "AWS_ENDPOINT_URL_DYNAMODB",
            Service::AutoScaling => "AWS_ENDPOINT_URL_AUTO_SCALING",
            Service::Ec2 => "AWS_ENDPOINT_URL_EC2",
            Service::Sts => "AWS_ENDPOINT_URL_STS",
            Service::Sso => "AWS_ENDPOINT_URL_SSO",
        }
    }

    /// Its name in a `services` section of the shared config file.
    pub(crate) fn section(self) -> &'static str {
        if self == Service::AutoScaling { "auto_scaling" } else { self.id() }
    }
}

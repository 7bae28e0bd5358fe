//! Service endpoints. Pure.

use std::collections::BTreeMap;

use ureq::http::Uri;

use super::partition;
use crate::aws::error::AwsError;
use crate::aws::service::Service;
use crate::text::one_line;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The URL to post to; ends with a slash if no path is configured.
    pub(crate) url: String,
    /// The host and any explicit port, for messages.
    pub(crate) host: String,
}

/// Validates a region name, which becomes part of a host name.
pub(crate) fn parse_region(name: &str) -> Result<String, AwsError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
        return Err(AwsError::Setup(format!("{name:?} is not an AWS region name such as eu-west-1")));
    }
    if name.ends_with("-global") {
        let text = format!("{name:?} stands for all regions, but a table is in one: set that one, such as eu-west-1");
        return Err(AwsError::Setup(text));
    }
    match region_of_zone(name) {
        Some(region) => Err(AwsError::Setup(format!("{name:?} is a zone of the AWS region {region}: set that"))),
        None => Ok(name.to_string()),
    }
}

/// Validates the name of an availability zone: letters, digits and dashes, as in `eu-west-1a` or `us-west-2-lax-1a`. The error
/// completes "the service ...".
pub(crate) fn parse_zone(text: &str) -> Result<String, String> {
    let text = text.trim();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_name = plain && (1..=63).contains(&text.len());
    if is_name { Ok(text.to_owned()) } else { Err(format!("returned an invalid zone: \"{}\"", one_line(text, 100))) }
}

/// The region of a zone name: `eu-west-1a`, `us-west-2-lax-1a`, `us-east-1-wl1-bos-wlz-1`. A region name is words of letters
/// and one number; a zone name is that and a suffix.
fn region_of_zone(name: &str) -> Option<&str> {
    let number = name.find(|c: char| c.is_ascii_digit())?;
    let end = name[number..].find(|c: char| !c.is_ascii_digit())? + number;
    let words = name[..number].strip_suffix('-')?;
    let is_region = words.contains('-') && words.split('-').all(|word| !word.is_empty());
    is_region.then(|| &name[..end])
}

#[derive(Default)]
pub(crate) struct Endpoints {
    /// Configured overrides, by [`Service::id`].
    pub(crate) configured: BTreeMap<&'static str, Endpoint>,
    pub(crate) fips: bool,
    pub(crate) dual_stack: bool,
}

impl Endpoints {
    /// The configured endpoint of `service`, or AWS's own in `region`.
    pub(crate) fn of(&self, service: Service, region: &str) -> Endpoint {
        self.configured.get(service.id()).cloned().unwrap_or_else(|| {
            let host = partition::host(service.host_name(), region, self.fips, self.dual_stack);
            Endpoint { url: format!("https://{host}/"), host }
        })
    }
}

/// Parses a configured endpoint URL. The error says what is wrong with it.
pub(crate) fn from_url(url: &str) -> Result<Endpoint, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it does not start with http:// or https://");
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("it may not carry a user name");
    }
    if uri.query().is_some() {
        return Err("it may not carry a query");
    }
    Ok(Endpoint { url: uri.to_string(), host: authority.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::config::Config;
    use crate::environment::Environment;

    fn url(service: Service, region: &str, environment: &Environment) -> String {
        let config = Config::of(environment).expect("a configuration");
        config.endpoints.of(service, region).url
    }

    #[test]
    fn the_default_endpoint_follows_the_region() {
        let none = Environment::default();
        for (service, region, expected) in [
            (Service::DynamoDb, "eu-west-1", "https://dynamodb.eu-west-1.amazonaws.com/"),
            (Service::AutoScaling, "us-gov-west-1", "https://autoscaling.us-gov-west-1.amazonaws.com/"),
            (Service::Ec2, "cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn/"),
            (Service::Sts, "us-iso-east-1", "https://sts.us-iso-east-1.c2s.ic.gov/"),
            (Service::Sso, "us-east-1", "https://portal.sso.us-east-1.amazonaws.com/"),
        ] {
            assert_eq!(url(service, region, &none), expected);
        }
    }

    #[test]
    fn fips_and_dual_stack_change_the_host() {
        let both = Environment::from([("AWS_USE_FIPS_ENDPOINT", "TRUE"), ("AWS_USE_DUALSTACK_ENDPOINT", "true")]);
        assert_eq!(url(Service::DynamoDb, "us-east-1", &both), "https://dynamodb-fips.us-east-1.api.aws/");
    }

    #[test]
    fn a_services_own_variable_wins_over_the_common_one() {
        let both = Environment::from([
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:5000"),
            ("AWS_ENDPOINT_URL_AUTO_SCALING", "http://127.0.0.1:6000/groups"),
            ("AWS_ENDPOINT_URL_EC2", ""),
        ]);
        assert_eq!(url(Service::DynamoDb, "eu-west-1", &both), "http://127.0.0.1:5000/");
        assert_eq!(url(Service::AutoScaling, "eu-west-1", &both), "http://127.0.0.1:6000/groups");
        assert_eq!(url(Service::Ec2, "eu-west-1", &both), "http://127.0.0.1:5000/");
        let config = Config::of(&both).expect("a configuration");
        assert_eq!(config.endpoints.of(Service::AutoScaling, "eu-west-1").host, "127.0.0.1:6000");
    }

    #[test]
    fn configured_endpoints_can_be_ignored() {
        let ignored = Environment::from([
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:5000"),
            ("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:5001"),
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ]);
        assert_eq!(url(Service::Ec2, "eu-west-1", &ignored), "https://ec2.eu-west-1.amazonaws.com/");
    }

    #[test]
    fn a_bad_endpoint_is_named_with_its_variable() {
        for bad in ["127.0.0.1:5000", "ftp://host", "http://", "http://u:p@host", "http://host/?x=1", "http://a b"] {
            let environment = Environment::from([("AWS_ENDPOINT_URL_DYNAMODB", bad)]);
            let error = Config::of(&environment).err().expect(bad);
            assert!(error.to_string().starts_with("AWS_ENDPOINT_URL_DYNAMODB is "), "{error}");
            assert!(error.needs_operator());
            assert!(!error.to_string().contains("u:p"), "{error}");
        }
    }

    #[test]
    fn zones_and_global_names_are_rejected() {
        for (name, expected) in [
            ("eu-west-1a", "eu-west-1"),
            ("ap-southeast-12c", "ap-southeast-12"),
            ("us-gov-west-1b", "us-gov-west-1"),
            ("us-west-2-lax-1a", "us-west-2"),
            ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
        ] {
            let error = parse_region(name).expect_err(name);
            assert_eq!(error.to_string(), format!("{name:?} is a zone of the AWS region {expected}: set that"));
            assert!(error.needs_operator());
        }
        for name in ["aws-global", "aws-cn-global", "aws-us-gov-global"] {
            let error = parse_region(name).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains("stands for all regions"), "{error}");
        }
    }

    #[test]
    fn a_region_is_checked_before_it_becomes_a_host_name() {
        for good in ["eu-west-1", "us-gov-east-1", "us-iso-east-1", "local"] {
            assert_eq!(parse_region(good).expect("a region"), good);
        }
        for good in ["ap-southeast-12", "mx-central-1", "eusc-de-east-1", "localhost", "test1a", "us-east"] {
            assert_eq!(parse_region(good).expect("a region"), good);
        }
        for bad in ["", "EU-WEST-1", "eu west", "evil.example/", "eu-west-1\n", &"x".repeat(64)] {
            assert!(parse_region(bad).is_err(), "{bad:?}");
        }
    }
}

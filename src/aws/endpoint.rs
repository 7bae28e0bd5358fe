//! Which services are called, and where each of them is. Pure.
//!
//! Spellings: AWS SDKs and Tools Reference Guide, "Service-specific endpoints", which names the variables
//! `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_<SERVICE>` and `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`.

use ureq::http::Uri;

use super::error::Error;
use crate::environment::Environment;

/// A service that hsdo calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The table.
    DynamoDb,
    /// Groups and their members.
    AutoScaling,
    /// Addresses and states of instances.
    Ec2,
}

impl Service {
    /// The name that people use.
    pub fn name(self) -> &'static str {
        match self {
            Service::DynamoDb => "DynamoDB",
            Service::AutoScaling => "AutoScaling",
            Service::Ec2 => "EC2",
        }
    }

    /// The name in host names, in the scope of a signature, and in metrics.
    pub fn id(self) -> &'static str {
        match self {
            Service::DynamoDb => "dynamodb",
            Service::AutoScaling => "autoscaling",
            Service::Ec2 => "ec2",
        }
    }

    /// The variable that replaces this service's endpoint.
    fn variable(self) -> &'static str {
        match self {
            Service::DynamoDb => "AWS_ENDPOINT_URL_DYNAMODB",
            Service::AutoScaling => "AWS_ENDPOINT_URL_AUTO_SCALING",
            Service::Ec2 => "AWS_ENDPOINT_URL_EC2",
        }
    }
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL that requests are posted to.
    pub url: String,
    /// Its host, and its port where one is given: for messages.
    pub host: String,
}

/// Takes a region's name, or says what is wrong with it: it becomes part of a host name.
pub fn region(name: &str) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name.len() <= 63 && name.chars().all(fits) {
        Ok(name.to_string())
    } else {
        Err(Error::Setup(format!("{name:?} is not the name of an AWS region: one looks like eu-west-1")))
    }
}

/// The endpoint of `service` in `region`: the service's own variable, else the common one, else AWS's.
pub fn endpoint(service: Service, region: &str, environment: &Environment) -> Result<Endpoint, Error> {
    let ignored =
        environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let configured = [service.variable(), "AWS_ENDPOINT_URL"]
        .into_iter()
        .filter(|_| !ignored)
        .find_map(|variable| environment.get(variable).map(|url| (variable, url)));
    match configured {
        Some((variable, url)) => from_url(url).map_err(|fault| {
            // A password must not reach the log.
            let shown = if url.contains('@') { "a URL with a user name".to_string() } else { format!("{url:?}") };
            Error::Setup(format!("{variable} is {shown}: {fault}; an endpoint looks like http://127.0.0.1:5000"))
        }),
        None => {
            // AWS General Reference "Service endpoints"; the suffix of China is "Endpoints in China".
            let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            let host = format!("{}.{region}.{suffix}", service.id());
            Ok(Endpoint { url: format!("https://{host}/"), host })
        }
    }
}

fn from_url(url: &str) -> Result<Endpoint, &'static str> {
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

    fn url(service: Service, region: &str, environment: &Environment) -> String {
        endpoint(service, region, environment).expect("an endpoint").url
    }

    #[test]
    fn without_variables_the_region_decides() {
        let none = Environment::default();
        for (service, region, expected) in [
            (Service::DynamoDb, "eu-west-1", "https://dynamodb.eu-west-1.amazonaws.com/"),
            (Service::AutoScaling, "us-gov-west-1", "https://autoscaling.us-gov-west-1.amazonaws.com/"),
            (Service::Ec2, "cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn/"),
        ] {
            assert_eq!(url(service, region, &none), expected);
        }
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
        let host = endpoint(Service::AutoScaling, "eu-west-1", &both).expect("an endpoint").host;
        assert_eq!(host, "127.0.0.1:6000");
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
            let error = endpoint(Service::DynamoDb, "eu-west-1", &environment).expect_err(bad);
            assert!(error.to_string().starts_with("AWS_ENDPOINT_URL_DYNAMODB is "), "{error}");
            assert!(error.needs_a_person());
            assert!(!error.to_string().contains("u:p"), "{error}");
        }
    }

    #[test]
    fn a_region_is_checked_before_it_becomes_a_host_name() {
        for good in ["eu-west-1", "us-gov-east-1", "us-iso-east-1", "local"] {
            assert_eq!(region(good).expect("a region"), good);
        }
        for bad in ["", "EU-WEST-1", "eu west", "evil.example/", "eu-west-1\n", &"x".repeat(64)] {
            assert!(region(bad).is_err(), "{bad:?}");
        }
    }
}

//! The call settings in the environment and the profile in use, read once: endpoints, attempts, certificates, proxies, the
//! metadata service. The environment wins.
//!
//! AWS SDKs and Tools Reference Guide, "Settings reference". A proxy URL may hold a password, so settings are never printed
//! whole. May import `error` and the types of `transport` that it fills.

pub(crate) mod profile_file;
mod profile_text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::profile_file::ProfileFiles;
use self::profile_file::profile;
use crate::aws::error::AwsError;
use crate::aws::service::Service;
use crate::aws::transport::endpoint::{Endpoint, Endpoints, from_url};
use crate::aws::transport::proxy::Proxies;
use crate::environment::Environment;

/// The upper limit of the settings; a call's timeout ends the attempts sooner.
const MAX_ATTEMPTS: u32 = 100;
/// In seconds. The metadata service responds within milliseconds, or (beyond its hop limit) never.
const METADATA_TIMEOUT: u32 = 1;
const METADATA_ATTEMPTS: u32 = 3;

/// How calls are made.
pub(crate) struct Config {
    pub(crate) endpoints: Endpoints,
    /// Attempts per call, including the first: 1 or more, `None` for each service's default.
    pub(crate) attempts: Option<u32>,
    /// Certificates to trust besides the built-in ones, and the setting that names them.
    pub(crate) ca_bundle: Option<(PathBuf, String)>,
    pub(crate) proxies: Proxies,
    pub(crate) metadata: MetadataConfig,
}

/// How to call the EC2 metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataConfig {
    /// `AWS_EC2_METADATA_DISABLED`.
    pub(crate) disabled: bool,
    /// Without a trailing slash.
    pub(crate) url: String,
    /// Whether it must exist: this is an EC2 instance, or a setting names its endpoint or uses it as a source.
    pub(crate) expected: bool,
    /// Whether IMDSv1 may be used if IMDSv2 is missing: only if enabled explicitly.
    pub(crate) v1: bool,
    /// For one attempt.
    pub(crate) timeout: Duration,
    /// Per request, 1 or more.
    pub(crate) attempts: u32,
}

impl Config {
    /// Reads the settings. Errors: an invalid value.
    pub(crate) fn new(environment: &Environment, files: &ProfileFiles) -> Result<Self, AwsError> {
        let settings = ConfigReader { environment, files, profile: profile(environment) };
        retry_mode(&settings)?;
        Ok(Config {
            endpoints: Endpoints {
                configured: endpoints(&settings)?,
                fips: settings.switch("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint")?.unwrap_or(false),
                dual_stack: settings.switch("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint")?.unwrap_or(false),
            },
            attempts: settings.count("AWS_MAX_ATTEMPTS", "max_attempts")?,
            ca_bundle: settings.get("AWS_CA_BUNDLE", "ca_bundle").map(|(path, place)| (PathBuf::from(path), place)),
            proxies: Proxies::new(environment)?,
            metadata: metadata(&settings)?,
        })
    }

    #[cfg(test)]
    pub(crate) fn of(environment: &Environment) -> Result<Self, AwsError> {
        Config::new(environment, &ProfileFiles::default())
    }
}

struct ConfigReader<'a> {
    environment: &'a Environment,
    files: &'a ProfileFiles,
    profile: &'a str,
}

impl ConfigReader<'_> {
    /// A setting's value, and its source for messages.
    fn get(&self, variable: &str, key: &str) -> Option<(String, String)> {
        let set = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_string());
        if let Some(text) = self.environment.get(variable).and_then(set) {
            return Some((text, variable.to_string()));
        }
        let text = self.files.get(self.profile, key).and_then(set)?;
        Some((text, format!("{key} of profile {:?}", self.profile)))
    }

    fn switch(&self, variable: &str, key: &str) -> Result<Option<bool>, AwsError> {
        let Some((text, place)) = self.get(variable, key) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(AwsError::Setup(format!("{place} is {text:?}, expected true or false"))),
        }
    }

    fn count(&self, variable: &str, key: &str) -> Result<Option<u32>, AwsError> {
        let Some((text, place)) = self.get(variable, key) else { return Ok(None) };
        match text.parse() {
            Ok(count) if (1..=MAX_ATTEMPTS).contains(&count) => Ok(Some(count)),
            _ => Err(AwsError::Setup(format!("{place} is {text:?}, expected a number from 1 to {MAX_ATTEMPTS}"))),
        }
    }
}

/// All modes are accepted, but mean `standard`.
fn retry_mode(settings: &ConfigReader<'_>) -> Result<(), AwsError> {
    match settings.get("AWS_RETRY_MODE", "retry_mode") {
        Some((text, place)) if !["standard", "adaptive", "legacy"].contains(&text.to_ascii_lowercase().as_str()) => {
            Err(AwsError::Setup(format!("{place} is {text:?}, expected standard, adaptive or legacy")))
        }
        _ => Ok(()),
    }
}

/// By precedence: the service's variable, the common variable, the service's key in the profile's `services` section, the
/// profile's common key.
fn endpoints(settings: &ConfigReader<'_>) -> Result<BTreeMap<&'static str, Endpoint>, AwsError> {
    const IGNORE: (&str, &str) = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls");
    let mut endpoints = BTreeMap::new();
    if settings.switch(IGNORE.0, IGNORE.1)?.unwrap_or(false) {
        return Ok(endpoints);
    }
    let profile = settings.profile;
    for service in Service::ALL {
        let variables = [service.variable(), "AWS_ENDPOINT_URL"];
        let from_variable = variables
            .into_iter()
            .find_map(|name| settings.environment.get(name).map(|url| (url.to_string(), name.to_string())));
        let from_section = || {
            let section = settings.files.get(profile, "services")?;
            let url = settings.files.service(section, service.section(), "endpoint_url")?;
            Some((url, format!("endpoint_url of {} in services {section:?}", service.section())))
        };
        let from_profile = || {
            let url = settings.files.get(profile, "endpoint_url")?;
            Some((url.to_string(), format!("endpoint_url of profile {profile:?}")))
        };
        if let Some((url, place)) = from_variable.or_else(from_section).or_else(from_profile) {
            let endpoint = from_url(&url).map_err(|fault| {
                // May hold a password.
                let shown = if url.contains('@') { "a URL with a user name".to_string() } else { format!("{url:?}") };
                AwsError::Setup(format!("{place} is {shown}: {fault}; an endpoint looks like http://127.0.0.1:5000"))
            })?;
            endpoints.insert(service.id(), endpoint);
        }
    }
    Ok(endpoints)
}

fn metadata(settings: &ConfigReader<'_>) -> Result<MetadataConfig, AwsError> {
    let mode = settings.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode");
    let default_url = match mode {
        None => "http://169.254.169.254",
        Some((text, _)) if text.eq_ignore_ascii_case("ipv4") => "http://169.254.169.254",
        Some((text, _)) if text.eq_ignore_ascii_case("ipv6") => "http://[fd00:ec2::254]",
        Some((text, place)) => return Err(AwsError::Setup(format!("{place} is {text:?}, expected IPv4 or IPv6"))),
    };
    let endpoint = settings.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint");
    let source = settings.files.get(settings.profile, "credential_source");
    let is_source = source.is_some_and(|source| source.eq_ignore_ascii_case("Ec2InstanceMetadata"));
    let expected = endpoint.is_some() || is_source || is_instance(Path::new("/sys"));
    let url = match endpoint {
        None => default_url.to_string(),
        Some((text, place)) => {
            let endpoint = from_url(&text).map_err(|fault| AwsError::Setup(format!("{place} is {text:?}: {fault}")))?;
            endpoint.url.trim_end_matches('/').to_string()
        }
    };
    let v1_disabled = settings.switch("AWS_EC2_METADATA_V1_DISABLED", "ec2_metadata_v1_disabled")?;
    let seconds =
        settings.count("AWS_METADATA_SERVICE_TIMEOUT", "metadata_service_timeout")?.unwrap_or(METADATA_TIMEOUT);
    let attempts = settings.count("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "metadata_service_num_attempts")?;
    Ok(MetadataConfig {
        // As in the SDKs, only "true" disables it.
        disabled: settings.environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")),
        url,
        expected,
        v1: v1_disabled == Some(false),
        timeout: Duration::from_secs(seconds.min(60).into()),
        attempts: attempts.unwrap_or(METADATA_ATTEMPTS),
    })
}

/// Whether this is an EC2 instance: by the vendor on Nitro, the UUID on Xen (EC2 User Guide, "Detect whether a host is an
/// EC2 instance").
fn is_instance(sys: &Path) -> bool {
    let text = |path: &str| std::fs::read_to_string(sys.join(path)).unwrap_or_default();
    let vendors = ["class/dmi/id/sys_vendor", "class/dmi/id/bios_vendor"];
    vendors.iter().any(|path| text(path).trim() == "Amazon EC2")
        || text("hypervisor/uuid").to_ascii_lowercase().starts_with("ec2")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::aws::testing::Folder;

    fn read(config: &str, variables: &[(&str, &str)]) -> Result<Config, AwsError> {
        let folder = Folder::new();
        let path = folder.file("config", config);
        let pairs = variables.iter().copied().chain([("AWS_CONFIG_FILE", path.as_str())]);
        let environment = Environment::from(pairs);
        Config::new(&environment, &ProfileFiles::read(&environment)?)
    }

    #[test]
    fn the_environment_wins_over_the_profile() {
        let file = "[default]\nuse_fips_endpoint = true\nmax_attempts = 5\nca_bundle = /profile.pem\n";
        let config = read(file, &[("AWS_USE_FIPS_ENDPOINT", "false"), ("AWS_MAX_ATTEMPTS", "1")]).expect("read");
        assert!(!config.endpoints.fips && config.attempts == Some(1));
        let config = read(file, &[]).expect("read");
        assert!(config.endpoints.fips && config.attempts == Some(5) && !config.endpoints.dual_stack);
        assert_eq!(read("", &[]).expect("read").attempts, None);
        assert_eq!(config.ca_bundle.expect("a bundle").0, PathBuf::from("/profile.pem"));
    }

    #[test]
    fn endpoints_come_from_four_places_in_order() {
        let file = "[default]\nservices = mine\nendpoint_url = http://profile\n\
                    [services mine]\ndynamodb =\n  endpoint_url = http://section\nsts =\n  other = x\n";
        let urls = |variables: &[(&str, &str)]| {
            let config = read(file, variables).expect("read");
            ["dynamodb", "sts"].map(|id| config.endpoints.configured[id].url.clone())
        };
        assert_eq!(urls(&[]), ["http://section/", "http://profile/"]);
        assert_eq!(urls(&[("AWS_ENDPOINT_URL", "http://common")]), ["http://common/", "http://common/"]);
        let own = [("AWS_ENDPOINT_URL", "http://common"), ("AWS_ENDPOINT_URL_STS", "http://own")];
        assert_eq!(urls(&own), ["http://common/", "http://own/"]);
        let ignored = read(file, &[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")]).expect("read");
        assert!(ignored.endpoints.configured.is_empty());
    }

    #[test]
    fn invalid_values_are_errors_that_name_the_setting() {
        for (file, variables, expected) in [
            ("", [("AWS_MAX_ATTEMPTS", "0")], "AWS_MAX_ATTEMPTS is \"0\""),
            ("", [("AWS_RETRY_MODE", "wild")], "AWS_RETRY_MODE is \"wild\""),
            ("", [("AWS_USE_FIPS_ENDPOINT", "yes")], "AWS_USE_FIPS_ENDPOINT is \"yes\""),
            ("[default]\nmax_attempts = many", [("A", "b")], "max_attempts of profile \"default\""),
            ("[default]\nendpoint_url = here", [("A", "b")], "endpoint_url of profile \"default\""),
        ] {
            let error = read(file, &variables).err().expect(expected);
            assert!(error.to_string().contains(expected) && error.needs_operator(), "{error}");
        }
        for mode in ["standard", "Adaptive", "legacy"] {
            assert!(read("", &[("AWS_RETRY_MODE", mode)]).is_ok(), "{mode}");
        }
    }

    #[derive(Deserialize)]
    struct Case {
        about: String,
        env: BTreeMap<String, String>,
        config: String,
        url: Option<String>,
    }

    #[test]
    fn the_metadata_endpoint_is_resolved_as_in_the_sdks() {
        let text = include_str!("../../../tests/data/aws-config/metadata-service.json");
        let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let variables: Vec<(&str, &str)> = case.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let read = read(&case.config, &variables).map(|config| config.metadata.url);
            assert_eq!(read.ok(), case.url, "{}", case.about);
        }
    }

    #[test]
    fn the_metadata_service_is_expected_on_instances_or_if_configured() {
        for (file, text, expected) in [
            ("class/dmi/id/sys_vendor", "Amazon EC2\n", true),
            ("class/dmi/id/bios_vendor", "Amazon EC2", true),
            ("hypervisor/uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF", true),
            ("class/dmi/id/sys_vendor", "QEMU", false),
            ("hypervisor/uuid", "45ec2191-9099", false),
            ("other", "Amazon EC2", false),
        ] {
            let folder = Folder::new();
            folder.file(file, text);
            assert_eq!(is_instance(Path::new(&folder.path())), expected, "{file} {text}");
        }
        let named = read("", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")]).expect("read");
        assert!(named.metadata.expected);
        let source = "[default]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n";
        assert!(read(source, &[]).expect("read").metadata.expected);
        assert_eq!(read("", &[]).expect("read").metadata.expected, is_instance(Path::new("/sys")));
    }

    #[test]
    fn imds_v1_is_allowed_only_if_enabled() {
        for (value, expected) in [("", false), ("true", false), ("false", true)] {
            assert_eq!(read("", &[("AWS_EC2_METADATA_V1_DISABLED", value)]).expect("read").metadata.v1, expected);
        }
    }
}

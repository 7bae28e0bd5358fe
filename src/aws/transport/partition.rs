//! AWS partitions: their regions and DNS suffixes. Pure, one table.
//!
//! Source: the SDKs' shared `partitions.json` and the endpoint rules of the services; `tests/data/aws-config/endpoints.txt`
//! holds the result of those rules for every known region.

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Region prefixes.
    regions: &'static [&'static str],
    /// The DNS suffix.
    suffix: &'static str,
    /// The DNS suffix of dual-stack endpoints.
    dual_stack: &'static str,
    /// Whether the default endpoints are the FIPS ones.
    fips_is_plain: bool,
}

const AWS: Partition = Partition { regions: &[], suffix: "amazonaws.com", dual_stack: "api.aws", fips_is_plain: false };

const OTHERS: [Partition; 7] = [
    Partition {
        regions: &["cn-"],
        suffix: "amazonaws.com.cn",
        dual_stack: "api.amazonwebservices.com.cn",
        fips_is_plain: false,
    },
    Partition { regions: &["us-gov-"], suffix: "amazonaws.com", dual_stack: "api.aws", fips_is_plain: true },
    Partition {
        regions: &["eusc-"],
        suffix: "amazonaws.eu",
        dual_stack: "api.amazonwebservices.eu",
        fips_is_plain: false,
    },
    Partition { regions: &["us-iso-"], suffix: "c2s.ic.gov", dual_stack: "api.aws.ic.gov", fips_is_plain: false },
    Partition { regions: &["us-isob-"], suffix: "sc2s.sgov.gov", dual_stack: "api.aws.scloud", fips_is_plain: false },
    Partition {
        regions: &["eu-isoe-"],
        suffix: "cloud.adc-e.uk",
        dual_stack: "api.cloud-aws.adc-e.uk",
        fips_is_plain: false,
    },
    Partition {
        regions: &["us-isof-"],
        suffix: "csp.hci.ic.gov",
        dual_stack: "api.aws.hci.ic.gov",
        fips_is_plain: false,
    },
];

/// The host of a service in a region; `name` is [`crate::aws::service::Service::host_name`].
pub(crate) fn host(name: &str, region: &str, fips: bool, dual_stack: bool) -> String {
    let of = |partition: &&Partition| partition.regions.iter().any(|prefix| region.starts_with(prefix));
    let partition = OTHERS.iter().find(of).unwrap_or(&AWS);
    let suffix = if dual_stack { partition.dual_stack } else { partition.suffix };
    let fips = if fips && (dual_stack || !partition.fips_is_plain) { "-fips" } else { "" };
    format!("{name}{fips}.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_the_sdks_rules() {
        let text = include_str!("../../../tests/data/aws-config/endpoints.txt");
        let mut count = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, region, switches, expected] = words.as_slice() else { panic!("{line}") };
            let (fips, dual_stack) = (switches.contains("fips"), switches.contains("dual"));
            assert_eq!(host(name, region, fips, dual_stack), *expected, "{line}");
            count += 1;
        }
        assert!(count > 900, "{count} lines");
    }
}

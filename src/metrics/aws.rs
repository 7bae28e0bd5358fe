//! Requests to AWS, and what they consume.

use std::collections::{BTreeMap, BTreeSet};

use super::Metrics;
use super::format::Text;

/// Distinct results of AWS requests with series of their own; later ones count as `other`.
const MAX_RESULTS: usize = 32;
/// The longest result label of an AWS request, in characters; longer ones are truncated.
const MAX_RESULT_CHARS: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// Requests by service, operation and result.
    pub(super) requests: BTreeMap<(&'static str, &'static str, String), u64>,
    /// Capacity units by operation.
    pub(super) consumed: BTreeMap<&'static str, f64>,
}

impl Metrics {
    /// An attempt at an AWS request ended with `result`: `ok`, AWS's error code, or a failure such as `timeout` or `connect`.
    ///
    /// Error codes are external input, so they are bounded: characters other than letters, digits, `_`, `-` and `.` become
    /// `_`, and after 32 distinct results new ones count as `other`.
    pub fn aws_request(&self, service: &'static str, operation: &'static str, result: &str) {
        let mut result = result_label(result);
        let requests = &mut self.values().aws.requests;
        if result != "ok" {
            let seen: BTreeSet<&str> = requests.keys().map(|(_, _, result)| result.as_str()).collect();
            if seen.len() >= MAX_RESULTS && !seen.contains(result.as_str()) {
                "other".clone_into(&mut result);
            }
        }
        *requests.entry((service, operation, result)).or_default() += 1;
    }

    /// An operation consumed `units` capacity units, according to DynamoDB.
    pub fn consumed(&self, operation: &'static str, units: f64) {
        if units.is_finite() && units >= 0.0 {
            *self.values().aws.consumed.entry(operation).or_default() += units;
        }
    }
}

fn result_label(result: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' };
    let result: String = result.chars().take(MAX_RESULT_CHARS).map(harmless).collect();
    if result.is_empty() { "unknown".to_owned() } else { result }
}

pub(super) fn render(text: &mut Text, usage: &Usage) {
    if !usage.requests.is_empty() {
        let name = "hsdo_aws_requests_total";
        text.family(name, "counter", "Requests to AWS, including retries, by result.");
        for ((service, operation, result), count) in &usage.requests {
            text.sample(name, &[("service", service), ("operation", operation), ("result", result)], count);
        }
    }
    if !usage.consumed.is_empty() {
        let name = "hsdo_dynamodb_consumed_capacity_units_total";
        text.family(name, "counter", "Capacity units consumed, as reported by DynamoDB.");
        for (operation, units) in &usage.consumed {
            text.sample(name, &[("operation", operation)], units);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_aws_requests_cannot_grow_without_bound() {
        let metrics = Metrics::new("server");
        for n in 0..500 {
            metrics.aws_request("ec2", "DescribeInstances", &format!("{n}{}", "x".repeat(200)));
        }
        metrics.aws_request("ec2", "DescribeInstances", "ok");
        let text = metrics.render();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("hsdo_aws_requests_total")).collect();
        assert_eq!(lines.len(), MAX_RESULTS + 2, "the first ones, other, and ok");
        assert!(lines.iter().all(|line| line.len() < 160));
        assert!(text.contains("result=\"other\"} 468\n") && text.contains("result=\"ok\"} 1\n"), "{text}");
    }
}

//! DescribeSpotInstanceRequests: which Spot instances EC2 is about to interrupt, two minutes ahead. A hint: it never makes a turn fail.
//!
//! EC2 API Reference, version 2016-11-15.

use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ec2::{Record, SpotMarks};
use crate::aws::calls::{Aws, call_error, send};
use crate::aws::error::{AwsError, Cause};
use crate::aws::reading::pages::PageTokens;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::{Budget, Request};
use crate::log::Episode;

/// The status codes that announce an interruption while the instance may still run.
///
/// EC2 User Guide, "Get the status of a Spot Instance request" and "State changes for a Spot request"
/// (`spot-request-status`, `spot-instances-request-status-lifecycle`). The instance runs under `marked-for-stop` and
/// `marked-for-termination`. One that is to terminate because EC2 needs its capacity is never `marked-for-termination`: its request
/// is `instance-terminated-no-capacity` at once, its state `closed` or `open`, and the instance runs for two minutes more. So the
/// state of a request says nothing here, and the other endings are believed as well while the instance runs. Hibernation has no
/// code of its own, and no two minutes either.
///
/// Left out: `request-canceled-and-instance-running`, which ends nothing; `…-by-user`, one for each instance that a scale-in
/// terminated, listed for hours; `instance-terminated-by-service`, of an instance that had been stopped before.
const ANNOUNCING: [&str; 9] = [
    "marked-for-stop",
    "marked-for-termination",
    "instance-stopped-by-price",
    "instance-stopped-no-capacity",
    "instance-terminated-by-price",
    "instance-terminated-by-schedule",
    "instance-terminated-capacity-oversubscribed",
    "instance-terminated-launch-group-constraint",
    "instance-terminated-no-capacity",
];

/// Requests in one page: the most that EC2 allows.
const MAX_RESULTS: &str = "1000";
/// The budget of all pages. A turn waits for them.
const TOTAL: Duration = Duration::from_secs(2);
/// From a question that failed to the next one.
const PAUSE: Duration = Duration::from_secs(10);

/// What a mark says, for people.
pub fn spot_word(code: &str) -> String {
    format!("Spot interruption notice ({code})")
}

/// Whether a Spot instance runs among the members of groups.
pub(super) fn holds_spot<'a>(members: &[&str], mut records: impl Iterator<Item = &'a Record>) -> bool {
    records.any(|record| record.is_spot && record.is_running() && members.contains(&record.id.as_str()))
}

/// The marks known, and when to ask for them again.
#[derive(Debug)]
pub(super) struct Notices {
    /// Those of the last whole answer.
    marks: Arc<SpotMarks>,
    /// Not asked before this, because it failed; at once if none.
    retry: Option<Instant>,
    trouble: Episode,
}

impl Default for Notices {
    fn default() -> Self {
        let trouble = Episode::new("Spot interruption notices").target(module_path!());
        Notices { marks: Arc::default(), retry: None, trouble }
    }
}

impl Notices {
    /// The marks of now, or if they cannot be fetched, those that are known.
    pub(super) fn fetch(&mut self, aws: &Aws, now: Instant) -> Arc<SpotMarks> {
        if self.is_due(now) {
            self.learn(fetch_marks(aws), now);
        }
        Arc::clone(&self.marks)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.retry.is_none_or(|retry| now >= retry)
    }

    /// Takes in the outcome of a question asked at `now`.
    fn learn(&mut self, outcome: Result<SpotMarks, AwsError>, now: Instant) {
        match outcome {
            Ok(marks) => {
                if *self.marks != marks {
                    self.marks = Arc::new(marks);
                }
                self.retry = None;
                self.trouble.report(None);
            }
            Err(error) => {
                self.retry = Some(now + PAUSE);
                self.trouble.report(Some((&error.key(), &trouble(&error))));
            }
        }
    }
}

fn trouble(error: &AwsError) -> String {
    let remedy = if error.is_access_denied() { "; or set SERVER_SPOT_NOTICE to false" } else { "" };
    format!("none are heard of, and those known stand: {error}{remedy}")
}

/// Fetches the marks, each page in one attempt: the next turn asks again, and attempts are limited for all of EC2.
pub(super) fn fetch_marks(aws: &Aws) -> Result<SpotMarks, AwsError> {
    let budget: Budget = aws.budget(TOTAL, TOTAL).without_retries();
    let mut marks = SpotMarks::new();
    let mut pages = PageTokens::default();
    let mut token: Option<String> = None;
    loop {
        let request = request(token.as_deref());
        let (page, next) = send(aws, &request, &budget, &parse)?;
        marks.extend(page);
        let Some(next) = next else { return Ok(marks) };
        pages.follow(&next).map_err(|text| call_error(aws, &request, Cause::Unreadable(text)))?;
        token = Some(next);
    }
}

fn request(token: Option<&str>) -> Request {
    let mut query = Query::new("DescribeSpotInstanceRequests", "2016-11-15");
    query.add("Filter.1.Name", "status-code");
    query.add_list("Filter.1.Value", &ANNOUNCING);
    query.add("MaxResults", MAX_RESULTS);
    if let Some(token) = token {
        query.add("NextToken", token);
    }
    query.request(Service::Ec2, "DescribeSpotInstanceRequests", "interruptions".to_string())
}

type MarkPage = (SpotMarks, Option<String>);

/// Parses one page. A request without an instance is skipped, and so is one with another code: what does not filter, such as an
/// emulator, must not drain all servers.
pub(crate) fn parse(body: &mut dyn BufRead) -> Result<MarkPage, String> {
    const REQUESTS: &str = "DescribeSpotInstanceRequestsResponse/spotInstanceRequestSet";
    let (mut marks, mut token, mut complete) = (SpotMarks::new(), None, false);
    let (mut id, mut code) = (String::new(), None);
    xml::walk(body, &mut |path, text| {
        match path.strip_prefix(REQUESTS) {
            Some("") => complete = true,
            Some("/item/instanceId") => id = text.to_string(),
            Some("/item/status/code") => code = Some(text.to_string()),
            Some("/item") => {
                let (id, code) = (std::mem::take(&mut id), code.take());
                let code = code.ok_or_else(|| format!("a Spot request without a status code, of instance {id:?}"))?;
                let announced = ANNOUNCING.into_iter().find(|announcing| *announcing == code && !id.is_empty());
                marks.extend(announced.map(|announced| (id, announced)));
            }
            Some(_) => {}
            None if path == "DescribeSpotInstanceRequestsResponse/nextToken" && !text.is_empty() => {
                token = Some(text.to_string());
            }
            None => {}
        }
        Ok(())
    })?;
    if complete { Ok((marks, token)) } else { Err("it has no spotInstanceRequestSet".to_string()) }
}

#[cfg(test)]
#[path = "spot_tests.rs"]
mod tests;

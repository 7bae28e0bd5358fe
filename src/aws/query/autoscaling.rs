//! DescribeAutoScalingGroups: the instances of each group, with their lifecycle state and health.
//!
//! Auto Scaling API Reference, version 2011-01-01. `readiness` decides what a state means for traffic.

use std::io::BufRead;
use std::sync::Arc;

use super::pieces::{self, Cut, PIECE};
use crate::aws::calls::{Aws, call_error, send};
use crate::aws::error::{AwsError, Cause};
use crate::aws::reading::pages::PageTokens;
use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::Budget;
use crate::selection::TagFilter;

/// Names per call: the maximum of `MaxRecords`. Without `MaxRecords` AWS accepts only 50.
const NAMES_PER_CALL: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
/// A group as Auto Scaling describes it.
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// Its instances.
    pub members: Arc<Vec<Member>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
/// An instance as its group describes it.
pub struct Member {
    /// The instance id.
    pub id: String,
    /// `InService`, `Terminating:Wait`, ...
    pub lifecycle: String,
    /// `Healthy` or `Unhealthy`.
    pub health: String,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Its capacity, where the group weighs instance types.
    pub capacity: Option<u32>,
}

impl Member {
    /// In service and healthy.
    pub fn is_ready(&self) -> bool {
        self.lifecycle == "InService" && self.health.eq_ignore_ascii_case("Healthy")
    }
}

/// A piece is the instances of one group.
const MEMBERS: Cut = Cut {
    from: "<Instances>",
    to: "</Instances>",
    inside: "DescribeAutoScalingGroupsResponse/DescribeAutoScalingGroupsResult/AutoScalingGroups/member",
};

/// Fetches the groups with these names, all pages, in any order. Unknown names are left out; no names, no call.
pub(crate) fn fetch_groups(
    aws: &Aws,
    names: &[String],
    cache: &ParseCache<Vec<Member>>,
    budget: &Budget,
) -> Result<Vec<Group>, AwsError> {
    cache.next_response();
    let mut groups = Vec::new();
    for names in names.chunks(NAMES_PER_CALL) {
        let add_names = |query: &mut Query| query.add_list("AutoScalingGroupNames.member", names);
        groups.extend(fetch_pages(aws, &subject(names), budget, &add_names, &|body| parse(body, cache))?);
    }
    Ok(groups)
}

/// Fetches the names of all groups that carry these tags, all pages, in any order; of all groups without tags.
///
/// AWS filters by tag, but by no pattern of names. It leaves the instances out of the response, which are most of it.
pub(crate) fn fetch_names(aws: &Aws, tags: &[TagFilter], budget: &Budget) -> Result<Vec<String>, AwsError> {
    let add_filters = |query: &mut Query| {
        query.add("IncludeInstances", "false");
        for (place, TagFilter { key, value }) in (1..).zip(tags) {
            let (name, value) = match value {
                Some(value) => (format!("tag:{key}"), value),
                None => ("tag-key".to_owned(), key),
            };
            query.add(&format!("Filters.member.{place}.Name"), &name);
            query.add(&format!("Filters.member.{place}.Values.member.1"), value);
        }
    };
    let subject = match tags {
        [] => "the names of all groups".to_owned(),
        tags => format!("groups tagged {:?}", tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    };
    fetch_pages(aws, &subject, budget, &add_filters, &parse_names)
}

/// What is on a page, and the token of the next one; or why it cannot be read.
type Page<T> = Result<(Vec<T>, Option<String>), String>;

/// All pages of one question.
fn fetch_pages<T>(
    aws: &Aws,
    subject: &str,
    budget: &Budget,
    add_to: &dyn Fn(&mut Query),
    read: &dyn Fn(&mut dyn BufRead) -> Page<T>,
) -> Result<Vec<T>, AwsError> {
    let (mut found, mut pages) = (Vec::new(), PageTokens::default());
    let mut token: Option<String> = None;
    loop {
        let mut query = Query::new("DescribeAutoScalingGroups", "2011-01-01");
        add_to(&mut query);
        query.add("MaxRecords", &NAMES_PER_CALL.to_string());
        if let Some(token) = &token {
            query.add("NextToken", token);
        }
        let request = query.request(Service::AutoScaling, "DescribeAutoScalingGroups", subject.to_owned());
        let (page, next) = send(aws, &request, budget, read)?;
        found.extend(page);
        let Some(next) = next else { return Ok(found) };
        pages.follow(&next).map_err(|text| call_error(aws, &request, Cause::Unreadable(text)))?;
        token = Some(next);
    }
}

const RESULT: &str = "DescribeAutoScalingGroupsResponse/DescribeAutoScalingGroupsResult/";

/// The names on one page, with the groups' instances or without.
pub(crate) fn parse_names(body: &mut dyn BufRead) -> Page<String> {
    let (mut names, mut name, mut token, mut complete) = (Vec::new(), String::new(), None, false);
    xml::walk(body, &mut |path, text| {
        match path.strip_prefix(RESULT).unwrap_or_default() {
            "AutoScalingGroups" => complete = true,
            "NextToken" if !text.is_empty() => token = Some(text.to_string()),
            "AutoScalingGroups/member/AutoScalingGroupName" => name = text.to_string(),
            "AutoScalingGroups/member" if name.is_empty() => {
                return Err("a group without AutoScalingGroupName".to_owned());
            }
            "AutoScalingGroups/member" => names.push(std::mem::take(&mut name)),
            _ => {}
        }
        Ok(())
    })?;
    if complete { Ok((names, token)) } else { Err("it has no AutoScalingGroups".to_string()) }
}

fn subject(names: &[String]) -> String {
    match names {
        [name] => format!("group {name:?}"),
        [first, ..] => format!("{} groups from {first:?}", names.len()),
        [] => "no groups".to_string(),
    }
}

pub(crate) fn parse(body: &mut dyn BufRead, cache: &ParseCache<Vec<Member>>) -> Page<Group> {
    parse_cut(body, &MEMBERS, cache)
}

/// Parses one page, cut into pieces by `cut`.
pub(crate) fn parse_cut(body: &mut dyn BufRead, cut: &Cut, cache: &ParseCache<Vec<Member>>) -> Page<Group> {
    let (mut groups, mut group, mut uncut) = (Vec::new(), Group::default(), MemberReader::default());
    let mut tag = (String::new(), String::new());
    let (mut token, mut complete) = (None, false);
    // Even an empty group has an `<Instances/>`; without it the group is incomplete.
    let mut lists = 0;
    // Indexes of the groups whose instances are in a piece, in the order of the pieces.
    let mut indexes = Vec::new();
    let pieces = pieces::walk(body, cut, cache, &read_members, &mut |path, text| {
        match path.strip_prefix(RESULT).unwrap_or_default() {
            "AutoScalingGroups" => complete = true,
            "NextToken" if !text.is_empty() => token = Some(text.to_string()),
            "AutoScalingGroups/member/Instances" => lists += 1,
            path if path.strip_prefix("AutoScalingGroups/member/") == Some(PIECE) => {
                lists += 1;
                indexes.push(groups.len());
            }
            "AutoScalingGroups/member/AutoScalingGroupName" => group.name = text.to_string(),
            "AutoScalingGroups/member/Tags/member/Key" => tag.0 = text.to_string(),
            "AutoScalingGroups/member/Tags/member/Value" => tag.1 = text.to_string(),
            "AutoScalingGroups/member/Tags/member" => group.tags.push(std::mem::take(&mut tag)),
            "AutoScalingGroups/member" => {
                if group.name.is_empty() || std::mem::take(&mut lists) != 1 {
                    return Err(format!("a group without AutoScalingGroupName or one Instances: {:?}", group.name));
                }
                group.members = std::mem::take(&mut uncut.members).into();
                groups.push(std::mem::take(&mut group));
            }
            path => {
                let path = path.strip_prefix("AutoScalingGroups/member/Instances").unwrap_or_default();
                uncut.element(path, text)?;
            }
        }
        Ok(())
    })?;
    for (index, members) in indexes.into_iter().zip(pieces) {
        groups[index].members = members;
    }
    if complete { Ok((groups, token)) } else { Err("it has no AutoScalingGroups".to_string()) }
}

fn read_members(piece: &mut dyn BufRead) -> Result<Vec<Member>, String> {
    let mut reader = MemberReader::default();
    xml::walk(piece, &mut |path, text| reader.element(path.strip_prefix("piece/Instances").unwrap_or_default(), text))?;
    Ok(reader.members)
}

#[derive(Default)]
struct MemberReader {
    member: Member,
    members: Vec<Member>,
}

impl Group {
    /// Whether it carries all of these tags.
    pub(super) fn carries(&self, tags: &[TagFilter]) -> bool {
        let has = |filter: &TagFilter| {
            let is_it = |(key, value): &(String, String)| {
                *key == filter.key && filter.value.as_ref().is_none_or(|wanted| wanted == value)
            };
            self.tags.iter().any(is_it)
        };
        tags.iter().all(has)
    }
}

impl MemberReader {
    /// Handles the end of an element; `path` is relative to `Instances`.
    fn element(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path {
            "/member/InstanceId" => self.member.id = text.to_string(),
            "/member/LifecycleState" => self.member.lifecycle = text.to_string(),
            "/member/HealthStatus" => self.member.health = text.to_string(),
            // A number from 1 to 999, as text (Auto Scaling API reference, `Instance`).
            "/member/WeightedCapacity" => self.member.capacity = text.parse().ok(),
            "/member/AvailabilityZone" if !text.is_empty() => self.member.zone = Some(text.to_string()),
            "/member" => {
                let member = std::mem::take(&mut self.member);
                if member.id.is_empty() || member.lifecycle.is_empty() || member.health.is_empty() {
                    return Err(format!("a member without InstanceId, LifecycleState or HealthStatus: {member:?}"));
                }
                self.members.push(member);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aws::testing::{CannedResponse, Responder, Seen, aws};

    fn budget() -> Budget {
        Budget::new(Duration::from_secs(10), Duration::from_secs(4))
    }

    fn page(groups: &str, token: &str) -> String {
        format!(
            "<DescribeAutoScalingGroupsResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
             <DescribeAutoScalingGroupsResult><AutoScalingGroups>{groups}</AutoScalingGroups>{token}\
             </DescribeAutoScalingGroupsResult><ResponseMetadata><RequestId>R</RequestId></ResponseMetadata>\
             </DescribeAutoScalingGroupsResponse>"
        )
    }

    const WEB: &str = "<member><AutoScalingGroupName>web &amp; co</AutoScalingGroupName><Tags><member>\
        <Key>AutoScalingGroupName</Key></member></Tags><Instances><member><InstanceId>i-1</InstanceId>\
        <AvailabilityZone>eu-west-1a</AvailabilityZone>\
        <LifecycleState>InService</LifecycleState><HealthStatus>Healthy</HealthStatus><New>x</New></member>\
        <member><LifecycleState>Terminating:Wait</LifecycleState><InstanceId>i-2</InstanceId>\
        <HealthStatus>Unhealthy</HealthStatus></member></Instances></member>\
        <member><AutoScalingGroupName>empty</AutoScalingGroupName><Instances/></member>";

    fn read(text: &str) -> Page<Group> {
        parse(&mut text.as_bytes(), &ParseCache::default())
    }

    #[test]
    fn groups_and_members_are_parsed_among_unknown_elements() {
        let member = |id: &str, lifecycle: &str, health: &str, zone: Option<&str>| Member {
            id: id.to_string(),
            lifecycle: lifecycle.to_string(),
            health: health.to_string(),
            zone: zone.map(str::to_string),
            capacity: None,
        };
        let web = Group {
            name: "web & co".to_string(),
            tags: vec![("AutoScalingGroupName".to_string(), String::new())],
            members: vec![
                member("i-1", "InService", "Healthy", Some("eu-west-1a")),
                member("i-2", "Terminating:Wait", "Unhealthy", None),
            ]
            .into(),
        };
        let empty = Group { name: "empty".to_string(), ..Group::default() };
        let expected = Ok((vec![web, empty], Some("T".to_string())));
        assert_eq!(read(&page(WEB, "<NextToken>T</NextToken>")), expected);
        assert_eq!(read(&page("", "")), Ok((Vec::new(), None)));
    }

    #[test]
    fn a_malformed_response_is_an_error() {
        let whole = page(WEB, "");
        let cut = &whole[..whole.len() - 60];
        for bad in [
            "",
            "{}",
            "<html><body>hello</body></html>",
            "<DescribeAutoScalingGroupsResponse/>",
            "<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult/></DescribeAutoScalingGroupsResponse>",
            cut,
            &page("<member><Instances/></member>", ""),
            &page("<member><AutoScalingGroupName>web</AutoScalingGroupName></member>", ""),
            &page(&WEB.replace("</Instances>", "</Instances><Instances></Instances>"), ""),
            &page(&WEB.replace("</Instances>", "</Instances><Instances />"), ""),
            &page(&WEB.replace("<InstanceId>i-1</InstanceId>", ""), ""),
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_hundred_and_fifty_groups_take_three_calls_and_pages_are_joined() {
        // 60 groups a page; the token is the index of the next page's first group.
        let server = Responder::new(|seen: &Seen| {
            let asked: Vec<String> =
                (1..).map_while(|n| seen.query(&format!("AutoScalingGroupNames.member.{n}"))).collect();
            let from = seen.query("NextToken").map_or(0, |token| token.parse().expect("our token"));
            let member = |name: &String| {
                format!("<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances/></member>")
            };
            let to = asked.len().min(from + 60);
            let token = if to < asked.len() { format!("<NextToken>{to}</NextToken>") } else { String::new() };
            CannedResponse::ok(page(&asked[from..to].iter().map(member).collect::<String>(), &token))
        });
        let (aws, _) = aws(&server.url);
        let names: Vec<String> = (0..250).map(|n| format!("group-{n}")).collect();
        let groups = fetch_groups(&aws, &names, &ParseCache::default(), &budget()).expect("groups");
        assert_eq!(groups.into_iter().map(|group| group.name).collect::<Vec<_>>(), names);
        let calls: Vec<usize> = server.seen().iter().map(|seen| seen.count("AutoScalingGroupNames.member.")).collect();
        assert_eq!(calls, [100, 100, 100, 100, 50]);
        assert!(server.seen().iter().all(|seen| seen.query("MaxRecords").as_deref() == Some("100")));
    }

    #[test]
    fn repeating_page_tokens_are_an_error() {
        let server = Responder::new(|_: &Seen| CannedResponse::ok(page("", "<NextToken>same</NextToken>")));
        let (aws, _) = aws(&server.url);
        let error = fetch_groups(&aws, &["web".to_string()], &ParseCache::default(), &budget()).expect_err("a loop");
        assert!(error.to_string().contains("page tokens repeat"), "{error}");
        assert_eq!(server.seen().len(), 2);
    }

    #[test]
    fn no_names_make_no_call() {
        let server = Responder::new(|_: &Seen| CannedResponse::ok(page(WEB, "")));
        let (aws, _) = aws(&server.url);
        assert_eq!(fetch_groups(&aws, &[], &ParseCache::default(), &budget()).expect("nothing"), Vec::new());
        assert!(server.seen().is_empty());
    }
}

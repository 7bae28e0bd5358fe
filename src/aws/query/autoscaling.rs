//! DescribeAutoScalingGroups: which instances belong to a group, and what the group thinks of each.
//!
//! Auto Scaling API Reference, version 2011-01-01. What a state means for traffic is decided by `readiness`.

use std::io::BufRead;
use std::sync::Arc;

use super::pieces::{self, Cut, PIECE};
use crate::aws::calls::{Aws, failed, send};
use crate::aws::error::{Cause, Error};
use crate::aws::reading::memory::Memory;
use crate::aws::reading::pages::Pages;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::Budget;

/// How many names one call may carry: the most that `MaxRecords` allows. Without `MaxRecords` AWS takes only 50.
const NAMES_A_CALL: usize = 100;

/// A group, as AWS describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its instances.
    pub members: Arc<Vec<Member>>,
}

/// An instance of a group, as the group sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The instance's id.
    pub id: String,
    /// `InService`, `Terminating:Wait`, ...
    pub lifecycle: String,
    /// `Healthy` or `Unhealthy`.
    pub health: String,
}

/// What AWS's answer repeats: the instances of a group.
const MEMBERS: Cut = Cut {
    from: "<Instances>",
    to: "</Instances>",
    inside: "DescribeAutoScalingGroupsResponse/DescribeAutoScalingGroupsResult/AutoScalingGroups/member",
};

/// The groups of these names that AWS knows, all pages joined, in any order. Asking for no names asks nothing.
pub(crate) fn fetch_groups(
    aws: &Aws,
    names: &[String],
    memory: &Memory<Vec<Member>>,
    budget: &Budget,
) -> Result<Vec<Group>, Error> {
    memory.turn();
    let mut groups = Vec::new();
    for names in names.chunks(NAMES_A_CALL) {
        let mut pages = Pages::default();
        let mut token: Option<String> = None;
        loop {
            let mut query = Query::new("DescribeAutoScalingGroups", "2011-01-01");
            query.add_list("AutoScalingGroupNames.member", names);
            query.add("MaxRecords", &NAMES_A_CALL.to_string());
            if let Some(token) = &token {
                query.add("NextToken", token);
            }
            let subject = subject(names);
            let request = query.request(Service::AutoScaling, "DescribeAutoScalingGroups", subject);
            let (page, next) = send(aws, &request, budget, &|body| parse(body, memory))?;
            groups.extend(page);
            let Some(next) = next else { break };
            pages.follow(&next).map_err(|text| failed(aws, &request, Cause::Unreadable(text)))?;
            token = Some(next);
        }
    }
    Ok(groups)
}

fn subject(names: &[String]) -> String {
    match names {
        [name] => format!("group {name:?}"),
        [first, ..] => format!("{} groups from {first:?}", names.len()),
        [] => "no groups".to_string(),
    }
}

/// The groups on one page, and the token of the next one.
type Page = (Vec<Group>, Option<String>);

/// One page.
pub(crate) fn parse(body: &mut dyn BufRead, memory: &Memory<Vec<Member>>) -> Result<Page, String> {
    parse_cut(body, &MEMBERS, memory)
}

/// One page out of which the pieces of `cut` are cut.
pub(crate) fn parse_cut(body: &mut dyn BufRead, cut: &Cut, memory: &Memory<Vec<Member>>) -> Result<Page, String> {
    const RESULT: &str = "DescribeAutoScalingGroupsResponse/DescribeAutoScalingGroupsResult/";
    let (mut groups, mut group, mut others) = (Vec::new(), Group::default(), Reader::default());
    let (mut token, mut whole) = (None, false);
    // AWS lists the instances of an empty group too, as `<Instances/>`: without it the group is not told whole.
    let mut listed = 0;
    // The groups whose instances were cut out, in the order of the pieces.
    let mut places = Vec::new();
    let pieces = pieces::walk(body, cut, memory, &read_members, &mut |path, text| {
        match path.strip_prefix(RESULT).unwrap_or_default() {
            "AutoScalingGroups" => whole = true,
            "NextToken" if !text.is_empty() => token = Some(text.to_string()),
            "AutoScalingGroups/member/Instances" => listed += 1,
            path if path.strip_prefix("AutoScalingGroups/member/") == Some(PIECE) => {
                listed += 1;
                places.push(groups.len());
            }
            "AutoScalingGroups/member/AutoScalingGroupName" => group.name = text.to_string(),
            "AutoScalingGroups/member" => {
                if group.name.is_empty() || std::mem::take(&mut listed) != 1 {
                    return Err(format!("a group without AutoScalingGroupName or one Instances: {:?}", group.name));
                }
                group.members = std::mem::take(&mut others.members).into();
                groups.push(std::mem::take(&mut group));
            }
            path => {
                let path = path.strip_prefix("AutoScalingGroups/member/Instances").unwrap_or_default();
                others.element(path, text)?;
            }
        }
        Ok(())
    })?;
    for (place, members) in places.into_iter().zip(pieces) {
        groups[place].members = members;
    }
    if whole { Ok((groups, token)) } else { Err("it has no AutoScalingGroups".to_string()) }
}

fn read_members(piece: &mut dyn BufRead) -> Result<Vec<Member>, String> {
    let mut reader = Reader::default();
    xml::walk(piece, &mut |path, text| reader.element(path.strip_prefix("piece/Instances").unwrap_or_default(), text))?;
    Ok(reader.members)
}

/// Reads the instances of a group as their elements go by.
#[derive(Default)]
struct Reader {
    member: Member,
    members: Vec<Member>,
}

impl Reader {
    /// The end of an element, by its path from the group's instances.
    fn element(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path {
            "/member/InstanceId" => self.member.id = text.to_string(),
            "/member/LifecycleState" => self.member.lifecycle = text.to_string(),
            "/member/HealthStatus" => self.member.health = text.to_string(),
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
    use crate::aws::testing::{Answer, Responder, Seen, aws};

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
        <LifecycleState>InService</LifecycleState><HealthStatus>Healthy</HealthStatus><New>x</New></member>\
        <member><LifecycleState>Terminating:Wait</LifecycleState><InstanceId>i-2</InstanceId>\
        <HealthStatus>Unhealthy</HealthStatus></member></Instances></member>\
        <member><AutoScalingGroupName>empty</AutoScalingGroupName><Instances/></member>";

    fn read(text: &str) -> Result<(Vec<Group>, Option<String>), String> {
        parse(&mut text.as_bytes(), &Memory::default())
    }

    #[test]
    fn groups_and_members_are_read_by_name_whatever_stands_between() {
        let member = |id: &str, lifecycle: &str, health: &str| Member {
            id: id.to_string(),
            lifecycle: lifecycle.to_string(),
            health: health.to_string(),
        };
        let web = Group {
            name: "web & co".to_string(),
            members: vec![member("i-1", "InService", "Healthy"), member("i-2", "Terminating:Wait", "Unhealthy")].into(),
        };
        let empty = Group { name: "empty".to_string(), members: Arc::default() };
        let expected = Ok((vec![web, empty], Some("T".to_string())));
        assert_eq!(read(&page(WEB, "<NextToken>T</NextToken>")), expected);
        assert_eq!(read(&page("", "")), Ok((Vec::new(), None)));
    }

    #[test]
    fn an_answer_of_another_shape_is_no_answer() {
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
        // The emulator here gives 60 groups a page, the token being where the next page begins.
        let server = Responder::new(|seen: &Seen| {
            let asked: Vec<String> =
                (1..).map_while(|n| seen.query(&format!("AutoScalingGroupNames.member.{n}"))).collect();
            let from = seen.query("NextToken").map_or(0, |token| token.parse().expect("our token"));
            let member = |name: &String| {
                format!("<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances/></member>")
            };
            let to = asked.len().min(from + 60);
            let token = if to < asked.len() { format!("<NextToken>{to}</NextToken>") } else { String::new() };
            Answer::ok(page(&asked[from..to].iter().map(member).collect::<String>(), &token))
        });
        let (aws, _) = aws(&server.url);
        let names: Vec<String> = (0..250).map(|n| format!("group-{n}")).collect();
        let groups = fetch_groups(&aws, &names, &Memory::default(), &budget()).expect("groups");
        assert_eq!(groups.into_iter().map(|group| group.name).collect::<Vec<_>>(), names);
        let calls: Vec<usize> = server.seen().iter().map(|seen| seen.count("AutoScalingGroupNames.member.")).collect();
        assert_eq!(calls, [100, 100, 100, 100, 50]);
        assert!(server.seen().iter().all(|seen| seen.query("MaxRecords").as_deref() == Some("100")));
    }

    #[test]
    fn pages_in_a_circle_are_an_error() {
        let server = Responder::new(|_: &Seen| Answer::ok(page("", "<NextToken>same</NextToken>")));
        let (aws, _) = aws(&server.url);
        let error = fetch_groups(&aws, &["web".to_string()], &Memory::default(), &budget()).expect_err("a circle");
        assert!(error.to_string().contains("circle"), "{error}");
        assert_eq!(server.seen().len(), 2);
    }

    #[test]
    fn no_names_ask_nothing() {
        let server = Responder::new(|_: &Seen| Answer::ok(page(WEB, "")));
        let (aws, _) = aws(&server.url);
        assert_eq!(fetch_groups(&aws, &[], &Memory::default(), &budget()).expect("nothing"), Vec::new());
        assert!(server.seen().is_empty());
    }
}

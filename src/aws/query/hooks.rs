//! The port `Hooks`: lets instances go that a terminating lifecycle hook holds back.
//!
//! Auto Scaling API Reference, version 2011-01-01: "CompleteLifecycleAction" and "DescribeLifecycleHooks".

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use crate::aws::calls::{Aws, send};
use crate::aws::error::AwsError;
use crate::aws::reading::xml;
use crate::aws::service::Service;
use crate::aws::transport::form::Query;
use crate::aws::transport::http::Budget;
use crate::ports::{Completion, Hooks, TurnError};
use crate::settings::HookName;
use crate::slot::Waiting;

/// For all calls of a turn: the leader has to renew its lease within 6 s.
const TOTAL: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// How AWS refuses a call for an instance that no hook holds back, in a `ValidationError`: "No active Lifecycle Action found with
/// instance ID i-…" (as quoted in public reports; the API reference does not tell).
const NOT_ACTIVE: &str = "No active Lifecycle Action found";
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

/// A terminating lifecycle hook of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Its heartbeat time-out: how long AWS waits for an answer.
    pub timeout: Duration,
}

/// The hooks of `SERVER_LIFECYCLE_HOOK`.
pub struct LifecycleHooks {
    aws: Arc<Aws>,
    wanted: HookName,
}

impl LifecycleHooks {
    /// Makes no call.
    pub fn new(aws: Arc<Aws>, wanted: HookName) -> Self {
        LifecycleHooks { aws, wanted }
    }
}

impl Hooks for LifecycleHooks {
    fn complete(&mut self, leaving: &[Waiting]) -> Vec<(Waiting, Result<Completion, TurnError>)> {
        let budget = self.aws.budget(TOTAL, ATTEMPT);
        let mut names = BTreeMap::new();
        let mut denied: BTreeSet<&str> = BTreeSet::new();
        let mut outcomes = Vec::new();
        for one in leaving.iter() {
            if denied.contains(one.group.as_str()) {
                continue;
            }
            let outcome = complete(&self.aws, &self.wanted, one, &mut names, &budget);
            // A policy may allow it for some groups only. Any other failure would meet the next ones too.
            let (is_denied, is_general) = match &outcome {
                Err(error) => (error.is_access_denied(), !error.is_access_denied() && !concerns_one(error)),
                Ok(_) => (false, false),
            };
            denied.extend(is_denied.then_some(one.group.as_str()));
            outcomes.push((one.clone(), outcome.map_err(TurnError::from)));
            if is_general || budget.is_spent() {
                break;
            }
        }
        outcomes
    }
}

/// Whether a failure may be of this instance alone.
fn concerns_one(error: &AwsError) -> bool {
    error.code() == Some("ValidationError")
}

/// Tries to let an instance go that is none: AWS checks the right first.
pub(crate) fn try_completing(aws: &Aws, wanted: &HookName, group: &str, budget: &Budget) -> Result<(), AwsError> {
    let hook = match wanted {
        HookName::Named(hook) => hook.clone(),
        HookName::All => "hsdo-check".to_owned(),
    };
    let nobody = Waiting { name: "i-00000000000000000".to_owned(), group: group.to_owned() };
    match complete(aws, &HookName::Named(hook), &nobody, &mut BTreeMap::new(), budget) {
        Err(error) if !concerns_one(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Completes what holds back one instance. `names` are the hooks of groups that are known by now.
fn complete<'a>(
    aws: &Aws,
    wanted: &HookName,
    Waiting { name, group }: &'a Waiting,
    names: &mut BTreeMap<&'a str, Vec<String>>,
    budget: &Budget,
) -> Result<Completion, AwsError> {
    let hooks = match (wanted, names.get(group.as_str())) {
        (HookName::Named(hook), _) => std::slice::from_ref(hook),
        (HookName::All, Some(hooks)) => hooks,
        (HookName::All, None) => {
            names.entry(group).or_insert(fetch_hooks(aws, group, budget)?.into_iter().map(|hook| hook.name).collect())
        }
    };
    let mut completion = Completion::Over;
    for hook in hooks {
        let mut query = Query::new("CompleteLifecycleAction", "2011-01-01");
        query.add("AutoScalingGroupName", group);
        query.add("LifecycleHookName", hook);
        query.add("InstanceId", name);
        query.add("LifecycleActionResult", "CONTINUE");
        let subject = format!("{name} of group {group:?}, hook {hook:?}");
        let request = query.request(Service::AutoScaling, "CompleteLifecycleAction", subject);
        match send(aws, &request, budget, &parse_completion) {
            Ok(()) => completion = Completion::Done,
            Err(error) if error.refusal().is_some_and(|refusal| refusal.message.contains(NOT_ACTIVE)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(completion)
}

/// The terminating hooks of a group.
pub(crate) fn fetch_hooks(aws: &Aws, group: &str, budget: &Budget) -> Result<Vec<Hook>, AwsError> {
    let mut query = Query::new("DescribeLifecycleHooks", "2011-01-01");
    query.add("AutoScalingGroupName", group);
    let request = query.request(Service::AutoScaling, "DescribeLifecycleHooks", format!("group {group:?}"));
    send(aws, &request, budget, &parse_hooks)
}

fn parse_completion(body: &mut dyn BufRead) -> Result<(), String> {
    let mut complete = false;
    xml::walk(body, &mut |path, _| {
        complete |= path == "CompleteLifecycleActionResponse/CompleteLifecycleActionResult";
        Ok(())
    })?;
    if complete { Ok(()) } else { Err("it has no CompleteLifecycleActionResult".to_owned()) }
}

/// The terminating hooks in a response.
pub(crate) fn parse_hooks(body: &mut dyn BufRead) -> Result<Vec<Hook>, String> {
    const HOOKS: &str = "DescribeLifecycleHooksResponse/DescribeLifecycleHooksResult/LifecycleHooks";
    let (mut hooks, mut name, mut transition, mut complete) = (Vec::new(), String::new(), String::new(), false);
    let mut seconds = 0;
    xml::walk(body, &mut |path, text| {
        match path.strip_prefix(HOOKS) {
            Some("") => complete = true,
            Some("/member/LifecycleHookName") => name = text.to_owned(),
            Some("/member/LifecycleTransition") => transition = text.to_owned(),
            Some("/member/HeartbeatTimeout") => {
                seconds = text.parse().map_err(|_| format!("HeartbeatTimeout is {text:?}"))?;
            }
            Some("/member") => {
                let (name, transition) = (std::mem::take(&mut name), std::mem::take(&mut transition));
                if name.is_empty() {
                    return Err("a hook without LifecycleHookName".to_owned());
                }
                let timeout = Duration::from_secs(std::mem::take(&mut seconds));
                hooks.extend((transition == TERMINATING).then_some(Hook { name, timeout }));
            }
            _ => {}
        }
        Ok(())
    })?;
    if complete { Ok(hooks) } else { Err("it has no LifecycleHooks".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminating_hooks_are_read() {
        let response = |inside: &str| {
            format!(
                "<DescribeLifecycleHooksResponse><DescribeLifecycleHooksResult>{inside}</DescribeLifecycleHooksResult>\
                 </DescribeLifecycleHooksResponse>"
            )
        };
        let hook = |name: &str, transition: &str| {
            format!(
                "<member><AutoScalingGroupName>web</AutoScalingGroupName><LifecycleHookName>{name}</LifecycleHookName>\
                 <LifecycleTransition>autoscaling:EC2_INSTANCE_{transition}</LifecycleTransition>\
                 <HeartbeatTimeout>600</HeartbeatTimeout></member>"
            )
        };
        let hooks = [hook("drain", "TERMINATING"), hook("warm", "LAUNCHING"), hook("logs", "TERMINATING")].concat();
        let read = |text: &str| parse_hooks(&mut text.as_bytes());
        let hook = |name: &str| Hook { name: name.to_owned(), timeout: Duration::from_secs(600) };
        let found = read(&response(&format!("<LifecycleHooks>{hooks}</LifecycleHooks>")));
        assert_eq!(found.unwrap(), [hook("drain"), hook("logs")]);
        assert_eq!(read(&response("<LifecycleHooks/>")).unwrap(), []);
        assert!(read(&response("")).is_err());
        assert!(read(&response("<LifecycleHooks><member></member></LifecycleHooks>")).is_err());
    }

    #[test]
    fn a_completion_is_told_from_another_page() {
        let read = |text: &str| parse_completion(&mut text.as_bytes());
        let whole =
            "<CompleteLifecycleActionResponse><CompleteLifecycleActionResult/></CompleteLifecycleActionResponse>";
        assert_eq!(read(whole), Ok(()));
        assert!(read("<html/>").is_err());
        assert!(read(&whole[..40]).is_err());
    }
}

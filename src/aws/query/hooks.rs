//! The port `Hooks`: lets instances go that a terminating lifecycle hook holds back.
//!
//! Auto Scaling API Reference, version 2011-01-01: "CompleteLifecycleAction" and "DescribeLifecycleHooks".

use std::collections::BTreeMap;
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
    fn complete(&mut self, leaving: &[Waiting]) -> Vec<Result<Completion, TurnError>> {
        let budget = self.aws.budget(TOTAL, ATTEMPT);
        let mut names = BTreeMap::new();
        let mut outcomes: Vec<Result<Completion, TurnError>> = Vec::new();
        for one in leaving {
            let outcome = complete(&self.aws, &self.wanted, one, &mut names, &budget);
            // What AWS does not let us do now, it will not let us do for the others.
            let is_general = outcome.as_ref().is_err_and(|error| !concerns_one(error));
            outcomes.push(outcome.map_err(TurnError::from));
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
        (HookName::All, None) => names.entry(group).or_insert(fetch_hooks(aws, group, budget)?),
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

/// The names of a group's terminating hooks.
fn fetch_hooks(aws: &Aws, group: &str, budget: &Budget) -> Result<Vec<String>, AwsError> {
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

/// The names of the terminating hooks in a response.
pub(crate) fn parse_hooks(body: &mut dyn BufRead) -> Result<Vec<String>, String> {
    const HOOKS: &str = "DescribeLifecycleHooksResponse/DescribeLifecycleHooksResult/LifecycleHooks";
    let (mut names, mut name, mut transition, mut complete) = (Vec::new(), String::new(), String::new(), false);
    xml::walk(body, &mut |path, text| {
        match path.strip_prefix(HOOKS) {
            Some("") => complete = true,
            Some("/member/LifecycleHookName") => name = text.to_owned(),
            Some("/member/LifecycleTransition") => transition = text.to_owned(),
            Some("/member") => {
                let (name, transition) = (std::mem::take(&mut name), std::mem::take(&mut transition));
                if name.is_empty() {
                    return Err("a hook without LifecycleHookName".to_owned());
                }
                names.extend((transition == TERMINATING).then_some(name));
            }
            _ => {}
        }
        Ok(())
    })?;
    if complete { Ok(names) } else { Err("it has no LifecycleHooks".to_owned()) }
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
                 <LifecycleTransition>autoscaling:EC2_INSTANCE_{transition}</LifecycleTransition></member>"
            )
        };
        let hooks = [hook("drain", "TERMINATING"), hook("warm", "LAUNCHING"), hook("logs", "TERMINATING")].concat();
        let read = |text: &str| parse_hooks(&mut text.as_bytes());
        assert_eq!(read(&response(&format!("<LifecycleHooks>{hooks}</LifecycleHooks>"))).unwrap(), ["drain", "logs"]);
        assert_eq!(read(&response("<LifecycleHooks/>")).unwrap(), [""; 0]);
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

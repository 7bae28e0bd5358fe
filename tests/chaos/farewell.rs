//! The terminating lifecycle hook of all groups, as AWS answers for it: only those that wait may be let go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::common::aws_proxy::AwsProxy;
use crate::common::http::lock;
use crate::fleet::Scene;

pub(crate) const HOOK: &str = "drain";
pub(crate) const REPORTS: &str = "reports";

/// Who waited for the hook, and who was let go.
#[derive(Clone, Default)]
pub(crate) struct Farewell(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    waited: BTreeSet<String>,
    let_go: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Farewell {
    pub(crate) fn install(aws: &AwsProxy) -> Self {
        let farewell = Farewell::default();
        let of_calls = farewell.clone();
        aws.stub("CompleteLifecycleAction", move |form| {
            let value = |name: &str| {
                let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
            };
            of_calls.answer(&value("InstanceId"), &value("LifecycleHookName"))
        });
        farewell
    }

    /// AWS keeps no list of who waited: one that was let go, or that ended, has no active action.
    fn answer(&self, instance: &str, hook: &str) -> (u16, String) {
        let mut known = lock(&self.0);
        if hook != HOOK || !known.waited.contains(instance) {
            known.wrong.push(format!("{instance} is let go from the hook {hook:?}, and never waited for it"));
        }
        if known.let_go.insert(instance.to_owned()) {
            return (
                200,
                "<CompleteLifecycleActionResponse><CompleteLifecycleActionResult/></CompleteLifecycleActionResponse>"
                    .to_owned(),
            );
        }
        let text = format!("No active Lifecycle Action found with instance ID {instance}");
        (
            400,
            format!(
                "<ErrorResponse><Error><Code>ValidationError</Code><Message>{text}</Message></Error></ErrorResponse>"
            ),
        )
    }

    /// What the groups say from now on.
    pub(crate) fn see(&self, scene: &Scene) {
        let waits = scene.instances.values().filter(|instance| instance.lifecycle == "Terminating:Wait");
        lock(&self.0).waited.extend(waits.map(|instance| instance.id.clone()));
    }

    /// How many waited, how many were let go, and what was wrong.
    pub(crate) fn outcome(&self) -> (usize, usize, Vec<String>) {
        let known = lock(&self.0);
        (known.waited.len(), known.let_go.len(), known.wrong.clone())
    }
}

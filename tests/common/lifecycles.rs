//! Lifecycle states that moto does not have, set in the groups' answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::aws_proxy::Fault;
use super::bed::Bed;
use super::http::lock;

/// Lifecycle states that moto does not have, edited into Auto Scaling's responses.
#[derive(Clone, Default)]
pub struct Lifecycles(Arc<Mutex<BTreeMap<String, String>>>);

impl Lifecycles {
    /// Changes nothing until [`Lifecycles::set`]; ends with [`super::aws_proxy::AwsProxy::heal`].
    pub fn install(bed: &Bed) -> Self {
        let states = Lifecycles::default();
        bed.aws().inject("DescribeAutoScalingGroups", states.fault());
        states
    }

    /// The same as a fault, to inject again after a heal.
    pub fn fault(&self) -> Fault {
        let of_answers = self.clone();
        Fault::Edit(Arc::new(move |body| of_answers.edit(body)))
    }

    pub fn set(&self, id: &str, state: &str) {
        lock(&self.0).insert(id.to_owned(), state.to_owned());
    }

    pub fn clear(&self) {
        lock(&self.0).clear();
    }

    fn edit(&self, mut body: String) -> String {
        for (id, state) in lock(&self.0).iter() {
            let Some(place) = body.find(&format!("<InstanceId>{id}</InstanceId>")) else { continue };
            let start = body[..place].rfind("<member>").unwrap_or(place);
            let end = body[place..].find("</member>").map_or(body.len(), |length| place + length);
            let member = body[start..end].replace(
                "<LifecycleState>InService</LifecycleState>",
                &format!("<LifecycleState>{state}</LifecycleState>"),
            );
            body.replace_range(start..end, &member);
        }
        body
    }
}

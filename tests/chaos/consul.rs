//! The same with a real Consul agent as the source: the fleet is registered there, and the agent is killed, paused and
//! restarted.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::bed::Bed;
use crate::common::consul::Consul;
use crate::common::hsdo::Hsdo;
use crate::fleet::{Expected, GROUPS, Scene, ZONES};
use crate::{Chaos, one_at_a_time, variable};

/// Runs for this fraction of the AWS run's time.
const SHARE: u64 = 2;

#[test]
fn nothing_harms_traffic_of_services_in_consul() {
    let _alone = one_at_a_time();
    let seconds = variable("HSDO_CHAOS_SECONDS").unwrap_or(45) / SHARE;
    let seed = variable("HSDO_CHAOS_SEED").unwrap_or(1);
    println!("chaos with Consul for {seconds} s; HSDO_CHAOS_SEED={seed} repeats it");
    let bed = Bed::new("chaos-consul");
    let consul = Consul::start_persistent(&bed);
    let mut chaos = Chaos::start(seed, false, bed, Some(consul));
    let end = Instant::now() + Duration::from_secs(seconds);
    chaos.settle(0);
    while Instant::now() < end {
        chaos.round();
    }
    chaos.finish();
}

pub(crate) fn as_source(hsdo: Hsdo, url: &str) -> Hsdo {
    hsdo.env("SERVER_MODE", "consul")
        .env("SERVER_CONSUL_API_URL", url)
        .env("SERVER_CONSUL_SERVICE_NAME", &GROUPS.join(","))
}

/// Registers what is new or changed, then deregisters what is gone. Every instance is a node of its own.
pub(crate) fn register(consul: &Consul, before: &Scene, after: &Scene) {
    for (id, instance) in after.instances.iter().filter(|(id, instance)| before.instances.get(*id) != Some(instance)) {
        let (own, maintenance) = match after.expected(instance) {
            Expected::Ready => ("passing", "passing"),
            Expected::Draining => ("passing", "critical"),
            Expected::Absent | Expected::Unknown => ("critical", "passing"),
        };
        let check = |kind: &str, status: &str| json!({"CheckID": format!("{kind}:{id}"), "Name": kind, "ServiceID": id, "Status": status});
        let mut checks = vec![check("alive", own)];
        if maintenance == "critical" {
            checks.push(check("_service_maintenance", maintenance));
        }
        let address = instance.address.to_string();
        let registration = json!({
            "Node": id, "Address": address, "Checks": checks,
            "Service": {"ID": id, "Service": GROUPS[instance.group], "Address": address, "Meta": {"zone": ZONES[instance.zone]}},
        });
        consul.call("PUT", "/v1/catalog/register", &registration.to_string());
        if maintenance == "passing" {
            let gone = json!({"Node": id, "CheckID": format!("_service_maintenance:{id}")});
            consul.call("PUT", "/v1/catalog/deregister", &gone.to_string());
        }
    }
    for id in before.instances.keys().filter(|id| !after.instances.contains_key(*id)) {
        consul.deregister_node(id);
    }
}

impl Chaos {
    /// Breaks the agent for a while.
    pub(crate) fn harm_consul(&mut self) {
        let (killed, span) = (self.random.percent(40), self.random.millis(200, 2_500));
        self.count(if killed { "consul killed" } else { "consul stopped" });
        let consul = self.consul.as_mut().expect("it is the source");
        if killed {
            consul.kill();
            std::thread::sleep(span);
            consul.restart_persistent();
        } else {
            consul.freeze();
            std::thread::sleep(span);
            consul.thaw();
        }
    }
}

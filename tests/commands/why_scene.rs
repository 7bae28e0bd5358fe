//! A fleet in which every slot has another reason, on a real HAProxy and moto.

use std::sync::Arc;
use std::time::Duration;

use hsdo::clock::Timestamp;
use serde_json::json;

use crate::common::aws_proxy::Fault;
use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Outcome, Running};
use crate::common::tap::Tap;
use crate::common::wait::{SOON, wait_for};
use crate::common::web::Behaviour;

pub(crate) const BACK: &str = "http-back";
/// Slots in use; the template has one less.
pub(crate) const SIZE: u32 = 14;
/// The slots of group `web`'s instances, in the order of their addresses. The last instance has none.
const SLOTS: [u32; 10] = [1, 2, 3, 5, 6, 7, 8, 11, 13, 14];
pub(crate) const BY_HAND: &str = "by-hand";

pub(crate) struct Scene {
    // Fields drop in this order.
    client: Running,
    pub(crate) haproxy: Haproxy,
    /// Between `hsdo why` and HAProxy.
    pub(crate) tap: Tap,
    pub(crate) bed: Bed,
}

impl Scene {
    /// Slot 1 serves, 2 ramps, 3 drains, 4 is of a missing group, 5 is unknown to EC2, 6 waits for its check, 7 is held, 8 is down,
    /// 9 is of another group, 10 unreadable, 11 disabled, 12 free, 13 in a strange state, 14 beyond the template.
    pub(crate) fn set() -> Self {
        let bed = Bed::new("why");
        bed.moto().create_table();
        for (group, count) in [("web", SLOTS.len() + 1), ("web-b", 1), ("empty", 0)] {
            bed.moto().create_group(group, 0, count);
        }
        bed.serve_instances(&["web", "web-b"]);
        let scene_rows = Rows { bed: &bed };
        scene_rows.write();
        let backend = |name: &str, base: &str| {
            let config = BackendConfig::new(name, base, SIZE as usize - 1);
            config.line("option httpchk GET /check").line("timeout check 60s")
        };
        let haproxy = Haproxy::start(&bed, &[backend(BACK, "mywebapp"), backend("http-fallback", "fallback")]);
        let tap = Tap::start(bed.dir().join("tap.sock"), haproxy.socket());
        let client = Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SIZE.to_string()).spawn();
        let mut scene = Scene { client, haproxy, tap, bed };
        scene.haproxy.wait_weights(
            BACK,
            &[
                ("mywebapp1", 10),
                ("mywebapp13", 10),
                ("mywebapp2", 3),
                ("mywebapp4", 10),
                ("mywebapp5", 10),
                ("mywebapp7", 10),
                ("mywebapp8", 10),
                ("mywebapp9", 10),
            ],
        );
        scene.disturb();
        scene
    }

    /// What happens once all of them serve.
    fn disturb(&mut self) {
        let (new, failing) = (self.instance(6), self.instance(8));
        self.bed.web().set_check_behaviour(&new, Behaviour::Slow(Duration::from_secs(60)));
        self.bed.web().set_check_behaviour(&failing, Behaviour::Status(503));
        self.haproxy.command(&format!("set server {BACK}/mywebapp7 state drain"));
        Rows { bed: &self.bed }.occupy(6, 10);
        wait_for("the new server to be filled, and the failing one to be down", SOON, || {
            let servers = self.haproxy.servers(BACK);
            let down = |name: &str| servers[name].status.starts_with("DOWN") && servers[name].weight == 10;
            if down("mywebapp6") && down("mywebapp8") { Ok(()) } else { Err(format!("{servers:?}")) }
        });
        self.client.wait_metric("hsdo_haproxy_held_slots", |count| count == 1.0);
        self.install_faults();
    }

    /// What moto cannot say by itself.
    pub(crate) fn install_faults(&self) {
        let (draining, strange, silent) = (self.instance(3), self.instance(13), self.instance(5));
        let groups = move |body: String| {
            let body = with_lifecycle(&body, &draining, "Terminating:Wait");
            with_lifecycle(&body, &strange, "Dreaming")
        };
        self.bed.aws().inject("DescribeAutoScalingGroups", Fault::Edit(Arc::new(groups)));
        let last = if silent.ends_with('0') { '1' } else { '0' };
        let other = format!("<instanceId>{}{last}</instanceId>", &silent[..silent.len() - 1]);
        self.bed
            .aws()
            .inject("DescribeInstances", Fault::replace(&format!("<instanceId>{silent}</instanceId>"), &other));
    }

    /// The instance in a slot.
    pub(crate) fn instance(&self, slot: u32) -> String {
        Rows { bed: &self.bed }.instance(slot).0
    }

    pub(crate) fn address(&self, slot: u32) -> String {
        Rows { bed: &self.bed }.instance(slot).1
    }

    /// The instance without a slot.
    pub(crate) fn unseated(&self) -> String {
        self.bed.moto().instances("web").pop().expect("an instance").id
    }

    /// Asks with the settings of both roles.
    pub(crate) fn ask(&self, target: &str, settings: &[(&str, &str)], flags: &[&str]) -> Outcome {
        let hsdo = Hsdo::with_aws(&self.bed, "why")
            .arg("why")
            .arg(target)
            .env("SERVER_MODE", "aws")
            .env("SERVER_ASG_NAMES", "web,web-b,gone")
            .env("SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL", "3600")
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SIZE.to_string())
            .env("CLIENT_HAPROXY_SOCKET_PATH", &self.tap.path().to_string_lossy())
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("{BACK}:mywebapp:{}", self.bed.web().port()));
        let hsdo = settings.iter().fold(hsdo, |hsdo, (key, value)| hsdo.env(key, value));
        flags.iter().fold(hsdo, |hsdo, flag| hsdo.arg(flag)).run()
    }
}

/// Writes the table that a server would have written.
struct Rows<'a> {
    bed: &'a Bed,
}

impl Rows<'_> {
    fn write(&self) {
        for slot in SLOTS.into_iter().filter(|slot| *slot != 6).chain([9]) {
            self.occupy(slot, 10);
        }
        let moto = self.bed.moto();
        moto.put_free(6);
        let address = "127.1.9.4";
        self.bed.web().serve(BY_HAND, address.parse().expect("an address"));
        moto.put_server(4, address, BY_HAND, Some("gone"), 10);
        moto.put_server(10, "127.1.9.10", "i-odd", Some("web"), 10);
        moto.put_free(12);
        moto.update_item(10, &json!({"Weight": {"S": "ten"}}));
        let now = Timestamp::now().to_string();
        moto.update_item(2, &json!({"Weight": {"N": "3"}, "LastWeightUpdate": {"S": now}}));
        moto.update_item(3, &json!({"Weight": {"N": "0"}, "BackendServerStatus": {"S": "draining"}}));
        moto.update_item(11, &json!({"BackendServerStatus": {"S": "disabled"}}));
    }

    fn occupy(&self, slot: u32, weight: u16) {
        let (id, address) = self.instance(slot);
        let group = if slot == 9 { "web-b" } else { "web" };
        self.bed.moto().put_server(slot, &address, &id, Some(group), weight);
    }

    fn instance(&self, slot: u32) -> (String, String) {
        let (group, index) = match SLOTS.iter().position(|other| *other == slot) {
            Some(index) => ("web", index),
            None => ("web-b", 0),
        };
        let instance = self.bed.moto().instances(group).swap_remove(index);
        (instance.id, instance.address.to_string())
    }
}

fn with_lifecycle(body: &str, id: &str, state: &str) -> String {
    let Some(place) = body.find(&format!("<InstanceId>{id}</InstanceId>")) else { return body.to_owned() };
    let start = body[..place].rfind("<member>").unwrap_or(place);
    let end = body[place..].find("</member>").map_or(body.len(), |length| place + length);
    let member = body[start..end].replace("<LifecycleState>InService<", &format!("<LifecycleState>{state}<"));
    format!("{}{member}{}", &body[..start], &body[end..])
}

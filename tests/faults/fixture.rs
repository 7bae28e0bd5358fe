//! Shared by the fault tests: two servers in rotation, and the client that keeps them there.

use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Running};
use crate::common::traffic;

pub(crate) const BACK: &str = "http-back";
pub(crate) const OK: &str = r#"hsdo_turns_total{result="ok"}"#;
pub(crate) const FAILED: &str = r#"hsdo_turns_total{result="failed"}"#;

/// A converged client: `i-1` and `i-2` hold slots 1 and 2 of a table of four, and both serve.
pub(crate) struct Scene {
    // Fields drop in this order.
    pub(crate) client: Running,
    pub(crate) haproxy: Haproxy,
    pub(crate) bed: Bed,
}

impl Scene {
    pub(crate) fn set(name: &str) -> Self {
        Self::set_with(name, |client| client)
    }

    /// The same with another way to start the client.
    pub(crate) fn set_with(name: &str, client: impl Fn(Hsdo) -> Hsdo) -> Self {
        let bed = Bed::new(name);
        bed.moto().create_table();
        for id in 1..=4 {
            if id <= 2 { occupy(&bed, id, 10) } else { bed.moto().put_free(id) }
        }
        let haproxy = Haproxy::start(&bed, &[BackendConfig::new(BACK, "mywebapp", 4)]);
        let client = client(Hsdo::client(&bed).env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", "4")).spawn();
        let mut scene = Scene { client, haproxy, bed };
        scene.wait_weights(&[10, 10]);
        // Drop what happened before the first servers were up.
        scene.client.wait_turn();
        scene
    }

    /// Waits until exactly the first slots serve, at these weights.
    #[track_caller]
    pub(crate) fn wait_weights(&self, weights: &[u32]) {
        let names: Vec<String> = (1..=weights.len()).map(|id| format!("mywebapp{id}")).collect();
        let wanted: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        self.haproxy.wait_weights(BACK, &wanted);
    }

    /// Sends requests through HAProxy: all must be answered, by both servers.
    #[track_caller]
    pub(crate) fn assert_serves(&self) {
        let tally = traffic::send(self.haproxy.frontend(BACK), 20);
        assert!(tally.failures.is_empty() && tally.names() == ["i-1", "i-2"], "{tally}");
    }

    /// Changes the weight of a row, as a ramp does.
    pub(crate) fn set_weight(&self, id: u32, weight: u16) {
        self.bed.moto().update_item(id, &serde_json::json!({"Weight": {"N": weight.to_string()}}));
    }
}

/// Puts the instance `i-<id>` into a slot, with a web server.
pub(crate) fn occupy(bed: &Bed, id: u32, weight: u16) {
    let address = format!("127.1.2.{id}");
    bed.web().serve(&format!("i-{id}"), address.parse().expect("an address"));
    bed.moto().put_server(id, &address, &format!("i-{id}"), Some("web"), weight);
}

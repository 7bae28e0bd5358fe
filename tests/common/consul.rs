//! A real Consul agent, and calls to register, check, drain and remove instances.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::bed::{Bed, package_dir, tool};
use super::port::Port;
use super::process::Process;
use super::wait::wait_for;

/// How long an agent may take to elect itself and answer.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Agents talk to each other here, not on 127.0.0.1, whose UDP ports [`Port`] uses for its claims.
const BIND: &str = "127.77.0.1";
/// The agent's own node.
pub const NODE: &str = "node-1";

/// An agent with its own ports and directory, running or not.
#[derive(Debug)]
pub struct Consul {
    dir: PathBuf,
    /// HTTP, server RPC and gossip.
    ports: [Port; 3],
    config: PathBuf,
    token: Option<String>,
    agent: ureq::Agent,
    process: Option<Process>,
}

impl Consul {
    /// An agent in dev mode, once it has elected itself.
    pub fn start(bed: &Bed) -> Self {
        Self::start_with(bed, &json!({}), None)
    }

    /// A single server with its state on disk, for [`Consul::restart_persistent`].
    pub fn start_persistent(bed: &Bed) -> Self {
        let mut consul = Self::stopped(bed, &json!({}), None);
        consul.restart_persistent();
        consul
    }

    /// In dev mode with more configuration, and a token for the test's own calls.
    pub fn start_with(bed: &Bed, config: &Value, token: Option<&str>) -> Self {
        let mut consul = Self::stopped(bed, config, token);
        consul.restart();
        consul
    }

    fn stopped(bed: &Bed, config: &Value, token: Option<&str>) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .max_idle_connections(0)
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Consul {
            dir: bed.dir().to_owned(),
            ports: [Port::reserve(), Port::reserve(), Port::reserve()],
            config: bed.file("consul.json", &config.to_string()),
            token: token.map(str::to_owned),
            agent: ureq::Agent::new_with_config(agent),
            process: None,
        }
    }

    /// Changes the configuration for the next start.
    pub fn configure(&self, config: &Value) {
        std::fs::write(&self.config, config.to_string()).expect("its configuration");
    }

    /// Restarts it after a kill, with nothing registered.
    pub fn restart(&mut self) {
        self.spawn(&["-dev"]);
        self.wait_for_node();
    }

    /// Restarts it with all that was registered.
    pub fn restart_persistent(&mut self) {
        let data = self.dir.join("consul-data").to_string_lossy().into_owned();
        self.spawn(&["-server", "-bootstrap-expect", "1", "-data-dir", &data]);
        self.wait_for_node();
    }

    fn wait_for_node(&mut self) {
        wait_for("Consul to know its leader and its own node", TIMEOUT, || {
            self.process.as_mut().expect("it was spawned").assert_running();
            let (status, body) = self.try_call("GET", "/v1/catalog/nodes?consistent", "").map_err(|e| e.to_string())?;
            if status == 200 && body.contains(NODE) { Ok(()) } else { Err(format!("{status}: {body}")) }
        });
    }

    /// Starts, in the killed agent's place, a server that waits for two others in vain and so never has a leader.
    pub fn start_without_quorum(&mut self) {
        let data = self.dir.join("consul-alone").to_string_lossy().into_owned();
        self.spawn(&["-server", "-bootstrap-expect", "3", "-data-dir", &data]);
        wait_for("Consul to say that it has no leader", TIMEOUT, || {
            self.process.as_mut().expect("it was spawned").assert_running();
            let (status, body) = self.try_call("GET", "/v1/catalog/nodes", "").map_err(|e| e.to_string())?;
            if status == 500 && body.contains("No cluster leader") { Ok(()) } else { Err(format!("{status}: {body}")) }
        });
    }

    fn spawn(&mut self, mode: &[&str]) {
        assert!(self.process.is_none(), "Consul runs already");
        let [http, server, serf] = self.ports.each_ref().map(|port| port.number().to_string());
        let mut command = Command::new(program());
        command.arg("agent").args(mode).args(["-bind", BIND, "-client", "127.0.0.1", "-node", NODE]);
        command.args(["-http-port", &http, "-server-port", &server, "-serf-lan-port", &serf]);
        command.args(["-serf-wan-port", "-1", "-dns-port", "-1", "-grpc-port", "-1", "-log-level", "warn"]);
        command.arg("-config-file").arg(&self.config);
        self.process = Some(Process::spawn(&self.dir, "consul", &mut command));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Pauses it (SIGSTOP): its port stays open, and nothing answers.
    pub fn freeze(&mut self) {
        self.process.as_mut().expect("Consul runs").signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.process.as_mut().expect("Consul runs").signal("CONT");
    }

    /// The address of its API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0].number())
    }

    /// An API call: status and body.
    pub fn try_call(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), ureq::Error> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url()));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let mut answer = self.agent.run(request.body(body.to_owned()).expect("a request"))?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), text))
    }

    /// An API call that must succeed: its body.
    pub fn call(&self, method: &str, path: &str, body: &str) -> String {
        match self.try_call(method, path, body) {
            Ok((200, text)) => text,
            other => panic!("Consul: {method} {path}: {other:?}"),
        }
    }

    /// Registers an instance at the agent, with a passing check.
    pub fn register(&self, service: &str, id: &str, address: &str) {
        self.register_with(service, id, address, &json!({}));
    }

    /// The same with more fields of the definition.
    pub fn register_with(&self, service: &str, id: &str, address: &str, more: &Value) {
        let check = json!({"CheckID": format!("check-{id}"), "TTL": "1h", "Status": "passing"});
        let mut definition = json!({"Name": service, "ID": id, "Address": address, "Port": 80, "Check": check});
        for (key, value) in more.as_object().expect("fields") {
            definition[key] = value.clone();
        }
        self.call("PUT", "/v1/agent/service/register", &definition.to_string());
    }

    pub fn deregister(&self, id: &str) {
        self.call("PUT", &format!("/v1/agent/service/deregister/{id}"), "");
    }

    /// Sets an instance's check: `pass`, `warn` or `fail`.
    pub fn set_check(&self, id: &str, status: &str) {
        self.call("PUT", &format!("/v1/agent/check/{status}/check-{id}"), "");
    }

    /// Puts an instance into maintenance, or takes it out.
    pub fn set_maintenance(&self, id: &str, on: bool) {
        self.call("PUT", &format!("/v1/agent/service/maintenance/{id}?enable={on}&reason=test"), "");
    }

    /// Puts the agent's node into maintenance, or takes it out.
    pub fn set_node_maintenance(&self, on: bool) {
        self.call("PUT", &format!("/v1/agent/maintenance?enable={on}&reason=test"), "");
    }

    /// Registers an instance on a node without an agent. With an empty address, the node's is used.
    pub fn register_on_node(&self, node: &str, node_address: &str, service: &str, id: &str, address: &str) {
        let registration = json!({
            "Node": node,
            "Address": node_address,
            "Service": {"ID": id, "Service": service, "Address": address},
            "Check": {"CheckID": format!("check-{id}"), "Name": id, "ServiceID": id, "Status": "passing"},
        });
        self.call("PUT", "/v1/catalog/register", &registration.to_string());
    }

    /// Removes a node without an agent, with its instances.
    pub fn deregister_node(&self, node: &str) {
        self.call("PUT", "/v1/catalog/deregister", &json!({ "Node": node }).to_string());
    }
}

/// `HSDO_TEST_CONSUL`, or where `make tools` puts it.
pub fn program() -> PathBuf {
    tool("HSDO_TEST_CONSUL", &[package_dir().join("target/consul/consul"), PathBuf::from("/usr/bin/consul")])
}

/// Makes a CA in `dir` and signs a server and a client certificate: the CA, server certificate and key, client
/// certificate and key.
pub fn certificates(dir: &Path) -> [PathBuf; 5] {
    for arguments in [
        ["tls", "ca", "create"].as_slice(),
        &["tls", "cert", "create", "-server"],
        &["tls", "cert", "create", "-client"],
    ] {
        let made = Command::new(program()).args(arguments).current_dir(dir).output().expect("consul runs");
        assert!(made.status.success(), "consul {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    }
    [
        "consul-agent-ca.pem",
        "dc1-server-consul-0.pem",
        "dc1-server-consul-0-key.pem",
        "dc1-client-consul-0.pem",
        "dc1-client-consul-0-key.pem",
    ]
    .map(|name| dir.join(name))
}

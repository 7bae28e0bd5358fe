//! One HAProxy with its client: the tap between them, requests through it, and watchers of its backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy, Server};
use crate::common::hsdo::Hsdo;
use crate::common::moto::{Item, text_of};
use crate::common::tap::Tap;
use crate::common::traffic::Stream;
use crate::fleet::{Instance, Part, Scene, ip};
use crate::role::Role;
use crate::watcher::Watcher;
use crate::{BASE, SLOTS};

/// The weight that every server ramps to.
const FULL: u32 = 10;

/// A backend of a site.
pub(crate) struct Back {
    pub(crate) name: &'static str,
    /// The groups whose instances stand here.
    groups: &'static [usize],
    pub(crate) watcher: Watcher,
}

impl Back {
    /// The addresses of the instances of this part that belong here.
    pub(crate) fn addresses(&self, scene: &Scene, part: Part) -> BTreeSet<IpAddr> {
        scene.of(part).filter(|instance| self.takes(instance)).map(ip).collect()
    }

    pub(crate) fn takes(&self, instance: &Instance) -> bool {
        self.groups.contains(&instance.group)
    }
}

/// A HAProxy and what belongs to it.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) backs: Vec<Back>,
    pub(crate) stream: Stream,
    /// Requests go to the server that those of their key went to before, at weight 0 too.
    pub(crate) persistent: bool,
    pub(crate) client: Role,
    pub(crate) tap: Tap,
    pub(crate) haproxy: Haproxy,
    /// Spans in which HAProxy itself was away, stopped, or not filled again. The last one may not have ended.
    pub(crate) outages: Vec<(Instant, Option<Instant>)>,
    /// The HAProxy process before the fault, if another one is to come.
    worker: Option<String>,
    /// Servers that the test itself set to drain or maintenance, with their addresses.
    pub(crate) held: BTreeSet<(String, String)>,
}

impl Site {
    /// A site; a dedicated one has the first group in its default backend and the others in its fallback.
    pub(crate) fn start(bed: &Bed, name: &'static str, dedicated: bool) -> Self {
        let names: &[(&'static str, &'static [usize])] =
            if dedicated { &[("http-back", &[0]), ("fallback", &[1])] } else { &[("http-back", &[0, 1])] };
        // One site is as the manual has it; in the other a single failed check takes a server out, and every request goes to the
        // server that the one before with its key went to, whatever the weights say.
        let config = |(name, _): &(&str, _)| {
            let config =
                BackendConfig::new(name, BASE, SLOTS as usize + 2).line("option redispatch 1").line("retries 3");
            if dedicated {
                config
                    .options("check inter 2s fastinter 300ms downinter 300ms rise 2 fall 1")
                    .line("stick-table type integer size 1k expire 1m")
                    .line("stick on rand(5)")
                    .line("cookie S insert indirect nocache dynamic")
                    .line("dynamic-cookie-key k")
            } else {
                config.options("check inter 200ms rise 2 fall 5")
            }
        };
        let configs: Vec<BackendConfig> = names.iter().map(config).collect();
        let haproxy = Haproxy::start_named(bed, name, &configs);
        let tap = Tap::start(bed.dir().join(format!("{name}.tap")), haproxy.socket());
        let client = Role::start(if dedicated { "dedicated client" } else { "client" }, {
            let (path, url, port) = (tap.path().to_owned(), bed.aws().url(), bed.web().port());
            let bed_of_client = BedOfClient { dir: bed.dir().to_owned(), url, port };
            move || bed_of_client.client(&path.to_string_lossy(), dedicated)
        });
        let backs = names
            .iter()
            .map(|(name, groups)| Back { name, groups, watcher: Watcher::start(haproxy.socket(), name) })
            .collect();
        let stream = Stream::start(haproxy.frontend("http-back"), Duration::from_millis(30), usize::MAX / 4);
        let now = Instant::now();
        Site {
            name,
            backs,
            stream,
            persistent: dedicated,
            client,
            tap,
            haproxy,
            outages: vec![(now, None)],
            worker: None,
            held: BTreeSet::new(),
        }
    }

    /// HAProxy is about to be harmed; it is well again when another process of it has somebody in rotation, or, where
    /// the same goes on, at once after the fault.
    pub(crate) fn outage(&mut self, another_process: bool) {
        let worker = self.backs[0].watcher.filled().map(|(pid, _)| pid).unwrap_or_default();
        if self.outages.last().is_none_or(|outage| outage.1.is_some()) {
            self.outages.push((Instant::now(), None));
            self.worker = None;
        }
        if another_process {
            self.worker = Some(worker);
        } else if self.worker.is_none() {
            self.end_outage(Instant::now());
        }
    }

    /// Ends the outage if HAProxy was seen filled again. At the first start, somebody in rotation is enough.
    pub(crate) fn look_at_outage(&mut self) {
        if self.outages.last().is_some_and(|outage| outage.1.is_none())
            && let Some((pid, since)) = self.backs[0].watcher.filled()
            && self.worker.as_ref() != Some(&pid)
        {
            self.end_outage(since);
            self.worker = None;
        }
    }

    fn end_outage(&mut self, at: Instant) {
        if let Some(outage) = self.outages.last_mut() {
            outage.1 = Some(at);
        }
    }

    /// Whether an outage explains what happened between the two moments.
    pub(crate) fn explains(&self, from: Instant, to: Instant) -> bool {
        // What came in while it was still empty may end a little later, in the order of HAProxy's queue and retries.
        let after = Duration::from_millis(300);
        self.outages.iter().any(|(begin, end)| to >= *begin && end.is_none_or(|end| from <= end + after))
    }

    /// Whether a server that is wanted has not passed its checks yet: who leaves, or moves to another slot, may serve meanwhile.
    pub(crate) fn waits(&self) -> bool {
        let waits = |server: &Server| server.weight > 0 && server.status.starts_with("DOWN");
        self.backs
            .iter()
            .any(|back| self.haproxy.try_servers(back.name).is_ok_and(|servers| servers.values().any(waits)))
    }

    /// What is not right in HAProxy: every wanted server at its address in the right backend and open, nobody else.
    /// With `full`, also that all of them are up at full weight.
    pub(crate) fn fault(&self, scene: &Scene, rows: &BTreeMap<u32, Item>, full: bool) -> Option<String> {
        for back in &self.backs {
            let servers = match self.haproxy.try_servers(back.name) {
                Ok(servers) => servers,
                Err(error) => return Some(format!("{}: {error}", self.name)),
            };
            if let Some(fault) = fault_of(back, &servers, scene, rows, full) {
                return Some(format!("{} {}: {fault}: {servers:#?}", self.name, back.name));
            }
        }
        None
    }
}

fn fault_of(
    back: &Back,
    servers: &BTreeMap<String, Server>,
    scene: &Scene,
    rows: &BTreeMap<u32, Item>,
    full: bool,
) -> Option<String> {
    let mut wanted = back.addresses(scene, Part::Ready);
    let leaving = back.addresses(scene, Part::Draining);
    for (name, server) in servers.iter().filter(|(_, server)| !server.in_maintenance()) {
        let address = server.addr.rsplit_once(':').and_then(|(address, _)| address.parse::<IpAddr>().ok());
        let Some(address) = address else { return Some(format!("{name} has no address")) };
        if leaving.contains(&address) && server.weight == 0 {
            continue;
        }
        let row = name.strip_prefix(BASE).and_then(|number| rows.get(&number.parse().ok()?));
        if row.and_then(|row| text_of(row, "IPAddress")) != Some(address.to_string()) {
            return Some(format!("{name} at {address} is not in that row of the table"));
        }
        if !wanted.remove(&address) {
            return Some(format!("{name} at {address} is open"));
        }
        if server.status.starts_with("DRAIN") {
            return Some(format!("{name} drains"));
        }
        if full && (server.weight != FULL || server.status != "UP") {
            return Some(format!("{name} is {} at weight {}", server.status, server.weight));
        }
    }
    (!wanted.is_empty()).then(|| format!("{wanted:?} is missing"))
}

/// What a client needs of the bed, for as long as new ones are started.
struct BedOfClient {
    dir: std::path::PathBuf,
    url: String,
    port: u16,
}

impl BedOfClient {
    fn client(&self, socket: &str, dedicated: bool) -> Hsdo {
        let hsdo = Hsdo::in_dir(&self.dir, &self.url, "client")
            .arg("--client")
            .env("AWS_ACCESS_KEY_ID", "client")
            .env("CLIENT_HAPROXY_SOCKET_PATH", socket)
            .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &self.port.to_string())
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("http-back:{BASE}:{}", self.port))
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string());
        if !dedicated {
            return hsdo;
        }
        hsdo.env("CLIENT_DEDICATED_ASG", "true")
            .env("CLIENT_ASG_NAMES", crate::fleet::GROUPS[0])
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback")
            .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", BASE)
    }
}

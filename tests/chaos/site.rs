//! One HAProxy with its client, a tap between them, requests through it, and watchers of its backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::bed::Bed;
use crate::common::haproxy::{BackendConfig, Haproxy, Server};
use crate::common::hsdo::Hsdo;
use crate::common::moto::{Item, text_of};
use crate::common::tap::Tap;
use crate::common::traffic::Stream;
use crate::fleet::{Expected, GROUPS, Instance, Scene, ZONES, ip};
use crate::role::Role;
use crate::watcher::Watcher;
use crate::{BASE, SLOTS};

/// The weight at the end of the ramp.
const FULL: u32 = 10;

/// How a site splits the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Nothing,
    /// The first group in its default backend, the others in its fallback.
    Group,
    /// The first zone in its default backend. The others help out.
    Zone,
}

pub(crate) struct SiteBackend {
    pub(crate) name: &'static str,
    /// The groups and zones whose instances belong here.
    groups: &'static [usize],
    zones: &'static [usize],
    pub(crate) watcher: Watcher,
}

impl SiteBackend {
    /// Those of whom hsdo should make this.
    pub(crate) fn addresses(&self, scene: &Scene, part: Expected) -> BTreeSet<IpAddr> {
        let of_part = scene.instances.values().filter(|instance| scene.wanted(instance) == part);
        of_part.filter(|instance| self.takes(instance)).map(ip).collect()
    }

    /// Those that drain, and may still be there, at weight 0.
    fn leaving(&self, scene: &Scene) -> BTreeSet<IpAddr> {
        let drains = scene.instances.values().filter(|instance| scene.wanted(instance) == Expected::Draining);
        drains.filter(|instance| self.spills() || self.takes(instance)).map(ip).collect()
    }

    /// Whether servers of other zones may come in.
    fn spills(&self) -> bool {
        self.zones.len() < ZONES.len()
    }

    /// Those that could serve, whatever is ordered.
    pub(crate) fn able(&self, scene: &Scene) -> BTreeSet<IpAddr> {
        scene.of(Expected::Ready).filter(|instance| self.spills() || self.takes(instance)).map(ip).collect()
    }

    pub(crate) fn takes(&self, instance: &Instance) -> bool {
        self.groups.contains(&instance.group) && self.zones.contains(&instance.zone)
    }
}

pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) backs: Vec<SiteBackend>,
    pub(crate) stream: Stream,
    /// Persistent: a request sticks to the server its key had before, even at weight 0.
    pub(crate) persistent: bool,
    pub(crate) client: Role,
    pub(crate) tap: Tap,
    pub(crate) haproxy: Haproxy,
    /// When HAProxy itself was away, paused, or not refilled yet. The last one may be open.
    pub(crate) outages: Vec<(Instant, Option<Instant>)>,
    /// The HAProxy process before the fault, if another is to come.
    worker: Option<String>,
    /// Servers that the test holds in drain or maintenance, with their addresses.
    pub(crate) held: BTreeSet<(String, String)>,
}

impl Site {
    pub(crate) fn start(bed: &Bed, name: &'static str, split: Split) -> Self {
        let dedicated = split == Split::Group;
        let names: &[(&'static str, &'static [usize])] =
            if dedicated { &[("http-back", &[0]), ("fallback", &[1])] } else { &[("http-back", &[0, 1])] };
        let zones: &'static [usize] = if split == Split::Zone { &[0] } else { &[0, 1, 2] };
        // One site follows the manual; in the other a single failed check takes a server out, and requests stick to
        // their server, whatever the weights.
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
        let role = match split {
            Split::Nothing => "client",
            Split::Group => "dedicated client",
            Split::Zone => "client of a zone",
        };
        let client = Role::start(role, {
            let (path, url, port) = (tap.path().to_owned(), bed.aws().url(), bed.web().port());
            let bed_of_client = ClientBed { dir: bed.dir().to_owned(), url, port };
            move || bed_of_client.client(&path.to_string_lossy(), split)
        });
        let backs = names
            .iter()
            .map(|(name, groups)| SiteBackend { name, groups, zones, watcher: Watcher::start(haproxy.socket(), name) })
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

    /// Notes that HAProxy is about to be harmed. It ends when another process has servers in rotation or, if the
    /// process stays, with the fault.
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

    /// Ends the outage once HAProxy is filled again. At the first start, one server in rotation is enough.
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

    /// Whether an outage explains a failure between the two moments.
    pub(crate) fn explains(&self, from: Instant, to: Instant) -> bool {
        // Requests that came while it was empty may end a little later, after HAProxy's queue and retries.
        let after = Duration::from_millis(300);
        self.outages.iter().any(|(begin, end)| to >= *begin && end.is_none_or(|end| from <= end + after))
    }

    /// Whether a wanted server has not passed its checks yet: a leaving or moving one may serve meanwhile.
    pub(crate) fn waits(&self) -> bool {
        let waits = |server: &Server| server.weight > 0 && server.status.starts_with("DOWN");
        self.backs
            .iter()
            .any(|back| self.haproxy.try_servers(back.name).is_ok_and(|servers| servers.values().any(waits)))
    }

    /// What is wrong in HAProxy: every wanted server must be at its address in the right backend and open, and no
    /// other. With `full`, all of them must also be up at full weight.
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
    back: &SiteBackend,
    servers: &BTreeMap<String, Server>,
    scene: &Scene,
    rows: &BTreeMap<u32, Item>,
    full: bool,
) -> Option<String> {
    let mut wanted = back.addresses(scene, Expected::Ready);
    let is_empty = wanted.is_empty();
    let mut helpers = if back.spills() { back.able(scene) } else { BTreeSet::new() };
    helpers.retain(|address| !wanted.contains(address));
    let mut helps = false;
    let leaving = back.leaving(scene);
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
        if helpers.contains(&address) {
            helps = true;
            if server.weight > FULL {
                return Some(format!("{name} of another zone has more than its weight"));
            }
            continue;
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
    if back.spills() && is_empty && !helps {
        return Some("nobody serves".to_owned());
    }
    (!wanted.is_empty()).then(|| format!("{wanted:?} is missing"))
}

/// What new clients need of the bed.
struct ClientBed {
    dir: std::path::PathBuf,
    url: String,
    port: u16,
}

impl ClientBed {
    fn client(&self, socket: &str, split: Split) -> Hsdo {
        let hsdo = Hsdo::in_dir(&self.dir, &self.url, "client")
            .arg("--client")
            .env("AWS_ACCESS_KEY_ID", "client")
            .env("CLIENT_HAPROXY_SOCKET_PATH", socket)
            .env("CLIENT_HAPROXY_BACKEND_SERVER_PORT", &self.port.to_string())
            .env("CLIENT_HAPROXY_BACKEND_LIST", &format!("http-back:{BASE}:{}", self.port))
            .env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string())
            .env("DYNAMODB_REPORT_TABLE_NAME", crate::farewell::REPORTS);
        match split {
            Split::Nothing => hsdo,
            Split::Group => hsdo
                .env("CLIENT_DEDICATED_ASG", "true")
                .env("CLIENT_ASG_NAMES", GROUPS[0])
                .env("CLIENT_HAPROXY_FALLBACK_BACKEND_NAME", "fallback")
                .env("CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME", BASE),
            Split::Zone => hsdo
                .env("CLIENT_DEDICATED_ZONE", "true")
                .env("CLIENT_ZONE_NAMES", ZONES[0])
                .env("CLIENT_SPILL_BELOW", "70"),
        }
    }
}

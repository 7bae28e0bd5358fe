//! A random configuration, for both HAProxys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::common::port::Port;
use crate::common::random::Random;
use crate::model::{BackendConfig, Check};

const BACKENDS: usize = 3;

/// Algorithms, and whether they take no weights but 0 and the configured one.
const ALGORITHMS: [(&str, bool); 8] = [
    ("balance roundrobin", false),
    ("balance leastconn", false),
    ("balance random", false),
    ("balance uri\n    hash-type consistent", false),
    ("balance source\n    hash-type consistent", false),
    ("balance source", true),
    ("balance uri", true),
    ("balance static-rr", true),
];

#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) backends: Vec<(BackendConfig, &'static str)>,
    /// Checks are so fast that each step is compared once they have settled; else so slow that none runs.
    pub(crate) is_fast: bool,
    pub(crate) steps: usize,
}

impl Shape {
    pub(crate) fn any(random: &mut Random) -> Self {
        let is_fast = random.percent(50);
        let inter = if is_fast { Duration::from_millis(10) } else { Duration::from_secs(3_600) };
        let mut backend = |number: usize| {
            let check = Check {
                inter,
                rise: 1 + random.below(3) as u32,
                fall: 1 + random.below(3) as u32,
                takes: Duration::from_micros(100),
            };
            let (algorithm, is_static) = *random.pick(&ALGORITHMS);
            let config = BackendConfig {
                slots: 2 + random.below(3) as u32,
                placeholder: SocketAddr::from(([127, 0, 0, 2], 1)),
                weight: *random.pick(&[0, 1, 1, 1, 7, 100, 256]),
                check: random.percent(75).then_some(check),
                disabled: random.percent(75),
                is_static,
                ..BackendConfig::new(&format!("back-{number}"), "web", 1)
            };
            (config, algorithm)
        };
        let backends = (0..BACKENDS).map(&mut backend).collect();
        Shape { backends, is_fast, steps: if is_fast { 12 } else { 150 } }
    }

    /// The configuration of the real one.
    pub(crate) fn text(&self, socket: &Path, ports: &BTreeMap<String, Port>) -> String {
        let mut text = format!(
            "global\n    stats socket {} mode 600 level admin\n    stats timeout 5s\n\n\
             defaults\n    mode http\n    timeout connect 2s\n    timeout client 10s\n    timeout server 10s\n",
            socket.display()
        );
        for (BackendConfig { name, base, slots, placeholder, weight, check, disabled, .. }, algorithm) in &self.backends
        {
            let check = check.map_or_else(String::new, |Check { inter, rise, fall, .. }| {
                format!(" check inter {}ms rise {rise} fall {fall}", inter.as_millis())
            });
            let disabled = if *disabled { " disabled" } else { "" };
            text.push_str(&format!(
                "\nfrontend to-{name}\n    bind 127.0.0.1:{}\n    default_backend {name}\n\
                 \nbackend {name}\n    {algorithm}\n    \
                 server-template {base} 1-{slots} {placeholder} weight {weight}{check}{disabled}\n",
                ports[name].number()
            ));
        }
        text
    }
}

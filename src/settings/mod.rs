//! What a role runs on, as typed values, and how they are loaded: default, then file, then environment.
//!
//! [`KEYS`] is the one table of settings. Nothing here knows what a role does with a value, and nothing here reads
//! the standard AWS variables but the region.

mod backends;
mod consul;
mod faults;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod parse;
mod shown;
mod socket;
mod sources;
mod strays;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::Path;

use crate::conf_file::Node;
use crate::environment::Environment;
use crate::slot::{MAX_SLOT, MAX_WEIGHT};

pub use consul::ConsulApi;
use consul::consul_api;
pub use faults::Faults;
use keys::{
    AWS_DEFAULT_REGION, AWS_REGION, CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND, CLIENT_ASG_NAMES, CLIENT_DEDICATED_ASG,
    CLIENT_HAPROXY_BACKEND_SERVER_PORT, CLIENT_HAPROXY_SOCKET_PATH, CLIENT_HEALTH_GATE, CLIENT_STATE_FILE,
    CLIENT_STATE_MAX_AGE, CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO, DEBUG, DYNAMODB_TABLE_NAME, EXPORTER_ADDRESS,
    EXPORTER_PORT, HAPROXY_BACKEND_SERVERS_LIST_SIZE, INTERVAL, SERVER_ASG_NAMES, SERVER_CONSUL_API_URL,
    SERVER_CONSUL_SERVICE_NAME, SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT,
    SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL, SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT,
    SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT, SERVER_MODE, SERVER_REMOVAL_GUARD,
};
pub use keys::{KEYS, Key, Scope, help};
use parse::{TableName, address, boolean, file_path, is_odd, names, region, scalar, seconds, table_name, whole};
use shown::{LISTED, cut};
pub use socket::HaproxySocket;
use sources::Sources;
pub use values::{Backend, ClientSettings, Common, RampSettings, ServerSettings, SourceSettings, StateFile};

/// Where a configuration file is looked for when `--config` names none: the first that can be read.
pub const USUAL_FILES: [&str; 2] = ["conf/env.yaml", "/etc/hsdo/env.yaml"];

/// Loads what the server runs on. `config` is the file that `--config` names.
///
/// # Errors
/// [`Faults`] with one line for each fault: the key, what was found and where, and what was expected.
pub fn load_server(config: Option<&Path>, env: &Environment) -> Result<ServerSettings, Faults> {
    server(open(config, env)?)
}

/// Loads what the client runs on. `config` is the file that `--config` names.
///
/// # Errors
/// [`Faults`] with one line for each fault: the key, what was found and where, and what was expected.
pub fn load_client(config: Option<&Path>, env: &Environment) -> Result<ClientSettings, Faults> {
    client(open(config, env)?)
}

/// Loads what `--create-table` needs: it creates no table by its ARN.
///
/// # Errors
/// [`Faults`] with one line for each fault of the keys that both roles read.
pub fn load_common(config: Option<&Path>, env: &Environment) -> Result<Common, Faults> {
    let mut sources = open(config, env)?;
    let common = common(&mut sources);
    if common.table_region.is_some()
        && let Some(found) = sources.find(&DYNAMODB_TABLE_NAME)
    {
        let expected = "the name alone: a table is created in the account of the credentials and in AWS_DEFAULT_REGION";
        sources.wrong(&DYNAMODB_TABLE_NAME, &found, expected);
    }
    sources.finish(common)
}

fn open<'a>(config: Option<&Path>, env: &'a Environment) -> Result<Sources<'a>, Faults> {
    Sources::open(config, &USUAL_FILES.map(Path::new), env)
}

// In the three functions below a value that is not there or faulty is reported to `sources`, and a stand-in takes its
// place: `finish` gives the settings away only when nothing was reported.

fn server(mut sources: Sources<'_>) -> Result<ServerSettings, Faults> {
    let source = source(&mut sources);
    let ramp = ramp(&mut sources);
    let removal_guard = sources.read(&SERVER_REMOVAL_GUARD, scalar(seconds(0.0..=86_400.0))).unwrap_or_default();
    let common = common(&mut sources);
    sources.finish(ServerSettings { common, source, ramp, removal_guard })
}

fn source(sources: &mut Sources<'_>) -> SourceSettings {
    let none = SourceSettings::Aws { groups: vec![] };
    let Some(found) = sources.given(&SERVER_MODE) else {
        sources.missing(&SERVER_MODE, "");
        return none;
    };
    match found.node.to_string().trim().to_ascii_lowercase().as_str() {
        "aws" => SourceSettings::Aws { groups: list(sources, &SERVER_ASG_NAMES, true).unwrap_or_default() },
        "consul" => {
            let api = sources.require(&SERVER_CONSUL_API_URL, scalar(consul_api));
            let services = list(sources, &SERVER_CONSUL_SERVICE_NAME, true);
            api.zip(services).map_or(none, |(api, services)| SourceSettings::Consul { api, services })
        }
        _ => {
            sources.wrong(&SERVER_MODE, &found, SERVER_MODE.expected);
            none
        }
    }
}

/// The names of a list. One that looks as if a mark of its spelling came along is noted.
fn list(sources: &mut Sources<'_>, key: &Key, required: bool) -> Option<Vec<String>> {
    let parse = |node: &Node| names(node).filter(|names| !(required && names.is_empty()));
    let names = if required { sources.require(key, parse) } else { sources.read(key, parse) }?;
    let odd: Vec<&String> = names.iter().filter(|name| is_odd(name)).collect();
    if let (false, Some(found)) = (odd.is_empty(), sources.given(key)) {
        // As they are read, and not in quotes, which may be what is wrong with them.
        let mut shown: Vec<String> = odd.iter().take(LISTED).map(|name| format!("`{}`", cut(name))).collect();
        if odd.len() > LISTED {
            shown.push(format!("and {} more", odd.len() - LISTED));
        }
        let text = format!(
            "names with a quote or a bracket at an end, or with `;`, are taken as they stand: {}; leave the marks out \
             where the names have none",
            shown.join(", ")
        );
        sources.note(key, &found, &text);
    }
    Some(names)
}

fn ramp(sources: &mut Sources<'_>) -> RampSettings {
    let weight = scalar(whole(0..=MAX_WEIGHT));
    let max_key = &SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT;
    let min = sources.read(&SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT, &weight);
    let max = sources.read(max_key, &weight);
    if let (Some(min), Some(max), Some(found)) = (min, max, sources.find(max_key))
        && max < min
    {
        let min_key = SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT.name;
        sources.wrong(max_key, &found, &format!("a weight from {min} ({min_key}) to {MAX_WEIGHT}"));
    }
    let step = sources.read(&SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT, scalar(whole(1..=MAX_WEIGHT)));
    let interval = sources.read(&SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL, scalar(seconds(1e-6..=1e9)));
    RampSettings {
        min: min.unwrap_or_default(),
        max: max.unwrap_or_default(),
        step: step.unwrap_or_default(),
        interval: interval.unwrap_or_default(),
    }
}

fn client(mut sources: Sources<'_>) -> Result<ClientSettings, Faults> {
    let socket = sources.read(&CLIENT_HAPROXY_SOCKET_PATH, scalar(HaproxySocket::parse)).unwrap_or_default();
    let port = sources.read(&CLIENT_HAPROXY_BACKEND_SERVER_PORT, scalar(whole(0..=u16::MAX)));
    let backends = backends::read(&mut sources, port);
    let mut flag = |key| sources.read(key, scalar(boolean)).unwrap_or_default();
    let dedicated = flag(&CLIENT_DEDICATED_ASG);
    let all_in_fallback = flag(&CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND);
    let health_gate = flag(&CLIENT_HEALTH_GATE);

    let max_age = sources.read(&CLIENT_STATE_MAX_AGE, scalar(seconds(0.0..=1e9))).unwrap_or_default();
    let path = sources.read(&CLIENT_STATE_FILE, scalar(file_path));
    let state_file = path.map(|path| StateFile { path, max_age });

    let because = |key: &Key| format!("because {} is true", key.name);
    if dedicated && sources.given(&CLIENT_ASG_NAMES).is_none() {
        sources.missing(&CLIENT_ASG_NAMES, &because(&CLIENT_DEDICATED_ASG));
    }
    let given = sources.given(&CLIENT_ASG_NAMES).is_some();
    let groups = list(&mut sources, &CLIENT_ASG_NAMES, dedicated && given);
    let reason = match (dedicated, all_in_fallback) {
        (true, _) => Some(because(&CLIENT_DEDICATED_ASG)),
        (false, true) => Some(because(&CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND)),
        (false, false) => None,
    };
    let fallback = backends::read_fallback(&mut sources, port, reason.as_deref());
    backends::check_base_names(&mut sources, &backends, fallback.as_ref());
    let managed = |text: &str| boolean(text).filter(|managed| *managed);
    sources.read(&CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO, scalar(managed));

    let common = common(&mut sources);
    sources.finish(ClientSettings {
        common,
        socket,
        backends,
        dedicated,
        groups: groups.unwrap_or_default(),
        fallback,
        all_in_fallback,
        health_gate,
        state_file,
    })
}

fn common(sources: &mut Sources<'_>) -> Common {
    let interval = sources.read(&INTERVAL, scalar(seconds(0.05..=3600.0))).unwrap_or_default();
    let list_size = sources.read(&HAPROXY_BACKEND_SERVERS_LIST_SIZE, scalar(whole(1..=MAX_SLOT))).unwrap_or_default();
    let TableName { name: table, region: table_region } =
        sources.require(&DYNAMODB_TABLE_NAME, scalar(table_name)).unwrap_or_default();
    let region = match sources.in_environment(&AWS_REGION) {
        Some(_) => sources.read(&AWS_REGION, scalar(region)),
        None => sources.read(&AWS_DEFAULT_REGION, scalar(region)),
    };
    let port: Option<u16> = sources.read(&EXPORTER_PORT, scalar(whole(0..=u16::MAX)));
    let address = sources.read(&EXPORTER_ADDRESS, scalar(address));
    let exporter = port.filter(|port| *port != 0).zip(address).map(|(port, address)| SocketAddr::new(address, port));
    let debug = sources.read(&DEBUG, scalar(boolean)).unwrap_or_default();
    // The last of a configuration to be read, in every role.
    let notes = sources.notes();
    Common { interval, list_size, table, table_region, region, exporter, debug, notes }
}

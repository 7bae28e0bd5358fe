//! Settings as typed values, loaded from defaults, file and environment. [`KEYS`] is the one table of settings.
//!
//! Of the standard AWS variables, only the region is read here.

mod backends;
mod consul;
mod faults;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod listing;
mod parse;
mod present;
mod quote;
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
use crate::selection::{GroupSelection, NamePattern};
use crate::slot::{MAX_SLOT, MAX_WEIGHT};
use crate::text;
use crate::weight::Factor;

pub use consul::ConsulApi;
use consul::consul_api;
pub use faults::Faults;
pub(crate) use keys::nearest;
use keys::{
    AWS_DEFAULT_REGION, AWS_REGION, CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND, CLIENT_ASG_NAMES, CLIENT_DEDICATED_ASG,
    CLIENT_DEDICATED_ZONE, CLIENT_HAPROXY_BACKEND_SERVER_PORT, CLIENT_HAPROXY_SOCKET_PATH, CLIENT_HEALTH_GATE,
    CLIENT_SPILL_BELOW, CLIENT_STATE_FILE, CLIENT_STATE_MAX_AGE, CLIENT_USE_MANAGED_WEIGHTS_BY_HSDO, CLIENT_ZONE_NAMES,
    DEBUG, DYNAMODB_REPORT_TABLE_NAME, DYNAMODB_TABLE_NAME, EXPORTER_ADDRESS, EXPORTER_PORT,
    HAPROXY_BACKEND_SERVERS_LIST_SIZE, INTERVAL, LOG_FORMAT, SERVER_ADDRESS, SERVER_ASG_NAMES, SERVER_ASG_TAGS,
    SERVER_ASG_WEIGHTS, SERVER_CONSUL_API_URL, SERVER_CONSUL_SERVICE_NAME, SERVER_DRAIN_SECONDS,
    SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT, SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT_INTERVAL,
    SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT, SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT, SERVER_INSTANCE_TAGS,
    SERVER_LIFECYCLE_HOOK, SERVER_MODE, SERVER_REMOVAL_GUARD, SERVER_SPOT_NOTICE, SERVER_WEIGHT_BY, SERVER_WEIGHT_UNIT,
};
pub use keys::{KEYS, Scope, Setting, help};
pub use listing::{ListedSetting, Listing, list};
use parse::{
    TableName, boolean, file_path, group_factors, integer, ip_address, looks_misquoted, names, region, scalar, seconds,
    table_name, tag_filters,
};
pub use present::{ExporterPlace, PresentSettings, load_exporter, load_present, load_table};
use quote::{MAX_LISTED, truncated};
pub use socket::HaproxySocket;
use sources::Sources;
pub use values::{
    AddressKind, Backend, ClientSettings, Common, HookName, InstanceReading, RampSettings, ServerSettings,
    SourceSettings, StateFile, WeightBy, Weighting, ZoneNames,
};

/// Paths tried without `--config`; the first readable file is used.
pub const DEFAULT_FILES: [&str; 2] = ["conf/env.yaml", "/etc/hsdo/env.yaml"];

/// Loads the server's settings. `config` is the argument of `--config`.
///
/// # Errors
/// [`Faults`], with one line per fault: the key, what was found and where, and what was expected.
pub fn load_server(config: Option<&Path>, env: &Environment) -> Result<ServerSettings, Faults> {
    server(open(config, env)?)
}

/// Loads the client's settings. `config` is the argument of `--config`.
///
/// # Errors
/// [`Faults`], with one line per fault: the key, what was found and where, and what was expected.
pub fn load_client(config: Option<&Path>, env: &Environment) -> Result<ClientSettings, Faults> {
    client(open(config, env)?)
}

/// Loads the settings of `--create-table`, which rejects an ARN as the table's name.
///
/// # Errors
/// [`Faults`], with one line per fault in the settings of both roles.
pub fn load_common(config: Option<&Path>, env: &Environment) -> Result<Common, Faults> {
    let mut sources = open(config, env)?;
    let common = common(&mut sources);
    if common.table_region.is_some()
        && let Some(found) = sources.find(&DYNAMODB_TABLE_NAME)
    {
        let expected = "a plain name: a table is created in the account of the credentials and in AWS_DEFAULT_REGION";
        sources.invalid(&DYNAMODB_TABLE_NAME, &found, expected);
    }
    sources.finish(common)
}

fn open<'a>(config: Option<&Path>, env: &'a Environment) -> Result<Sources<'a>, Faults> {
    Sources::open(config, &DEFAULT_FILES.map(Path::new), env)
}

// The functions below report a missing or faulty value to `sources` and continue with a placeholder; `finish` returns the
// settings only if there was no fault.

fn server(mut sources: Sources<'_>) -> Result<ServerSettings, Faults> {
    let source = source(&mut sources);
    let ramp = ramp(&mut sources);
    let weighting = weighting(&mut sources);
    let removal_guard = sources.read(&SERVER_REMOVAL_GUARD, scalar(seconds(0.0..=86_400.0))).unwrap_or_default();
    let hook = hook(&mut sources, matches!(source, SourceSettings::Aws { .. }));
    let drain = sources.read(&SERVER_DRAIN_SECONDS, scalar(seconds(0.0..=172_800.0))).unwrap_or_default();
    let mut common = common(&mut sources);
    if let (SourceSettings::Aws { .. }, Some(table), Some(groups)) = (&source, &common.table_region, &common.region)
        && table != groups
    {
        // The same names in another region are other groups: their instances would replace all that serve.
        common.warnings.push(format!(
            "the table is in {table}, but groups are looked for in {groups}: set AWS_REGION to {table}, unless that is meant"
        ));
    }
    sources.finish(ServerSettings { common, source, ramp, weighting, removal_guard, hook, drain })
}

fn hook(sources: &mut Sources<'_>, is_aws: bool) -> Option<HookName> {
    let hook = sources.read(&SERVER_LIFECYCLE_HOOK, scalar(HookName::parse));
    if let (true, Some(found)) = (hook.is_some() && !is_aws, sources.given(&SERVER_LIFECYCLE_HOOK)) {
        sources.warn(&SERVER_LIFECYCLE_HOOK, &found, "it has no effect unless SERVER_MODE is aws");
    }
    hook.filter(|_| is_aws)
}

fn source(sources: &mut Sources<'_>) -> SourceSettings {
    let none = SourceSettings::Aws { groups: GroupSelection::default(), reading: InstanceReading::default() };
    let Some(found) = sources.given(&SERVER_MODE) else {
        sources.missing(&SERVER_MODE, "");
        return none;
    };
    match found.node.to_string().trim().to_ascii_lowercase().as_str() {
        "aws" => SourceSettings::Aws { groups: group_selection(sources), reading: instance_reading(sources) },
        "consul" => {
            let api = sources.require(&SERVER_CONSUL_API_URL, scalar(consul_api));
            let services = name_list(sources, &SERVER_CONSUL_SERVICE_NAME, true);
            api.zip(services).map_or(none, |(api, services)| SourceSettings::Consul { api, services })
        }
        _ => {
            sources.invalid(&SERVER_MODE, &found, SERVER_MODE.expected);
            none
        }
    }
}

fn group_selection(sources: &mut Sources<'_>) -> GroupSelection {
    let tags = sources.read(&SERVER_ASG_TAGS, tag_filters);
    warn_of_strays(sources, &SERVER_ASG_TAGS, tags.iter().flatten().map(ToString::to_string));
    let given = [&SERVER_ASG_NAMES, &SERVER_ASG_TAGS].map(|key| sources.given(key).is_some());
    if given == [false, false] {
        sources.missing(&SERVER_ASG_NAMES, "or set SERVER_ASG_TAGS");
    }
    // With tags alone, every group that carries them is meant.
    let names = name_list(sources, &SERVER_ASG_NAMES, given == [true, false]).unwrap_or_default();
    let selection = GroupSelection {
        names: names.iter().map(|name| NamePattern::new(name)).collect(),
        tags: tags.unwrap_or_default(),
    };
    let all = selection.names.iter().find(|name| name.matches_all() && selection.tags.is_empty());
    if let (Some(all), Some(found)) = (all, sources.given(&SERVER_ASG_NAMES)) {
        sources.warn(
            &SERVER_ASG_NAMES,
            &found,
            &format!("{all} is every Auto Scaling group of this account and region"),
        );
    }
    selection
}

fn instance_reading(sources: &mut Sources<'_>) -> InstanceReading {
    InstanceReading {
        address: sources.read(&SERVER_ADDRESS, scalar(AddressKind::parse)).unwrap_or_default(),
        weight_by: sources.read(&SERVER_WEIGHT_BY, scalar(WeightBy::parse)).unwrap_or_default(),
        tags: sources.read(&SERVER_INSTANCE_TAGS, scalar(boolean)).unwrap_or_default(),
        spot_notice: sources.read(&SERVER_SPOT_NOTICE, scalar(boolean)).unwrap_or_default(),
    }
}

fn weighting(sources: &mut Sources<'_>) -> Weighting {
    // A fault in it is reported with the source's settings.
    let by =
        sources.given(&SERVER_WEIGHT_BY).and_then(|found| scalar(WeightBy::parse)(&found.node)).unwrap_or_default();
    let unit = sources.read(&SERVER_WEIGHT_UNIT, scalar(|text| Factor::parse(text).filter(|unit| !unit.is_zero())));
    if let (WeightBy::None, Some(_), Some(found)) = (by, unit, sources.given(&SERVER_WEIGHT_UNIT)) {
        sources.warn(&SERVER_WEIGHT_UNIT, &found, "it has no effect unless SERVER_WEIGHT_BY is capacity or vcpu");
    }
    let default = if by == WeightBy::Vcpu { Factor::whole(2) } else { Factor::ONE };
    let groups = sources.read(&SERVER_ASG_WEIGHTS, group_factors).unwrap_or_default();
    warn_of_strays(sources, &SERVER_ASG_WEIGHTS, groups.iter().map(|(name, _)| name.to_string()));
    if let (true, Some(found)) =
        (groups.iter().any(|(name, factor)| name.matches_all() && factor.is_zero()), sources.given(&SERVER_ASG_WEIGHTS))
    {
        sources.warn(
            &SERVER_ASG_WEIGHTS,
            &found,
            "it gives a factor of 0 to every group: servers serve only because no other does",
        );
    }
    Weighting { unit: unit.unwrap_or(default), groups }
}

/// The names in a list.
fn name_list(sources: &mut Sources<'_>, key: &Setting, required: bool) -> Option<Vec<String>> {
    let parse = |node: &Node| names(node).filter(|names| !(required && names.is_empty()));
    let names = if required { sources.require(key, parse) } else { sources.read(key, parse) }?;
    warn_of_strays(sources, key, names.iter().cloned());
    Some(names)
}

/// Names with stray quotes or brackets are accepted, with a warning.
fn warn_of_strays(sources: &mut Sources<'_>, key: &Setting, names: impl Iterator<Item = String>) {
    let suspect: Vec<String> = names.filter(|name| looks_misquoted(name)).collect();
    if let (false, Some(found)) = (suspect.is_empty(), sources.given(key)) {
        // Backticks, since quotes may be the problem.
        let shown = text::list(suspect.iter().map(|name| format!("`{}`", truncated(name))), MAX_LISTED);
        let text = format!(
            "names that start or end with a quote or bracket, or contain `;`, are used as they are: {shown}; remove \
             these characters unless they belong to the names"
        );
        sources.warn(key, &found, &text);
    }
}

fn ramp(sources: &mut Sources<'_>) -> RampSettings {
    let weight = scalar(integer(0..=MAX_WEIGHT));
    let max_key = &SERVER_HAPROXY_BACKEND_SERVER_MAX_WEIGHT;
    let min = sources.read(&SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT, &weight);
    let max = sources.read(max_key, &weight);
    if let (Some(min), Some(max), Some(found)) = (min, max, sources.find(max_key))
        && max < min
    {
        let min_key = SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT.name;
        sources.invalid(max_key, &found, &format!("a weight from {min} ({min_key}) to {MAX_WEIGHT}"));
    }
    let step = sources.read(&SERVER_HAPROXY_BACKEND_SERVER_INCREASE_WEIGHT, scalar(integer(1..=MAX_WEIGHT)));
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
    let port = sources.read(&CLIENT_HAPROXY_BACKEND_SERVER_PORT, scalar(integer(0..=u16::MAX)));
    let backends = backends::read(&mut sources, port);
    let mut flag = |key| sources.read(key, scalar(boolean)).unwrap_or_default();
    let dedicated = flag(&CLIENT_DEDICATED_ASG);
    let by_zone = flag(&CLIENT_DEDICATED_ZONE);
    let all_in_fallback = flag(&CLIENT_ALL_SERVERS_IN_FALLBACK_BACKEND);
    let health_gate = flag(&CLIENT_HEALTH_GATE);
    let spill_below = sources.read(&CLIENT_SPILL_BELOW, scalar(integer(0..=100))).unwrap_or_default();
    if let (true, false, Some(found)) = (spill_below > 0, dedicated || by_zone, sources.given(&CLIENT_SPILL_BELOW)) {
        let text = "it has no effect unless CLIENT_DEDICATED_ZONE or CLIENT_DEDICATED_ASG is true";
        sources.warn(&CLIENT_SPILL_BELOW, &found, text);
    }
    let max_age = sources.read(&CLIENT_STATE_MAX_AGE, scalar(seconds(0.0..=1e9))).unwrap_or_default();
    let path = sources.read(&CLIENT_STATE_FILE, scalar(file_path));
    let state_file = path.map(|path| StateFile { path, max_age });

    let because = |key: &Setting| format!("because {} is true", key.name);
    if dedicated && sources.given(&CLIENT_ASG_NAMES).is_none() {
        sources.missing(&CLIENT_ASG_NAMES, &because(&CLIENT_DEDICATED_ASG));
    }
    let given = sources.given(&CLIENT_ASG_NAMES).is_some();
    let groups = name_list(&mut sources, &CLIENT_ASG_NAMES, dedicated && given);
    let zones = zone_names(&mut sources).filter(|_| by_zone);
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
        groups: groups.unwrap_or_default().iter().map(|name| NamePattern::new(name)).collect(),
        zones,
        fallback,
        all_in_fallback,
        spill_below,
        health_gate,
        state_file,
    })
}

/// `auto` is no zone beside others.
fn zone_names(sources: &mut Sources<'_>) -> Option<ZoneNames> {
    let is_auto = |name: &String| name.eq_ignore_ascii_case("auto");
    let names = name_list(sources, &CLIENT_ZONE_NAMES, false)?;
    match names.as_slice() {
        [one] if is_auto(one) => Some(ZoneNames::Auto),
        names if names.is_empty() || names.iter().any(is_auto) => {
            if let Some(found) = sources.given(&CLIENT_ZONE_NAMES) {
                sources.invalid(&CLIENT_ZONE_NAMES, &found, CLIENT_ZONE_NAMES.expected);
            }
            None
        }
        names => Some(ZoneNames::Named(names.to_vec())),
    }
}

/// Where the exporter listens; `None` if it is off.
fn exporter(sources: &mut Sources<'_>) -> Option<SocketAddr> {
    let port: Option<u16> = sources.read(&EXPORTER_PORT, scalar(integer(0..=u16::MAX)));
    let address = sources.read(&EXPORTER_ADDRESS, scalar(ip_address));
    port.filter(|port| *port != 0).zip(address).map(|(port, address)| SocketAddr::new(address, port))
}

fn common(sources: &mut Sources<'_>) -> Common {
    let interval = sources.read(&INTERVAL, scalar(seconds(0.05..=3600.0))).unwrap_or_default();
    let list_size = sources.read(&HAPROXY_BACKEND_SERVERS_LIST_SIZE, scalar(integer(1..=MAX_SLOT))).unwrap_or_default();
    let TableName { name: table, region: table_region } =
        sources.require(&DYNAMODB_TABLE_NAME, scalar(table_name)).unwrap_or_default();
    let report_table = sources.read(&DYNAMODB_REPORT_TABLE_NAME, scalar(table_name));
    let elsewhere =
        report_table.as_ref().and_then(|one| one.region.as_ref()).is_some_and(|of| table_region.as_ref() != Some(of));
    let is_the_same = report_table.as_ref().is_some_and(|one| one.name == table);
    if let (true, Some(found)) = (elsewhere || is_the_same, sources.find(&DYNAMODB_REPORT_TABLE_NAME)) {
        let expected = if is_the_same {
            "another table than DYNAMODB_TABLE_NAME, whose items are slots"
        } else {
            "a table in the region of DYNAMODB_TABLE_NAME, which must be named by its ARN too"
        };
        sources.invalid(&DYNAMODB_REPORT_TABLE_NAME, &found, expected);
    }
    let report_table = report_table.map(|table| table.name);
    let region = match sources.in_environment(&AWS_REGION) {
        Some(_) => sources.read(&AWS_REGION, scalar(region)),
        None => sources.read(&AWS_DEFAULT_REGION, scalar(region)),
    };
    let exporter = exporter(sources);
    let log_format = sources.read(&LOG_FORMAT, scalar(parse::log_format)).unwrap_or_default();
    let debug = sources.read(&DEBUG, scalar(boolean)).unwrap_or_default();
    // Every loader reads the common settings last, so this is complete.
    let warnings = sources.warnings();
    Common { interval, list_size, table, table_region, report_table, region, exporter, log_format, debug, warnings }
}

//! The configuration file and environment as fuzz targets.

use std::path::Path;

use super::sources::Sources;
use super::{Backend, ClientSettings, Common, ConsulApi, Faults, ServerSettings, SourceSettings};
use crate::conf_file::{self, ConfFile};
use crate::environment::Environment;
use crate::fuzzing::{assert_command, assert_message, parts, text};
use crate::ports::{Change, Command, number_of};
use crate::slot::{MAX_SLOT, MAX_WEIGHT};

/// Limit of a fault's line, in bytes.
const MAX_FAULT: usize = 4_000;

/// A configuration file.
pub fn settings_file(data: &[u8]) {
    let text = text(data);
    let file = match ConfFile::from_text(Path::new("env.yaml"), text.clone()) {
        Ok(file) => file,
        Err(error) => return assert_faults(&Faults::from(error)),
    };
    for (name, node) in file.entries() {
        let _ = (file.place(&[name]), node.is_blank());
    }
    load(Some(&file), &Environment::default());
    // The same text as an environment variable.
    load(None, &Environment::from([("CLIENT_HAPROXY_BACKEND_LIST", text), ("DYNAMODB_TABLE_NAME", "web".to_owned())]));
}

/// Variables `NAME=VALUE`, separated by lines `---`.
pub fn settings_environment(data: &[u8]) {
    let text = text(data);
    let pairs = parts(&text).filter_map(|part| part.split_once('='));
    let environment = Environment::from(pairs.map(|(name, value)| (name.trim(), value.trim_end_matches('\n'))));
    load(None, &environment);
    crate::aws::fuzzing::environment(&environment, text.len());
    if let Some(list) = environment.get("CLIENT_HAPROXY_BACKEND_LIST")
        && let Err(error) = conf_file::parse(list)
    {
        assert_message(&error.text, list.len());
    }
}

fn load(file: Option<&ConfFile>, environment: &Environment) {
    let sources = || Sources::new(file.cloned(), environment);
    match super::client(sources()) {
        Ok(settings) => client(&settings),
        Err(error) => assert_faults(&error),
    }
    match super::server(sources()) {
        Ok(settings) => server(&settings),
        Err(error) => assert_faults(&error),
    }
}

fn assert_faults(Faults(faults, _): &Faults) {
    assert!(!faults.is_empty());
    for fault in faults {
        assert_message(fault, 0);
        assert!(fault.len() <= MAX_FAULT, "{} bytes: {fault}", fault.len());
    }
}

fn client(settings: &ClientSettings) {
    let backends: Vec<&Backend> = settings.backends.iter().chain(&settings.fallback).collect();
    assert!(!settings.backends.is_empty());
    for (place, backend) in backends.iter().enumerate() {
        assert!(backend.port != Some(0) && backend.name.len() <= 255 && backend.base.len() <= 255);
        let server = format!("{}{MAX_SLOT}", backend.base);
        let command = Command::new(&backend.name, &server, Change::Ready).expect("settings hold names");
        assert_command(&command.to_string());
        // No server belongs to two backends.
        for other in backends[..place].iter().filter(|other| other.name == backend.name) {
            for (one, two) in [(backend, other), (other, backend)] {
                let server = format!("{}1", one.base);
                assert_eq!(number_of(&server, &two.base), None, "{server} is of {one:?} and of {two:?}");
            }
        }
    }
    let socket = settings.socket.to_string();
    assert_message(&socket, socket.len());
    assert!(!socket.is_empty() && socket.len() <= 400, "{socket}");
    assert!(!settings.dedicated || (settings.fallback.is_some() && !settings.groups.is_empty()));
    assert!(!settings.all_in_fallback || settings.fallback.is_some());
    assert!((1..=MAX_SLOT).contains(&settings.common.list_size));
    assert!(settings.common.interval.as_millis() >= 50 && settings.common.interval.as_secs() <= 3_600);
    common(&settings.common);
}

fn common(common: &Common) {
    assert!((3..=400).contains(&common.table.len()) && common.table.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(common.table_region.is_some(), common.table.starts_with("arn:"), "{common:?}");
    for warning in &common.warnings {
        assert_message(warning, 0);
        assert!(warning.len() <= 4 * MAX_FAULT, "{} bytes: {warning}", warning.len());
    }
}

fn server(settings: &ServerSettings) {
    common(&settings.common);
    let ramp = &settings.ramp;
    assert!(ramp.min <= ramp.max && ramp.max <= MAX_WEIGHT && (1..=MAX_WEIGHT).contains(&ramp.step));
    assert!(!ramp.interval.is_zero());
    let names = match &settings.source {
        SourceSettings::Aws { groups, .. } => &groups.entries().iter().map(ToString::to_string).collect(),
        SourceSettings::Consul { api, services } => {
            assert_message(api, api.to_string().len());
            assert!(matches!(api, ConsulApi::Unix(_)) || !api.to_string().contains('@'), "{api}");
            services
        }
    };
    assert!(!names.is_empty() && !settings.weighting.unit.is_zero());
    assert!(names.iter().all(|name| !name.is_empty() && name != "none" && !name.chars().any(char::is_control)));
}

//! Gathers facts near by: HAProxy's socket and configuration file, the exporter's port, the directory of the state file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::configuration::{self, BackendText};
use super::super::exporter;
use super::super::haproxy::HaproxyFacts;
use super::super::line::Trouble;
use super::super::machine::{MachineFacts, Port};
use super::{Loaded, trouble};
use crate::exporter::Exporter;
use crate::haproxy::Runtime;
use crate::haproxy::socket::{Socket, SocketLimits};
use crate::settings::{Backend, ClientSettings};
use crate::text_file;

/// How long an idle connection to HAProxy is watched.
const IDLE: Duration = Duration::from_millis(500);
/// For whoever holds the exporter's port.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// The largest configuration file of HAProxy that is read.
const LARGEST: u64 = 4 << 20;

pub(super) fn haproxy_facts(client: &ClientSettings) -> HaproxyFacts {
    let backends: Vec<Backend> = client.backends.iter().chain(&client.fallback).cloned().collect();
    let names = client.backend_names();
    let size = client.common.list_size;
    let limits = SocketLimits::of(backends.len(), size as usize);
    let mut runtime = Runtime::new(Socket::new(client.socket.clone(), limits));
    let inspection = runtime.inspect(&names).map_err(Trouble::from);
    let closes_idle = inspection.as_ref().is_ok_and(|found| !found.master) && runtime.closes_idle_within(IDLE);
    let configuration = match &inspection {
        Ok(found) => read_configuration(&found.pid, &names),
        Err(_) => Err("HAProxy does not answer".to_owned()),
    };
    let place = client.socket.to_string();
    HaproxyFacts { place, inspection, closes_idle, backends, size, health_gate: client.health_gate, configuration }
}

/// The configuration that the process was started with, if this machine runs it and the file is readable. It may have been
/// edited since.
fn read_configuration(pid: &str, names: &[&str]) -> Result<BTreeMap<String, BackendText>, String> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let words =
        std::fs::read(process.join("cmdline")).map_err(|_| "HAProxy's process is not on this machine".to_owned())?;
    let words = String::from_utf8_lossy(&words);
    let words: Vec<&str> = words.split('\0').filter(|word| !word.is_empty()).collect();
    let (files, directory) = configuration::files_of(&words);
    if files.is_empty() {
        return Err("its command line names no file".to_owned());
    }
    let base = directory.map_or_else(|| std::fs::read_link(process.join("cwd")).unwrap_or_default(), PathBuf::from);
    let mut text = String::new();
    for file in files.iter().flat_map(|file| expanded(&base.join(file))) {
        let read =
            text_file::read_up_to(&file, LARGEST).map_err(|error| format!("{}: {}", file.display(), error.why))?;
        text.push_str(&read);
        text.push('\n');
    }
    let backends = configuration::parse(&text);
    // The process of that number may be another one, in another namespace.
    if names.iter().any(|name| backends.contains_key(*name)) {
        return Ok(backends);
    }
    Err(format!("{} has none of these backends", files.join(", ")))
}

/// The files that HAProxy reads for a path: those of a directory in order, if they end in `.cfg`.
fn expanded(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cfg"));
    files.sort();
    files
}

/// Whether an hsdo answers at this address.
fn is_hsdo(address: SocketAddr) -> bool {
    exporter::get(address, "/healthz", PORT_PATIENCE).is_ok_and(|answer| answer.by_hsdo)
}

pub(super) fn machine_facts(loaded: &Loaded) -> MachineFacts {
    let exporter = loaded.common().and_then(|common| common.exporter).map(|address| {
        let port = match Exporter::bind(address) {
            Ok(_) => Port::Free,
            Err(_) if is_hsdo(address) => Port::Hsdo,
            Err(error) => Port::Taken(trouble(&error.to_string())),
        };
        (address, port)
    });
    let state_file = loaded.client.as_ref().and_then(|client| client.state_file.as_ref()).map(|file| {
        let directory = file.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fault = match std::fs::metadata(directory) {
            Err(_) => Some("does not exist"),
            Ok(found) if !found.is_dir() => Some("is no directory"),
            Ok(found) if found.permissions().readonly() => Some("is read-only"),
            Ok(_) => None,
        };
        (file.path.clone(), fault)
    });
    MachineFacts { ahead: None, exporter, zone: None, state_file }
}

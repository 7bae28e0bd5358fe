//! The settings of the commands for people: a machine may have those of the server, of the client, of both or of neither.

use std::net::SocketAddr;
use std::path::Path;

use super::keys::{CLIENT_HAPROXY_BACKEND_LIST, CLIENT_HAPROXY_BACKEND_NAME, EXPORTER_PORT, SERVER_MODE};
use super::{ClientSettings, Common, Faults, ServerSettings, client, common, exporter, open, server};
use crate::environment::Environment;

/// The settings that the configuration has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentSettings {
    /// Those of both roles.
    pub common: Common,
    /// The server's, if `SERVER_MODE` is set.
    pub server: Option<ServerSettings>,
    /// The client's, if a backend is set.
    pub client: Option<ClientSettings>,
}

/// Loads the settings that tell where the table is. `config` is the argument of `--config`.
///
/// # Errors
/// [`Faults`], with one line per fault in the settings of both roles.
pub fn load_table(config: Option<&Path>, env: &Environment) -> Result<Common, Faults> {
    let mut sources = open(config, env)?;
    let common = common(&mut sources);
    sources.finish(common)
}

/// Where the exporter of a process with these settings listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExporterPlace {
    /// `EXPORTER_ADDRESS` and `EXPORTER_PORT`; `None` if the exporter is off.
    pub address: Option<SocketAddr>,
    /// Where the port was found: the environment, `file:line`, or the default.
    pub found: String,
    /// Why the file was not read, if it could not be; then the environment alone counts.
    pub unread: Vec<String>,
}

/// Loads where the exporter of either role listens, and nothing else: a fault in another setting or in the file as a whole, made after
/// the start of a process that is well, is none here. `config` is the argument of `--config`.
///
/// # Errors
/// [`Faults`] of these two settings.
pub fn load_exporter(config: Option<&Path>, env: &Environment) -> Result<ExporterPlace, Faults> {
    let (mut sources, unread) = match open(config, env) {
        Ok(sources) => (sources, Vec::new()),
        Err(faults) => (open(Some(Path::new("/dev/null")), env)?, faults.0),
    };
    sources.forget_faults();
    let address = exporter(&mut sources);
    let found = sources.find(&EXPORTER_PORT).map(|found| sources.place(&EXPORTER_PORT, found.origin, &[]));
    sources.finish(ExporterPlace { address, found: found.unwrap_or_default(), unread })
}

/// Loads the settings of both roles, each if the configuration has any. `config` is the argument of `--config`.
///
/// # Errors
/// [`Faults`], with one line per fault.
pub fn load_present(config: Option<&Path>, env: &Environment) -> Result<PresentSettings, Faults> {
    let sources = open(config, env)?;
    let has_server = sources.given(&SERVER_MODE).is_some();
    let has_client =
        [&CLIENT_HAPROXY_BACKEND_LIST, &CLIENT_HAPROXY_BACKEND_NAME].iter().any(|key| sources.given(key).is_some());
    let server = has_server.then(|| open(config, env).and_then(server)).transpose();
    let client = has_client.then(|| open(config, env).and_then(client)).transpose();
    match (server, client) {
        (Ok(server), Ok(client)) => Ok(PresentSettings { common: load_table(config, env)?, server, client }),
        (Err(mut faults), Err(more)) => {
            let new: Vec<String> = more.0.into_iter().filter(|fault| !faults.0.contains(fault)).collect();
            faults.0.extend(new);
            Err(faults)
        }
        (Err(faults), _) | (_, Err(faults)) => Err(faults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(settings: &[(&str, &str)]) -> Result<(bool, bool), Vec<String>> {
        let env = Environment::from(settings.iter().copied());
        let loaded = load_present(Some(Path::new("/dev/null")), &env);
        loaded.map(|found| (found.server.is_some(), found.client.is_some())).map_err(|faults| faults.0)
    }

    #[test]
    fn the_exporters_place_is_read_whatever_else_is_wrong() {
        let place = |settings: &[(&str, &str)]| {
            let env = Environment::from(settings.iter().copied());
            load_exporter(Some(Path::new("/dev/null")), &env).map_err(|faults| faults.split().0)
        };
        let at = |address: Option<&str>, found: &str| {
            let address = address.map(|text| text.parse().expect(text));
            Ok(ExporterPlace { address, found: found.to_owned(), unread: Vec::new() })
        };
        assert_eq!(place(&[("INTERVAL", "never"), ("SERVER_MODE", "x")]), at(Some("0.0.0.0:6789"), "the default"));
        let set = [("EXPORTER_PORT", "9000"), ("EXPORTER_ADDRESS", "[::1]")];
        assert_eq!(place(&set), at(Some("[::1]:9000"), "the environment"));
        assert_eq!(place(&[("EXPORTER_PORT", "0")]), at(None, "the environment"));
        let faults =
            place(&[("EXPORTER_PORT", "tcp://10.96.3.7:9100"), ("EXPORTER_ADDRESS", "here")]).expect_err("two");
        assert_eq!(faults.len(), 2, "{faults:?}");
        let file = std::env::temp_dir().join(format!("hsdo-exporter-{}.yaml", std::process::id()));
        let in_file = |text: &str| {
            std::fs::write(&file, text).expect("a file");
            let found = load_exporter(Some(&file), &Environment::from([("EXPORTER_ADDRESS", " ")]));
            std::fs::remove_file(&file).expect("a file");
            found.map_err(|faults| faults.split().0)
        };
        let expected = at(Some("0.0.0.0:7000"), &format!("{}:2", file.display()));
        assert_eq!(in_file("UNKNOWN: 1\nEXPORTER_PORT: 7000\n"), expected);
        let found = in_file("EXPORTER_PORT: 7000\nINTERVAL: [").expect("the default");
        assert!(found.address == at(Some("0.0.0.0:6789"), "").expect("a place").address, "{found:?}");
        assert!(found.unread.len() == 1 && found.unread[0].contains("YAML"), "{found:?}");
    }

    #[test]
    fn each_role_counts_where_it_has_settings() {
        let table = ("DYNAMODB_TABLE_NAME", "arn:aws:dynamodb:eu-west-1:123456789012:table/web");
        let (mode, groups) = (("SERVER_MODE", "aws"), ("SERVER_ASG_NAMES", "web"));
        let list = ("CLIENT_HAPROXY_BACKEND_LIST", "http-back:web:80");
        for (settings, expected) in [
            (vec![table], (false, false)),
            (vec![table, groups], (false, false)),
            (vec![table, mode, groups], (true, false)),
            (vec![table, list], (false, true)),
            (vec![table, mode, groups, list], (true, true)),
        ] {
            assert_eq!(present(&settings), Ok(expected), "{settings:?}");
        }
        let faults = present(&[mode, ("CLIENT_HAPROXY_BACKEND_NAME", "a b")]).expect_err("three faults");
        let named = |key: &str| faults.iter().filter(|fault| fault.starts_with(key)).count();
        assert_eq!(named("SERVER_ASG_NAMES"), 1, "{faults:?}");
        assert_eq!(named("CLIENT_HAPROXY_BACKEND_NAME"), 1, "{faults:?}");
        assert_eq!(named("DYNAMODB_TABLE_NAME"), 1, "{faults:?}");
    }
}

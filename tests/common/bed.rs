//! What one test owns: a directory, a port for its web servers and, from first use on, moto, its proxy and the web
//! servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::aws_proxy::AwsProxy;
use super::moto::Moto;
use super::port::Port;
use super::web::Web;

pub const TABLE: &str = "hsdo";
pub const REGION: &str = "eu-west-1";

/// A test's environment. Dropping it ends what it started, and removes the directory unless the test failed.
#[derive(Debug)]
pub struct Bed {
    // Fields drop in this order.
    aws: OnceLock<AwsProxy>,
    moto: OnceLock<Moto>,
    web: OnceLock<Web>,
    dir: PathBuf,
}

impl Bed {
    /// `name` helps to find its directory after a failure.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        // Short, because a Unix socket's path is limited to 108 bytes.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hsdo-{}-{number}-{name:.40}", std::process::id()));
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
        Bed { aws: OnceLock::new(), moto: OnceLock::new(), web: OnceLock::new(), dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// moto, with the tests' network in it.
    pub fn moto(&self) -> &Moto {
        self.moto.get_or_init(|| Moto::start(&self.dir))
    }

    /// The proxy in front of moto, which hsdo calls.
    pub fn aws(&self) -> &AwsProxy {
        self.aws.get_or_init(|| AwsProxy::start(&self.moto().url()))
    }

    /// The web servers, all on one port of this bed.
    pub fn web(&self) -> &Web {
        self.web.get_or_init(|| Web::new(Port::reserve()))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// Writes a file into the bed's directory and returns its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// Starts a web server for every current instance of the groups; others stay as they are.
    pub fn serve_instances(&self, groups: &[&str]) {
        for group in groups {
            for instance in self.moto().instances(group) {
                self.web().serve(&instance.id, instance.address);
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the bed's files stay in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A tool that the tests need, named by a variable or in its usual place.
/// # Panics
/// With the command that installs it, if it is missing: no test is skipped.
pub fn tool(variable: &str, usual: &[PathBuf]) -> PathBuf {
    if let Some(named) = std::env::var_os(variable).filter(|text| !text.is_empty()) {
        return PathBuf::from(named);
    }
    usual
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .unwrap_or_else(|| panic!("{variable} is not set and none of {usual:?} is there: run `make tools`"))
}

pub fn package_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

//! What a simulated HAProxy is configured with, and the machines that its checks ask.

use std::net::SocketAddr;
use std::time::Duration;

use hsdo::slot::Weight;

/// A backend with a `server-template`.
#[derive(Clone, Debug)]
pub(crate) struct BackendConfig {
    pub(crate) name: String,
    /// The prefix of its servers' names.
    pub(crate) base: String,
    pub(crate) slots: u32,
    /// The address that its servers begin with.
    pub(crate) placeholder: SocketAddr,
    /// The configured weight.
    pub(crate) weight: Weight,
    pub(crate) check: Option<Check>,
    /// Whether its servers begin in maintenance.
    pub(crate) disabled: bool,
    /// Whether its algorithm takes no weights but 0 and the configured one.
    pub(crate) is_static: bool,
}

/// A health check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) inter: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    /// How long it takes from its beginning, when the server is or is not there, to its result.
    pub(crate) takes: Duration,
}

impl BackendConfig {
    /// As hsdo's README has it: servers in maintenance at a placeholder, with HAProxy's own check.
    pub(crate) fn new(name: &str, base: &str, slots: u32) -> Self {
        let check = Check { inter: Duration::from_secs(2), rise: 2, fall: 3, takes: Duration::from_millis(2) };
        BackendConfig {
            name: name.to_owned(),
            base: base.to_owned(),
            slots,
            placeholder: SocketAddr::from(([127, 0, 0, 2], 80)),
            weight: 1,
            check: Some(check),
            disabled: true,
            is_static: false,
        }
    }
}

/// The machines behind the addresses, as checks find them now.
///
/// HAProxys are to be advanced to the moment of a change before it is made: a check that is due asks what is true when it is
/// worked out.
pub(crate) trait Fleet {
    /// Whether a check of this address passes now.
    fn is_healthy(&self, address: SocketAddr) -> bool;

    /// A number that is another one whenever an answer of [`Fleet::is_healthy`] may be. While it stays, checks whose result is
    /// known are not worked out one by one; without it each is.
    fn version(&self) -> Option<u64>;
}

impl<F: Fn(SocketAddr) -> bool> Fleet for F {
    fn is_healthy(&self, address: SocketAddr) -> bool {
        self(address)
    }

    fn version(&self) -> Option<u64> {
        None
    }
}

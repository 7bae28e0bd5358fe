//! One server: what commands and checks make of it. As HAProxy's own state machine has it (`srv_update_status`,
//! `set_server_check_status`, `check_notify_success` and `check_notify_failure` in its sources).

use std::net::{IpAddr, SocketAddr};

use hsdo::ports::{Admin, Change, Running};
use hsdo::slot::Weight;

use super::checks::Checks;
use super::config::BackendConfig;
use super::version::Version;

/// `srv_op_state`. There is no slow start here, so nothing is ever starting (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Stopped = 0,
    Running = 2,
    /// Takes no new sessions, but those that persist.
    Stopping = 3,
}

/// A change of a server, by hsdo or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ready,
    Drain,
    Maintenance,
    HealthUp,
    HealthStopping,
    HealthDown,
    Address(IpAddr, Option<u16>),
    Weight(Weight),
    /// Per cent of the configured weight.
    Percent(u32),
    EnableHealth,
    DisableHealth,
}

impl From<Change> for Order {
    fn from(change: Change) -> Self {
        match change {
            Change::Maintenance => Order::Maintenance,
            Change::Ready => Order::Ready,
            Change::HealthDown => Order::HealthDown,
            Change::Address(address, port) => Order::Address(address, port),
            Change::Weight(weight) => Order::Weight(weight),
            Change::ConfiguredWeight => Order::Percent(100),
        }
    }
}

/// Why HAProxy refused an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    StaticWeight,
    Unchecked,
}

/// What `show stat` shows, as far as hsdo compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) status: Status,
    pub(super) address: SocketAddr,
    pub(super) weight: Weight,
}

/// The column `status` of `show stat`; the numbers are those of `UP 1/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Maintenance,
    Up,
    Unchecked,
    Drain,
    Stopping,
    Down,
    UpAt(u32),
    DrainAt(u32),
    StoppingAt(u32),
    DownAt(u32),
}

/// A server as it runs.
#[derive(Clone, Debug)]
pub(super) struct Server {
    address: SocketAddr,
    /// An address that holds from a moment on.
    next_address: Option<(u64, SocketAddr)>,
    maintenance: bool,
    drain: bool,
    pub(super) op: Op,
    weight: Weight,
    pub(super) checks: Checks,
    /// The address that the last check asked, and the one where a check last passed.
    asked: SocketAddr,
    passed: Option<SocketAddr>,
}

impl Server {
    /// As it is configured, in the slot of that number from 0 on, with its first check at that time.
    pub(super) fn new(config: &BackendConfig, version: &Version, number: u32, first: u64) -> Self {
        let is_empty = version.starts_empty && config.check.is_some() && number == 0;
        Server {
            address: config.placeholder,
            next_address: None,
            maintenance: config.disabled,
            drain: false,
            op: if config.disabled { Op::Stopped } else { Op::Running },
            weight: config.weight,
            checks: Checks::new(config, is_empty, first),
            asked: config.placeholder,
            passed: None,
        }
    }

    /// When something happens by itself next; `u64::MAX` where nothing will.
    pub(super) fn due(&self) -> u64 {
        self.checks.due().min(self.next_address.map_or(u64::MAX, |(at, _)| at))
    }

    /// Lets everything up to `now` happen; `is_healthy` is what a check finds, and stays so if `is_steady`.
    pub(super) fn advance(&mut self, now: u64, is_steady: bool, is_healthy: impl Fn(SocketAddr) -> bool) {
        loop {
            let due = self.due();
            if due > now {
                return;
            }
            match self.next_address {
                Some((at, address)) if at == due => {
                    (self.address, self.next_address) = (address, None);
                    self.checks.stir(at);
                }
                _ => {
                    let (address, asked) = (self.address, &mut self.asked);
                    let ask = || {
                        *asked = address;
                        is_healthy(address)
                    };
                    if let Some(passed) = self.checks.step(due, is_steady, ask) {
                        self.note(passed);
                    }
                }
            }
        }
    }

    /// Takes in the result of a check.
    fn note(&mut self, passed: bool) {
        self.checks.count(passed);
        self.passed = if passed { Some(self.asked) } else { self.passed };
        if self.maintenance {
            return;
        }
        if passed && self.checks.is_risen() {
            self.op = Op::Running;
        } else if !passed && self.checks.health() == 0 {
            self.op = Op::Stopped;
        }
    }

    /// Does what was ordered at `now`; an address may take until `address_at` to hold.
    pub(super) fn obey(
        &mut self,
        order: Order,
        now: u64,
        address_at: u64,
        config: &BackendConfig,
        version: &Version,
    ) -> Result<(), Refusal> {
        if !matches!(order, Order::Weight(_) | Order::Percent(_)) {
            self.checks.stir(now);
        }
        match order {
            Order::Maintenance => {
                if !self.maintenance {
                    self.maintenance = true;
                    self.op = Op::Stopped;
                    self.checks.pause();
                }
                self.drain = false;
            }
            Order::Ready => {
                self.leave_maintenance(now);
                self.drain = false;
            }
            Order::Drain => {
                self.drain = true;
                self.leave_maintenance(now);
            }
            Order::HealthUp | Order::HealthStopping => {
                self.checks.fill();
                if !self.maintenance {
                    self.op = if order == Order::HealthUp { Op::Running } else { Op::Stopping };
                }
            }
            Order::HealthDown => {
                self.checks.empty();
                if !self.maintenance {
                    self.op = Op::Stopped;
                }
            }
            Order::Address(ip, port) => {
                // Another one that is still under way holds first.
                if let Some((_, address)) = self.next_address.take() {
                    self.address = address;
                }
                let address = SocketAddr::new(ip, port.unwrap_or(self.address.port()));
                if address_at > now {
                    self.next_address = Some((address_at, address));
                } else {
                    self.address = address;
                }
            }
            Order::Weight(weight) => self.weigh(weight, config)?,
            Order::Percent(percent) => {
                let weight = u32::from(config.weight) * percent.min(25_600) / 100;
                self.weigh(weight.min(256) as Weight, config)?;
            }
            Order::EnableHealth if config.check.is_some() || version.enables_no_check => self.checks.enable(now),
            Order::EnableHealth => return Err(Refusal::Unchecked),
            Order::DisableHealth => self.checks.disable(),
        }
        Ok(())
    }

    fn leave_maintenance(&mut self, now: u64) {
        if std::mem::take(&mut self.maintenance) {
            self.checks.resume(now);
            // At once, before any check.
            self.op = if self.checks.keeps_down() { Op::Stopped } else { Op::Running };
        }
    }

    fn weigh(&mut self, weight: Weight, config: &BackendConfig) -> Result<(), Refusal> {
        if config.is_static && weight != 0 && weight != config.weight {
            return Err(Refusal::StaticWeight);
        }
        self.weight = weight;
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn weight(&self) -> Weight {
        self.weight
    }

    /// Whether a check has passed at its address.
    pub(super) fn is_proven(&self) -> bool {
        self.passed == Some(self.address)
    }

    /// Whether new traffic may come here.
    pub(super) fn serves(&self) -> bool {
        self.op == Op::Running && !self.drain && self.weight > 0
    }

    /// Whether traffic that persists, by a cookie or a table, may come here.
    pub(super) fn is_reachable(&self) -> bool {
        self.op != Op::Stopped
    }

    /// `srv_admin_state`.
    pub(super) fn admin_bits(&self, config: &BackendConfig) -> u32 {
        u32::from(self.maintenance) | u32::from(config.disabled) << 2 | u32::from(self.drain) << 3
    }

    pub(super) fn shown(&self) -> Shown {
        Shown { status: self.status(), address: self.address, weight: self.weight }
    }

    fn status(&self) -> Status {
        let (health, full) = (self.checks.health(), self.checks.is_full());
        let watched = self.checks.is_enabled();
        match self.op {
            _ if self.maintenance => Status::Maintenance,
            Op::Running => match (self.drain, watched && !full) {
                (true, true) => Status::DrainAt(health),
                (true, false) => Status::Drain,
                (false, true) => Status::UpAt(health),
                (false, false) if watched => Status::Up,
                (false, false) => Status::Unchecked,
            },
            Op::Stopping if !watched || full => Status::Stopping,
            Op::Stopping => Status::StoppingAt(health),
            Op::Stopped if watched && health > 0 => Status::DownAt(health),
            Op::Stopped => Status::Down,
        }
    }

    /// As a reading at `now` shows it.
    pub(super) fn running(&self, now: u64, config: &BackendConfig) -> Running {
        Running {
            admin: match (self.maintenance, self.drain) {
                (true, _) => Admin::Maintenance,
                (false, true) => Admin::Drain,
                (false, false) => Admin::Ready,
            },
            inherited: false,
            up: self.op == Op::Running,
            address: Some(self.address),
            weight: self.weight,
            configured: config.weight,
            checked: self.checks.is_configured() && self.checks.is_enabled(),
            checking: self.checks.is_under_way(now),
            busy: false,
            named: false,
        }
    }
}

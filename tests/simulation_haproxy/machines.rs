//! The machines that both HAProxys' checks ask: loopback listeners for the real one, a set for the model.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;

use crate::common::port::Port;
use crate::model::Fleet;

const COUNT: u8 = 6;

pub(crate) struct Machines {
    port: Port,
    listening: RefCell<BTreeMap<SocketAddr, TcpListener>>,
    version: Cell<u64>,
}

impl Machines {
    /// All of them up.
    pub(crate) fn start() -> Rc<Self> {
        let machines =
            Machines { port: Port::reserve(), listening: RefCell::new(BTreeMap::new()), version: Cell::new(0) };
        (0..COUNT).for_each(|number| machines.set(number, true));
        Rc::new(machines)
    }

    pub(crate) fn count() -> u8 {
        COUNT
    }

    pub(crate) fn address(&self, number: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, 0, 3, 1 + number), self.port.number()))
    }

    /// Lets a machine listen, or not.
    pub(crate) fn set(&self, number: u8, is_up: bool) {
        let address = self.address(number);
        let mut listening = self.listening.borrow_mut();
        if !is_up {
            listening.remove(&address);
        } else if let Entry::Vacant(free) = listening.entry(address) {
            let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
            listener.set_nonblocking(true).expect("a socket of ours");
            free.insert(listener);
        }
        self.version.set(self.version.get() + 1);
    }

    /// Accepts what has connected, so that the kernel's queue never fills up.
    pub(crate) fn accept(&self) {
        self.listening.borrow().values().for_each(|listener| while listener.accept().is_ok() {});
    }
}

/// What the model's checks ask.
pub(crate) struct Asked(pub(crate) Rc<Machines>);

impl Fleet for Asked {
    fn is_healthy(&self, address: SocketAddr) -> bool {
        self.0.listening.borrow().contains_key(&address)
    }

    fn version(&self) -> Option<u64> {
        Some(self.0.version.get())
    }
}

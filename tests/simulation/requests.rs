//! The requests that run on the servers of each HAProxy: as long as a server is in rotation somebody uses it, and the last request goes
//! on for a while when it is not any more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hsdo::slot::SlotId;

use crate::journal::{At, SECOND};
use crate::promises::Serving;
use crate::random::Random;
use crate::settings::BACKENDS;
use crate::world::World;

/// How long a request takes at most.
pub(crate) const LONGEST: At = 40 * SECOND;
/// How many run on a server in rotation.
const BUSY: u64 = 3;

/// Site, backend and slot.
type Place = (usize, usize, SlotId);

/// The last requests on servers that left the rotation: whose they are, and when they end.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    last: BTreeMap<Place, Vec<(IpAddr, At)>>,
    count: u64,
}

fn takes_requests(all: &[Serving], slot: SlotId, address: IpAddr) -> bool {
    all.iter().any(|it| (it.0, it.1) == (slot, address) && it.2 > 0)
}

impl World {
    /// What serves in a backend of a site is another thing.
    pub(crate) fn rotation_changed(&self, site: usize, backend: usize, before: &[Serving], now: &[Serving]) {
        if !self.reports.borrow().is_on {
            return;
        }
        let at = self.now();
        let requests = &mut *self.requests.borrow_mut();
        for (slot, address, _) in before.iter().copied().filter(|it| it.2 > 0 && !takes_requests(now, it.0, it.1)) {
            requests.count += 1;
            let takes = Random::stream(self.seed, "requests", requests.count).below(LONGEST + 1);
            let last = requests.last.entry((site, backend, slot)).or_default();
            last.retain(|(_, until)| *until > at);
            last.push((address, at + takes));
        }
    }

    /// A HAProxy ended, and its requests with it, or they are those of an old worker, which nobody can ask about.
    pub(crate) fn requests_are_over(&self, site: usize) {
        self.requests.borrow_mut().last.retain(|(at, ..), _| *at != site);
    }

    /// The sessions that a HAProxy counts on a server.
    pub(crate) fn sessions(&self, site: usize, backend: usize, slot: SlotId) -> u64 {
        let requests = self.requests.borrow();
        let last = requests.last.get(&(site, backend, slot)).into_iter().flatten();
        let ending = last.filter(|(_, until)| *until > self.now()).count() as u64;
        let promises = self.promises.borrow();
        let is_busy = promises.serving(site, backend).iter().any(|it| it.0 == slot && it.2 > 0);
        ending + if is_busy { BUSY } else { 0 }
    }

    /// Until when requests run on a server of this address in this slot, at one site: `At::MAX` while it is in rotation.
    pub(crate) fn used_until(&self, site: usize, slot: SlotId, address: IpAddr) -> At {
        let (requests, promises) = (self.requests.borrow(), self.promises.borrow());
        let in_backend = |backend: usize| {
            if takes_requests(promises.serving(site, backend), slot, address) {
                return At::MAX;
            }
            let last = requests.last.get(&(site, backend, slot)).into_iter().flatten();
            last.filter(|(at, _)| *at == address).map(|(_, until)| *until).max().unwrap_or(0)
        };
        (0..BACKENDS.len()).map(in_backend).max().unwrap_or(0)
    }
}

//! What happens to both HAProxys, one random step after another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use hsdo::ports::Change;
use hsdo::slot::Weight;

use crate::common::random::Random;
use crate::machines::Machines;
use crate::shape::Shape;

/// An address by the number of its machine, or another one with any port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Machine(u8),
    Other(IpAddr, u16),
}

/// What is done to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Is(Change),
    To(Place),
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// hsdo's commands, by its own edge: backend, slot, and what to do.
    Hsdo(Vec<(usize, u32, Vec<Act>)>),
    /// The same in a line whose sender is gone when it is read.
    Orphan(Vec<(usize, u32, Vec<Act>)>),
    /// The same to a HAProxy that is stopped, and goes on once the sender is gone.
    Stopped(Vec<(usize, u32, Vec<Act>)>),
    /// A command of an operator's.
    Operator(String),
    Machine(u8, bool),
    Restart,
    Reload,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

pub(crate) fn any(random: &mut Random, shape: &Shape) -> Step {
    match random.below(100) {
        0 if random.percent(50) => Step::Restart,
        0 => Step::Reload,
        1..4 => Step::Orphan(orders(random, shape)),
        4 => Step::Stopped(orders(random, shape)),
        5..45 => Step::Hsdo(orders(random, shape)),
        // Of no use where no check runs.
        45..60 if shape.is_fast => Step::Machine(random.below(Machines::count().into()) as u8, random.percent(50)),
        _ => Step::Operator(by_hand(random, shape)),
    }
}

fn server(random: &mut Random, shape: &Shape) -> (usize, u32) {
    let backend = random.below(shape.backends.len() as u64) as usize;
    (backend, 1 + random.below(shape.backends[backend].0.slots.into()) as u32)
}

fn weight(random: &mut Random) -> Weight {
    *random.pick(&[0, 1, 2, 7, 10, 100, 255, 256])
}

fn place(random: &mut Random) -> Place {
    match random.below(10) {
        0 => Place::Other(Ipv4Addr::new(127, 0, 0, 2).into(), 1),
        1 => Place::Other("::1".parse().expect("an address"), 1),
        _ => Place::Machine(random.below(Machines::count().into()) as u8),
    }
}

/// The steps of a plan of hsdo's.
fn orders(random: &mut Random, shape: &Shape) -> Vec<(usize, u32, Vec<Act>)> {
    let parked = Place::Other(IpAddr::V4(Ipv4Addr::BROADCAST), 1);
    let count = 1 + random.below(4);
    let mut step = |_| {
        let (backend, slot) = server(random, shape);
        let weight = Act::Is(Change::Weight(weight(random)));
        let (out, ready) = (Act::Is(Change::Maintenance), Act::Is(Change::Ready));
        let zero = Act::Is(Change::Weight(0));
        let acts = match random.below(8) {
            0 => vec![zero, out, Act::To(parked)],
            1 | 2 => vec![ready, Act::Is(Change::HealthDown), Act::To(place(random)), weight],
            3 => vec![zero, out, Act::To(place(random))],
            4 => vec![ready, weight],
            5 => vec![zero, out],
            6 => vec![Act::Is(Change::HealthDown), Act::Is(Change::ConfiguredWeight)],
            _ => vec![weight],
        };
        (backend, slot, acts)
    };
    (0..count).map(&mut step).collect()
}

fn by_hand(random: &mut Random, shape: &Shape) -> String {
    let (backend, slot) = server(random, shape);
    let name = format!("back-{backend}/web{slot}");
    match random.below(16) {
        0 => format!("set server {name} state ready"),
        1 => format!("set server {name} state maint"),
        2 | 3 => format!("set server {name} state drain"),
        4 => format!("set server {name} health up"),
        5 => format!("set server {name} health down"),
        6 => format!("set server {name} health stopping"),
        7 => format!("set server {name} weight {}", weight(random)),
        8 => format!("set server {name} weight {}%", random.pick(&[0, 1, 50, 100, 150, 30_000])),
        9 => format!("set weight {name} {}", random.pick(&["3", "50%", "256", "257"])),
        10 => format!("enable server {name}"),
        11 => format!("disable server {name}"),
        12 => format!("enable health {name}"),
        13 => format!("disable health {name}"),
        14 => format!("set server {name} addr 127.0.3.{}", 1 + random.below(Machines::count().into())),
        _ => format!("set server {name} addr 127.0.3.1 port {}", 1 + random.below(3)),
    }
}

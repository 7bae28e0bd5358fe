//! Orders: an operator's word that what a target names must drain. Pure.
//!
//! They stand in slot 1's item until they are lifted, lapse, or their instance ends. The commands give and lift them, the server
//! that leads carries them out; clients see only rows that drain.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::slot::{Fate, Instance, MAX_NAME_CHARS, MAX_SLOT, Observation, Occupant, Slot, SlotId, Unlisted};
use crate::text::{one_line, sanitized};

/// The longest note, in characters.
pub const MAX_NOTE_CHARS: usize = 200;

/// EC2 shows a terminated instance for about an hour (EC2 User Guide, "Terminate Amazon EC2 instances"). Until then, that it
/// does not know an instance may be its eventual consistency.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// What a command or an order is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `slot:3`
    Slot(SlotId),
    /// An instance by its name: an EC2 id, or what Consul calls it.
    Instance(String),
    /// Whoever has this address.
    Address(IpAddr),
    /// `zone:eu-west-1a`: all of a zone.
    Zone(String),
    /// `group:web`: all of a group.
    Group(String),
}

/// What a target may be, for messages.
pub const TARGETS: &str = "slot:3, an instance id, an address, zone:eu-west-1a or group:web-a";

impl Target {
    /// The kinds of targets, as [`Target::kind`] has them.
    pub const KINDS: [&'static str; 5] = ["slot", "instance", "address", "zone", "group"];

    /// Parses a target.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix("slot:") {
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            return match number.parse() {
                Ok(id) if plain && (1..=MAX_SLOT).contains(&id) => Ok(Target::Slot(id)),
                _ => Err(format!("not a slot number, 1 to {MAX_SLOT}")),
            };
        }
        for (prefix, of) in [("zone:", Target::Zone as fn(String) -> Target), ("group:", Target::Group)] {
            if let Some(name) = text.strip_prefix(prefix) {
                return name_of(name).map(of);
            }
        }
        if let Ok(address) = text.parse() {
            return Ok(Target::Address(address));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("not an instance; did you mean slot:{text}"));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || b".:/".contains(&byte)) {
            return Err("not an address".to_owned());
        }
        name_of(text).map(Target::Instance)
    }

    /// The kind of it, as in the metric `hsdo_orders`.
    pub fn kind(&self) -> &'static str {
        Target::KINDS[match self {
            Target::Slot(_) => 0,
            Target::Instance(_) => 1,
            Target::Address(_) => 2,
            Target::Zone(_) => 3,
            Target::Group(_) => 4,
        }]
    }

    /// Whether it names the occupant of this slot.
    pub fn names(&self, id: SlotId, occupant: &Occupant) -> bool {
        match self {
            Target::Slot(slot) => *slot == id,
            Target::Instance(name) => *name == occupant.name,
            Target::Address(address) => *address == occupant.address,
            Target::Zone(zone) => occupant.zone.as_ref() == Some(zone),
            Target::Group(group) => occupant.group.as_ref() == Some(group),
        }
    }

    /// Those of the slots whose occupants it names.
    pub fn among<'a>(&self, slots: impl Iterator<Item = &'a Slot>) -> impl Iterator<Item = &'a Slot> {
        slots.filter(|slot| slot.occupant.as_ref().is_some_and(|occupant| self.names(slot.id, occupant)))
    }

    /// Whether it names this instance, whatever slot it has.
    pub fn names_instance(&self, instance: &Instance) -> bool {
        match self {
            Target::Slot(_) => false,
            Target::Instance(name) => instance.has_name(name),
            Target::Address(address) => *address == instance.address,
            Target::Zone(zone) => instance.zone.as_ref() == Some(zone),
            Target::Group(group) => instance.group == *group,
        }
    }
}

fn name_of(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character".to_owned());
    }
    if text.chars().count() > MAX_NAME_CHARS {
        return Err(format!("it is longer than {MAX_NAME_CHARS} characters"));
    }
    Ok(text.to_owned())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Slot(id) => write!(f, "slot:{id}"),
            Target::Instance(name) => f.write_str(name),
            Target::Address(address) => address.fmt(f),
            Target::Zone(zone) => write!(f, "zone:{zone}"),
            Target::Group(group) => write!(f, "group:{group}"),
        }
    }
}

/// Who is in the target drains, and no newcomer that is takes a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whom it is about.
    pub target: Target,
    /// When it lapses, by AWS's clock; `None` for never.
    pub until: Option<Timestamp>,
    /// When it was given, by AWS's clock; `None` if its entry does not say.
    pub since: Option<Timestamp>,
    /// Who gave it: an AWS identity, or the end of an access key; `None` if its entry does not say.
    pub by: Option<String>,
    /// Why, in the words of who gave it: at most [`MAX_NOTE_CHARS`] characters.
    pub note: Option<String>,
}

impl Order {
    /// Whether it is over at `now`.
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// `order on zone:eu-west-1a by …, until …: note`, on one line.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order on {}", sanitized(&self.target.to_string()))?;
        if let Some(by) = &self.by {
            write!(f, " by {}", one_line(by, MAX_NAME_CHARS))?;
        }
        match self.until {
            Some(until) => write!(f, ", until {}", until.to_the_second())?,
            None => f.write_str(", until it is lifted")?,
        }
        match &self.note {
            Some(note) => write!(f, ": {}", one_line(note, MAX_NOTE_CHARS)),
            None => Ok(()),
        }
    }
}

/// All orders of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Those that can be read, lapsed ones included.
    pub all: Vec<Order>,
    /// The entries that cannot be read. They have no effect.
    pub unreadable: Vec<UnreadableOrder>,
}

/// An order that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableOrder {
    /// Its target, if that can be read.
    pub target: Option<Target>,
    /// What is wrong with it.
    pub reason: String,
}

impl Orders {
    /// The names of the instances that have an order of their own.
    pub fn instances(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter_map(|order| match &order.target {
            Target::Instance(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Splits them into those in force at `now`, which is AWS's time, and those that are over: lapsed, or about an instance that
    /// `seen` reports as ended.
    pub fn split(&self, seen: &Observation, now: Timestamp) -> (Vec<Order>, Vec<Order>) {
        let is_over = |order: &&Order| order.has_lapsed(now) || has_ended(order, seen, now);
        let (over, in_force): (Vec<&Order>, Vec<&Order>) = self.all.iter().partition(is_over);
        (in_force.into_iter().cloned().collect(), over.into_iter().cloned().collect())
    }

    /// Those in force at `now`, whatever became of their instances.
    pub fn in_force(&self, now: Timestamp) -> Vec<Order> {
        self.all.iter().filter(|order| !order.has_lapsed(now)).cloned().collect()
    }
}

fn has_ended(order: &Order, seen: &Observation, now: Timestamp) -> bool {
    let Target::Instance(name) = &order.target else { return false };
    if seen.ended.contains(name) {
        return true;
    }
    // While a group is missing too, this may be the wrong region or account.
    let not_found = matches!(&seen.unlisted, Unlisted::Fates(fates) if fates.get(name) == Some(&Fate::NotFound));
    let old = order.since.is_none_or(|since| now.since(since).is_some_and(|age| age >= FORGOTTEN));
    not_found && seen.missing_groups.is_empty() && old
}

/// The order of these that holds the occupant of a slot.
pub fn on_occupant<'a>(orders: &'a [Order], id: SlotId, occupant: &Occupant) -> Option<&'a Order> {
    orders.iter().find(|order| order.target.names(id, occupant))
}

/// The order of these that keeps an instance out of every slot.
pub fn on_instance<'a>(orders: &'a [Order], instance: &Instance) -> Option<&'a Order> {
    orders.iter().find(|order| order.target.names_instance(instance))
}

/// The order of these that keeps a slot empty.
pub fn on_slot(orders: &[Order], id: SlotId) -> Option<&Order> {
    orders.iter().find(|order| order.target == Target::Slot(id))
}

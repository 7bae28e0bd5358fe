//! Why a slot has the weight that it has: one enum for the log, `/status` and the page.
//!
//! The roles decide (`server::reason`, `client::reason`); here are the words. A word is stable, a sentence may change. Both are about
//! the server in the slot, and names in a sentence are escaped.

use std::fmt;

use crate::clock::Timestamp;
use crate::slot::{SlotId, Weight};

/// Why a slot has its weight, or an instance has no slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It serves with its full weight, or with the weight that its row has.
    Serving,
    /// Its weight rises, or falls to a smaller full weight.
    Ramping {
        /// When the next step is due.
        next: Timestamp,
        /// When it has its full weight.
        until: Timestamp,
    },
    /// It takes no new traffic and keeps its slot until it is gone.
    Draining(Leaving),
    /// It leaves, but nothing else serves.
    LastResort(Leaving),
    /// Its factor is 0, so it has no weight unless nothing else serves.
    Idle {
        /// Whether it serves all the same.
        serves: bool,
    },
    /// It stays exactly as it is.
    Kept(Keep),
    /// It is new here, and takes traffic once HAProxy's check has passed.
    Waiting(Wait),
    /// An operator or agent holds it.
    Held(Hand),
    /// HAProxy's check fails.
    Down,
    /// A server that it tracks, or a name that does not resolve, keeps it in maintenance.
    Blocked,
    /// Something else keeps changing its weight back.
    Contested {
        /// What its row says.
        wanted: Weight,
    },
    /// Its configured weight is 0, and the static algorithm accepts no other.
    Weightless,
    /// It should not serve, but no other server can take its traffic yet.
    Covering,
    /// HAProxy does not run it yet as its row says.
    Behind,
    /// Its group, or its zone, is served by other backends.
    Elsewhere {
        /// The group.
        group: Option<String>,
        /// The zone, if that decides.
        zone: Option<String>,
    },
    /// It serves here at a share of its weight, because the own zones or groups have too little.
    Spilled {
        /// The weight that its row has.
        full: Weight,
    },
    /// HAProxy has no server of this number.
    BeyondTemplate,
    /// A server of the template above the table's highest slot.
    Unused,
    /// Its row does not parse.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no row with this number.
    UnknownRow,
    /// An operator disabled its row.
    Disabled,
    /// An empty slot that an order keeps empty.
    KeptEmpty {
        /// The order, in words.
        order: String,
    },
    /// A ready instance that an order keeps out of every slot.
    KeptOut {
        /// The order, in words.
        order: String,
    },
    /// Nothing holds it.
    Free {
        /// The group of the last occupant.
        last_group: Option<String>,
    },
    /// A ready instance that finds no free slot.
    NoFreeSlot,
    /// A ready instance whose address another one has, or an unreadable row.
    SharedAddress,
    /// An instance in service whose address is not known.
    Unseen {
        /// What the source says of it.
        word: Option<String>,
    },
    /// A ready instance that the next turn of the server seats.
    Newcomer {
        /// Its slot.
        slot: SlotId,
    },
    /// An instance that gets no slot, because it is not ready, or in no group.
    NotReady {
        /// What its source says of it.
        word: String,
    },
    /// An instance in a state that this version of hsdo does not know.
    UnknownState {
        /// The kind of state and its value.
        word: String,
    },
}

/// An instance that a source has in service, or that is ready, and that has no slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub instance: String,
    /// Its group, if the source told.
    pub group: Option<String>,
    /// Why it has no slot.
    pub cause: Cause,
}

/// Why a server leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// What its source says of it, as in `lifecycle state "Terminating:Wait"`.
    Source(String),
    /// An order, in words.
    Order(String),
    /// Its row says so, which is all that is known here: the leader's word, or an operator's.
    Row,
}

/// Why a server stays exactly as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Its state is not known to hsdo.
    UnknownState {
        /// The kind of state and its value, if the source told.
        word: Option<String>,
    },
    /// Its group lists it, but EC2 or Consul shows no address.
    Silent {
        /// What it says instead.
        word: Option<String>,
    },
    /// A configured group does not exist, and it may be of that one.
    MissingGroup {
        /// The group that its row names.
        group: Option<String>,
    },
    /// The source has not been asked about it.
    Unasked,
    /// It is in no group any more, with too many others at once.
    Guarded {
        /// How long the removal guard keeps it, if it stays so.
        until: Timestamp,
    },
}

/// What a new server waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// HAProxy's own check.
    Check,
    /// The end of a check of the server that was there before.
    OldCheck,
    /// The end of requests to the server that was there before.
    OldRequests,
}

/// What an operator or agent set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// `state drain`.
    Drain,
    /// `state maint`.
    Maintenance,
}

impl Cause {
    /// One word, which stays the same in later versions.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Serving => "serving",
            Cause::Ramping { .. } => "ramping",
            Cause::Draining(_) => "draining",
            Cause::LastResort(_) => "last-resort",
            Cause::Idle { .. } => "idle",
            Cause::Kept(_) => "kept",
            Cause::Waiting(_) => "waiting",
            Cause::Held(_) => "held",
            Cause::Down => "down",
            Cause::Blocked => "blocked",
            Cause::Contested { .. } => "contested",
            Cause::Weightless => "weightless",
            Cause::Covering => "covering",
            Cause::Behind => "behind",
            Cause::Elsewhere { .. } => "elsewhere",
            Cause::Spilled { .. } => "spilled",
            Cause::BeyondTemplate => "beyond-template",
            Cause::Unused => "unused",
            Cause::Unreadable { .. } => "unreadable",
            Cause::UnknownRow => "unknown-row",
            Cause::Disabled => "disabled",
            Cause::KeptEmpty { .. } => "kept-empty",
            Cause::KeptOut { .. } => "kept-out",
            Cause::Free { .. } => "free",
            Cause::NoFreeSlot => "no-free-slot",
            Cause::SharedAddress => "shared-address",
            Cause::Unseen { .. } => "unseen",
            Cause::Newcomer { .. } => "newcomer",
            Cause::NotReady { .. } => "not-ready",
            Cause::UnknownState { .. } => "unknown-state",
        }
    }

    /// Whether an operator should know: something is wrong, or somebody holds it.
    pub fn is_trouble(&self) -> bool {
        !matches!(
            self,
            Cause::Serving
                | Cause::Ramping { .. }
                | Cause::Draining(_)
                | Cause::Idle { serves: false }
                | Cause::Waiting(_)
                | Cause::Covering
                | Cause::Behind
                | Cause::Elsewhere { .. }
                | Cause::Spilled { .. }
                | Cause::Unused
                | Cause::Newcomer { .. }
                | Cause::NotReady { .. }
                | Cause::KeptEmpty { .. }
                | Cause::Free { .. }
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Serving => f.write_str("serves"),
            Cause::Ramping { next, until } => {
                write!(f, "its weight moves by steps, next at {}, until {}", next.to_the_second(), until.to_the_second())
            }
            Cause::Draining(leaving) => write!(f, "takes no new traffic: {leaving}"),
            Cause::LastResort(leaving) => write!(f, "is to drain, but serves because nothing else does: {leaving}"),
            Cause::Idle { serves: false } => f.write_str("gets no traffic: its factor is 0 (SERVER_ASG_WEIGHTS or hsdo:weight)"),
            Cause::Idle { serves: true } => {
                f.write_str("its factor is 0 (SERVER_ASG_WEIGHTS or hsdo:weight), but it serves because nothing else does")
            }
            Cause::Kept(keep) => write!(f, "stays as it is: {keep}"),
            Cause::Waiting(Wait::Check) => f.write_str("waits for HAProxy's check to pass"),
            Cause::Waiting(Wait::OldCheck) => {
                f.write_str("waits until a check of the server that was here before has ended")
            }
            Cause::Waiting(Wait::OldRequests) => f.write_str(
                "waits, for a minute at most, until requests to the server that was here before have ended: this HAProxy would send more over their \
                 connections",
            ),
            Cause::Held(Hand::Drain) => {
                f.write_str("an operator or agent set it to drain; left alone until `set server … state ready`")
            }
            Cause::Held(Hand::Maintenance) => {
                f.write_str("an operator or agent set it to maintenance; left alone until `set server … state ready`")
            }
            Cause::Down => f.write_str("HAProxy's check fails"),
            Cause::Blocked => f.write_str(
                "kept in maintenance by a server that it tracks or by a name that does not resolve, or HAProxy's resolver sets its address; see \
                 `show servers state`",
            ),
            Cause::Contested { wanted } => write!(
                f,
                "something else, such as an agent, keeps changing its weight back from {wanted}; given up, retried once a minute"
            ),
            Cause::Weightless => f.write_str(
                "its configured weight is 0, and the static algorithm accepts no other; give the `server-template` a weight, or \
                 the backend `hash-type consistent`",
            ),
            Cause::Covering => f.write_str("serves on until another server can take its traffic"),
            Cause::Behind => f.write_str("HAProxy does not run it yet as its row says; the next turn tries again"),
            Cause::Elsewhere { zone: Some(zone), .. } => write!(f, "zone {} is not served by this backend", said(zone)),
            Cause::Elsewhere { group: Some(group), .. } => {
                write!(f, "group {} is served by other backends", said(group))
            }
            Cause::Elsewhere { group: None, .. } => f.write_str("servers without a group are served by other backends"),
            Cause::Spilled { full } => {
                write!(f, "serves here at a share of its weight {full}, because the own servers have too little (spillover)")
            }
            Cause::BeyondTemplate => f.write_str(
                "HAProxy has no such server (`server-template` too small, or `del server`), so it gets no traffic here",
            ),
            Cause::Unused => f.write_str("above the table's highest slot"),
            Cause::Unreadable { reason } => {
                write!(f, "its row cannot be read, so it is left alone: {}; correct or delete it", said(reason))
            }
            Cause::UnknownRow => f.write_str("the table has no such row, so it is left alone"),
            Cause::Disabled => f.write_str("an operator disabled its row (BackendServerStatus)"),
            Cause::KeptEmpty { order } => write!(f, "kept empty: {}", said(order)),
            Cause::KeptOut { order } => write!(f, "ready, but gets no slot: {}", said(order)),
            Cause::Free { last_group: Some(group) } => write!(f, "free, last used by group {}", said(group)),
            Cause::Free { last_group: None } => f.write_str("free"),
            Cause::NoFreeSlot => f.write_str("ready, but no slot is free; raise HAPROXY_BACKEND_SERVERS_LIST_SIZE"),
            Cause::SharedAddress => {
                f.write_str("ready, but another server or an unreadable row already holds its address")
            }
            Cause::Unseen { word: Some(word) } => write!(f, "in service, but gets no slot: {}", said(word)),
            Cause::Unseen { word: None } => f.write_str("in service, but gets no slot: its address is not known"),
            Cause::Newcomer { slot } => write!(f, "ready: the next turn of the server seats it in slot {slot}"),
            Cause::NotReady { word } => write!(f, "gets no slot: {}", said(word)),
            Cause::UnknownState { word } => write!(f, "{} is not known to this version of hsdo", said(word)),
        }
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaving::Source(word) | Leaving::Order(word) => f.write_str(&said(word)),
            Leaving::Row => f.write_str("its row says `draining`"),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keep::UnknownState { word: Some(word) } => write!(f, "{} is not known to this version of hsdo", said(word)),
            Keep::UnknownState { word: None } => f.write_str("its state is not known to this version of hsdo"),
            Keep::Silent { word: Some(word) } => write!(f, "its group has it in service, but {}", said(word)),
            Keep::Silent { word: None } => f.write_str("its group has it in service, but its address is not known"),
            Keep::MissingGroup { group: Some(group) } => {
                write!(f, "a configured group does not exist, and it may be of that one (its row says {})", said(group))
            }
            Keep::MissingGroup { group: None } => {
                f.write_str("a configured group does not exist, and it may be of that one (its row says none)")
            }
            Keep::Unasked => f.write_str("its source has not been asked about it yet"),
            Keep::Guarded { until } => write!(
                f,
                "no group lists it any more, like too many others at once; SERVER_REMOVAL_GUARD keeps it until {}",
                until.to_the_second()
            ),
        }
    }
}

/// A name or word from outside: nothing in it can end the line.
fn said(word: &str) -> String {
    crate::text::sanitized(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_has_its_detail_and_stays_on_its_line() {
        let at = |seconds: i64| Timestamp::from_micros((1_767_323_045 + seconds) * 1_000_000 + 678_999);
        let word = |word: &str| Some(word.to_owned());
        for (cause, name, sentence) in [
            (
                Cause::Ramping { next: at(0), until: at(30) },
                "ramping",
                "its weight moves by steps, next at 2026-01-02T03:04:05Z, until 2026-01-02T03:04:35Z",
            ),
            (
                Cause::Draining(Leaving::Source("lifecycle state \"Terminating:Wait\"".to_owned())),
                "draining",
                "takes no new traffic: lifecycle state \"Terminating:Wait\"",
            ),
            (
                Cause::LastResort(Leaving::Row),
                "last-resort",
                "is to drain, but serves because nothing else does: its row says `draining`",
            ),
            (
                Cause::Kept(Keep::Silent { word: word("EC2 does not list it") }),
                "kept",
                "stays as it is: its group has it in service, but EC2 does not list it",
            ),
            (Cause::Free { last_group: word("a\nb\u{1b}[2J\"") }, "free", "free, last used by group a\\nb\\u{1b}[2J\""),
        ] {
            assert_eq!((cause.word(), cause.to_string().as_str()), (name, sentence));
        }
    }
}

//! The client role: one turn reads the table, reads HAProxy, and sends what makes HAProxy match.
//!
//! # The whole rule
//!
//! *Which table.* The last one that was read whole stays in force while DynamoDB cannot be reached, so HAProxy is repaired all the
//! same. When it is read is decided in `watch`.
//!
//! *What a slot is to be* (`placement`). In a default backend every occupant of one's own groups serves, in the fallback backend the
//! others. A slot that has a row and should not be there is in maintenance at weight 0, and so is every server of the template
//! above the table. A slot without a readable row is unknown: nobody touches it.
//!
//! *What it is* (`stage`), told from one reading, never stored: unknown; out, or retiring; held by hand, or blocked by something
//! that `ready` does not lift; stale (another address), parked or filled, down until its check passes, serving, leaving (weight 0).
//!
//! *What is sent for it* (`reconcile`):
//! - a stale slot: `weight 0`, `state maint`, and an address where nothing answers (it is *parked*);
//! - a parked one: `state ready`, `health down`, its address, its weight. It takes no request, persistent ones included, until
//!   HAProxy's own check has passed as often as `rise` asks, with hsdo or without. Parked, because what persists gets in between
//!   `ready` and `health down`. A check that is under way from before is waited for: its result would count for the new server;
//! - where the server has no check, where nobody else serves meanwhile, or with `CLIENT_HEALTH_GATE` false: the address at once,
//!   and once that is read back, `state ready` and the weight. An address that HAProxy refuses never becomes ready, and a server
//!   that tracks another one is opened after it;
//! - a serving one: its weight. From 0, with `health down` unless it was seen to serve there: the line may have been cut;
//! - a leaving one: `weight 0`; a retiring one: `weight 0`, `state maint`;
//! - a held one: only address and weight, so that all is right when the hand is lifted.
//!
//! *When* (`sequencer`). What raises is sent first, and HAProxy is read again; what lowers when nothing is left to raise. A step
//! that did not help is not sent twice in a turn. Every step bears to be cut after any of its commands.
//!
//! *May this server's traffic be taken now?* (`cover`). Not while it is on its way to another slot and does not serve there; not
//! while it leaves and nobody else serves; and if all that serve are to be replaced, one half first.
//!
//! *What is remembered* (`memory`), of one HAProxy process only: whose hand a maintenance was, which servers were seen to serve,
//! which weights another hand sets. `converge` drives all this, a backend as one value, each for itself: one that is missing or
//! unreadable costs the others nothing. `report` says what a person should know.

mod backend;
mod converge;
mod cover;
#[cfg(test)]
mod fixtures;
mod memory;
pub(crate) mod model;
pub mod placement;
#[cfg(test)]
mod properties;
pub mod reconcile;
mod report;
mod sequencer;
mod stage;
mod view;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::Episode;
use crate::metrics::{Metrics, ServerSeries};
use crate::ports::{Haproxy, Subject, TableReader, TurnError};
use crate::settings::{Backend, ClientSettings};
use crate::slot::{self, SlotId, Table};
use converge::Converge;
pub use memory::Memory;
use placement::{Kind, Rules, Split};
pub use sequencer::{Next, Sequencer};
pub use stage::Options;
pub use view::View;
use watch::{Doubt, Need, Watch};

/// The time for all that a turn asks of the table: a hung AWS delays the repair of HAProxy by less than 5 seconds.
const READING: Duration = Duration::from_millis(4_500);

/// How long what was read stands for what AWS would say, where a HAProxy waits to be filled: `INTERVAL` may be an hour.
const CURRENT: Duration = Duration::from_secs(5);

/// A backend that hsdo fills, with the rules for what stands in it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The backend, the base name of its servers, and their port.
    pub backend: Backend,
    /// Default or fallback.
    pub kind: Kind,
}

/// The client of one HAProxy.
pub struct Client<T, H> {
    reader: T,
    converge: Converge<H>,
    rules: Arc<Rules>,
    size: SlotId,
    metrics: Arc<Metrics>,
    /// The last table that was read whole, by a consistent reading.
    table: Option<Table>,
    watch: Watch,
    /// Until when what was read last is as good as what AWS would say; none where AWS said nothing at the last attempt.
    current_until: Option<Instant>,
    /// The highest row number that any reading showed: a table that loses its rows disables nothing.
    highest_row: SlotId,
    unreadable: Episode,
    empty: Episode,
    split: Episode,
    doubt: Episode,
}

impl<T: TableReader, H: Haproxy> Client<T, H> {
    /// A client that has read nothing yet.
    pub fn new(settings: &ClientSettings, reader: T, haproxy: H, metrics: Arc<Metrics>) -> Self {
        let default = settings.backends.iter().map(|backend| (backend, Kind::Default));
        let fallback = settings.fallback.iter().map(|backend| (backend, Kind::Fallback));
        let targets =
            default.chain(fallback).map(|(backend, kind)| Target { backend: backend.clone(), kind }).collect();
        let rules = Arc::new(Rules {
            dedicated: settings.dedicated,
            groups: settings.groups.clone(),
            all_in_fallback: settings.all_in_fallback,
        });
        let size = settings.common.list_size;
        Client {
            reader,
            converge: Converge::new(
                haproxy,
                targets,
                Arc::clone(&rules),
                size,
                settings.health_gate,
                Arc::clone(&metrics),
            ),
            rules,
            size,
            metrics,
            table: None,
            watch: Watch::default(),
            current_until: None,
            highest_row: 0,
            unreadable: Episode::new("table rows that cannot be read"),
            empty: Episode::new("table"),
            split: Episode::new("CLIENT_ASG_NAMES"),
            doubt: Episode::new("change marker"),
        }
    }

    /// One turn, timed by `clock`. Gives what failed; nothing is the success. HAProxy is repaired also when the table could not be
    /// read.
    pub fn turn(&mut self, clock: impl Fn() -> Instant) -> Vec<TurnError> {
        let now = clock();
        // A HAProxy that was down serves nobody when it is back: it is filled before AWS is asked anything, unless what was
        // read last is old, and AWS answered then.
        let first = self.converge.is_down() && self.current_until.is_none_or(|until| now < until);
        let mended = if first { self.mend(now) } else { Ok(()) };
        // What HAProxy took of the turn is not the table's.
        let refreshed = self.refresh(if first { clock() } else { now });
        self.current_until = refreshed.is_ok().then(|| now + CURRENT);
        let mended = mended.and_then(|()| self.mend(now));
        [refreshed, mended].into_iter().filter_map(Result::err).collect()
    }

    /// Makes HAProxy match the table, as far as it is known.
    fn mend(&mut self, now: Instant) -> Result<(), TurnError> {
        self.converge.check_once()?;
        match &self.table {
            Some(table) => self.converge.run(table, self.known(), now),
            None => Ok(()),
        }
    }

    /// Whether HAProxy's socket refused in the last turn.
    pub fn awaits_haproxy(&self) -> bool {
        self.converge.is_down()
    }

    /// Whether a slot could not be opened yet, as a check of the server before it is still under way.
    pub fn has_unopened(&self) -> bool {
        self.converge.has_unopened()
    }

    /// Whether somebody listens on HAProxy's socket now.
    pub fn haproxy_answers(&self) -> bool {
        self.converge.answers()
    }

    /// What a turn would send now, a command a line, and nothing is changed.
    ///
    /// # Errors
    /// The table or HAProxy cannot be read, or HAProxy lacks what is configured.
    pub fn dry_run(&mut self, now: Instant) -> Result<Vec<String>, TurnError> {
        self.refresh(now)?;
        self.converge.check_once()?;
        let known = self.known();
        let table = self.table.as_ref().expect("refresh just read it");
        self.converge.rehearse(table, known, now)
    }

    /// The highest slot number about which the table may have something to say. Servers above it are not in use; but
    /// a table that never showed a row says nothing about any of them.
    fn known(&self) -> SlotId {
        if self.highest_row == 0 { SlotId::MAX } else { self.highest_row.max(self.size) }
    }

    /// Reads the marker, and the table where the marker asks for it. An eventually consistent reading may come from a
    /// replica that is behind, and following it would send traffic back to an address that is gone; so it only tells that
    /// something differs, and a consistent reading tells what.
    fn refresh(&mut self, now: Instant) -> Result<(), TurnError> {
        let until = now + READING;
        let marker = self.reader.marker(until)?;
        let need = self.watch.see(&marker, now);
        self.metrics.set_heartbeat(self.watch.beat());
        self.doubt.report(self.watch.doubt(now).map(explain));
        let as_it_was = match (&self.table, need) {
            (None, _) | (_, Need::Read) => false,
            (Some(_), Need::Nothing) => return Ok(()),
            (Some(table), Need::Look) => self.reader.read(false, until)? == *table,
        };
        if as_it_was {
            self.watch.same(now);
            return Ok(());
        }
        let table = self.reader.read(true, until)?;
        if table.rows.is_empty() && self.table.as_ref().is_some_and(|before| !before.rows.is_empty()) {
            let text = "the table holds no row at all any more; the last one that was read stays in force";
            return Err(TurnError::new(Subject::Turn, text.to_owned()));
        }
        self.watch.read(&marker, now);
        if self.table.as_ref() != Some(&table) {
            self.highest_row = self.highest_row.max(table.rows.keys().next_back().copied().unwrap_or(0));
            self.publish(&table);
            self.table = Some(table);
            self.converge.table_changed();
        }
        Ok(())
    }

    fn publish(&mut self, table: &Table) {
        let faults = table.faults();
        let text = faults.join("; ");
        self.unreadable.report((!faults.is_empty()).then_some((text.as_str(), text.as_str())));
        let none = if table.strays.is_empty() {
            "it holds no row at all, so nothing is known and nothing is changed; does `hsdo --server` run?"
        } else {
            "none of its items is a slot's, so nothing is known and nothing is changed; is DYNAMODB_TABLE_NAME right?"
        };
        self.empty.report(table.rows.is_empty().then_some((none, none)));
        let split = Split::of(table, &self.rules);
        let text = (!split.missing.is_empty()).then(|| explain_split(&split));
        self.split.report(text.as_ref().map(|text| (text.as_str(), text.as_str())));
        self.metrics.set_missing_groups(split.missing.len());
        self.metrics.set_condition("split", text.map(|text| format!("CLIENT_ASG_NAMES: {text}")));
        self.metrics.set_servers(ServerSeries::all(table.slots()));
        self.metrics.set_slots(&slot::counts_by_state(table.slots(), faults.len()));
    }
}

/// What is wrong with the own groups, for the log and for `/readyz`.
fn explain_split(split: &Split) -> String {
    let names = split.missing.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if split.blind {
        format!(
            "no row of the table carries {names}, so the split by group knows nothing and every server counts as own; \
             is it spelt as the group is?"
        )
    } else {
        format!("no row of the table carries {names}; is it spelt as the group is?")
    }
}

/// Key and text of a doubt, for the log.
fn explain(doubt: Doubt) -> (&'static str, &'static str) {
    match doubt {
        Doubt::Absent => ("absent", "there is none, so the whole table is read every turn; does `hsdo --server` run?"),
        Doubt::Stale => ("stale", "the server's heartbeat stands still, so the whole table is read every turn"),
    }
}

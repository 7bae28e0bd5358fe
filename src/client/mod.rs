//! The client role: one turn reads the table, reads HAProxy, and sends what makes HAProxy match.
//!
//! # The whole rule
//!
//! *Which table.* The last table that was read completely stays in force while DynamoDB is unreachable, so HAProxy is still repaired.
//! `watch` decides when to read it.
//!
//! *Desired state* (`placement`). In a default backend every occupant of the client's own groups serves, in the fallback backend the
//! others. A slot that has a row but should not serve is in maintenance at weight 0, and so is every server of the template above
//! the table. A slot without a readable row is unknown and is not touched. While the own servers are short (`spill`), others come in
//! at a share of their weight.
//!
//! *Actual state* (`stage`), derived from one reading and never stored: unknown; out, or retiring; held by an operator or agent, or
//! blocked by something that `ready` does not lift; stale (another address), parked or filled, down until its check passes, serving,
//! leaving (weight 0).
//!
//! *What to send* (`reconcile`):
//! - a stale slot: `weight 0`, `state maint`, and an address that refuses connections (it is *parked*);
//! - a parked slot: parked once more, `state ready`, `health down`, its address, its weight. It takes no request, not even a
//!   persistent one, until HAProxy's own check has passed `rise` times, with or without hsdo. It is parked because persistent
//!   requests get in between `ready` and `health down`. It is not opened while an old check is in flight, whose result would count
//!   for the new server;
//! - if the server has no check, if nothing else serves meanwhile, or with `CLIENT_HEALTH_GATE` false: the address at once, and after
//!   reading it back, the address again, `state ready` and the weight: another process may answer by then, whose server is at its
//!   placeholder. An address that HAProxy refuses never becomes ready, and a tracking server is opened after the server that it
//!   tracks;
//! - a serving slot: its weight. From 0, with `health down` unless it has been seen serving there: the line may have been cut;
//! - a leaving slot: `weight 0`; a retiring one: `weight 0`, `state maint`;
//! - a held slot: only address and weight, so that all is right once it is released.
//!
//! *When* (`sequencer`). Steps that raise go first, then HAProxy is read again; steps that lower go when nothing is left to raise. A
//! step that had no effect is not repeated in the same turn. Every step can be interrupted after any command.
//!
//! *May this server's traffic be taken away now?* (`cover`). Not while it moves to another slot and does not serve there yet; not
//! while it leaves, or moves to other backends or load balancers, and nothing else serves; and if every serving server is to be replaced, one half goes first.
//!
//! *What is remembered* (`memory`), for one HAProxy process only: who set a server to maintenance, which servers have been seen
//! serving, which weights something else keeps changing. `converge` drives all this, each backend on its own: a missing or unreadable
//! one does not affect the others. `report` tells the operator.

mod backend;
mod converge;
mod cover;
#[cfg(test)]
mod fixtures;
pub mod look;
mod memory;
pub(crate) mod model;
pub mod placement;
#[cfg(test)]
mod properties;
pub mod reason;
pub mod reconcile;
mod report;
mod sequencer;
mod spill;
mod stage;
mod view;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use crate::about::About;
use crate::balancer::BalancerReport;
use crate::log::Episode;
use crate::marker::Marker;
use crate::metrics::{Metrics, ServerSeries};
use crate::ports::{Board, Haproxy, Kept, Reports, Subject, TableReader, TurnError};
use crate::settings::{Backend, ClientSettings};
use crate::slot::{self, SlotId, Status, Table};
use converge::{Account, Converge};
pub use memory::SlotMemory;
use placement::{BackendKind, By, History, Rules, Split, Splits};
pub use sequencer::{Next, Sequencer};
pub use stage::Options;
pub use view::View;
use watch::{MarkerFault, MarkerWatch, Need};

/// The timeout for everything a turn reads from the table: if AWS hangs, HAProxy's repair is less than 5 seconds late.
const TABLE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// How long the last read is recent enough to fill a restarted HAProxy from: `INTERVAL` may be an hour.
const CURRENT: Duration = Duration::from_secs(5);

/// A backend that hsdo fills.
#[derive(Clone, Debug)]
pub struct Target {
    /// The backend, the base name of its servers, and their port.
    pub backend: Backend,
    /// Default or fallback.
    pub kind: BackendKind,
}

/// The client of one HAProxy.
pub struct Client<T, H> {
    reader: T,
    converge: Converge<H>,
    rules: Arc<Rules>,
    size: SlotId,
    metrics: Arc<Metrics>,
    /// The last complete, strongly consistent read.
    table: Option<Table>,
    /// `table` comes from an earlier process and has not been confirmed yet.
    is_kept: bool,
    watch: MarkerWatch,
    /// Until when `table` counts as current; none if the last read failed.
    current_until: Option<Instant>,
    /// The highest row number ever read: a table that loses its rows disables nothing.
    highest_row: SlotId,
    /// Which own names the rows that were read have carried.
    known: History,
    unreadable: Episode,
    empty: Episode,
    /// In the order of [`By::ALL`].
    splits: [Episode; 2],
    marker_fault: Episode,
    kept: Episode,
    board: Option<Arc<dyn Board>>,
    reports: Option<Arc<dyn Reports>>,
    /// The report of the last turn that could tell; none before the first.
    told: Option<BalancerReport>,
    /// The slots of `table` whose servers drain.
    leaving: Vec<SlotId>,
}

impl<T: TableReader, H: Haproxy> Client<T, H> {
    /// Nothing is read yet.
    pub fn new(settings: &ClientSettings, reader: T, haproxy: H, metrics: Arc<Metrics>) -> Self {
        let default = settings.backends.iter().map(|backend| (backend, BackendKind::Default));
        let fallback = settings.fallback.iter().map(|backend| (backend, BackendKind::Fallback));
        let targets =
            default.chain(fallback).map(|(backend, kind)| Target { backend: backend.clone(), kind }).collect();
        let rules = Arc::new(Rules::of(settings));
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
            is_kept: false,
            watch: MarkerWatch::default(),
            current_until: None,
            highest_row: 0,
            known: History::default(),
            unreadable: Episode::new("table rows that cannot be read"),
            empty: Episode::new("table"),
            splits: By::ALL.map(|by| Episode::new(by.setting())),
            marker_fault: Episode::new("change marker"),
            kept: Episode::new("CLIENT_STATE_FILE"),
            board: None,
            reports: None,
            told: None,
            leaving: Vec::new(),
        }
    }

    /// Runs one turn, timed by `clock`, and returns its errors. HAProxy is repaired even if the table cannot be read.
    pub fn turn(&mut self, clock: impl Fn() -> Instant) -> Vec<TurnError> {
        let now = clock();
        // A HAProxy that was down is empty when it is back: fill it before asking AWS, unless the last read succeeded and is old.
        let first = self.converge.is_down() && self.current_until.is_none_or(|until| now < until);
        let repaired = if first { self.repair(now) } else { Ok(()) };
        // Time spent on HAProxy does not count towards the table's timeout.
        let refreshed = self.refresh(if first { clock() } else { now }, &clock);
        if refreshed.is_err() {
            self.start_from_kept();
        }
        self.current_until = refreshed.is_ok().then(|| now + CURRENT);
        let repaired = repaired.and_then(|()| self.repair(now));
        self.report(repaired.is_ok());
        [refreshed, repaired].into_iter().filter_map(Result::err).collect()
    }

    /// From now on the client shows its state there too.
    pub fn show_on(&mut self, board: Arc<dyn Board>) {
        self.converge.show_on(Arc::clone(&board));
        self.board = Some(board);
    }

    /// From now on the client reports there what its HAProxy has carried out.
    pub fn report_to(&mut self, reports: Arc<dyn Reports>) {
        self.reports = Some(reports);
    }

    /// Reports what HAProxy is like after a turn; `is_repaired` if it could be read and sent to. After a turn that could not, what was
    /// reported last stands: somebody may still be served.
    fn report(&mut self, is_repaired: bool) {
        let Some(reports) = &self.reports else { return };
        if self.converge.is_gone() {
            self.told = None;
            reports.silence();
            return;
        }
        // Another process has carried out nothing yet.
        if let (true, Some(told)) = (self.converge.is_renewed(), &mut self.told) {
            told.version = None;
        }
        if is_repaired && self.table.is_some() && !self.is_kept {
            match self.converge.account(&self.leaving) {
                Ok(Account { matches, haproxy, sessions, held, spill }) => {
                    let before = self.told.as_ref().and_then(|told| told.version);
                    let version = if matches { self.watch.version() } else { before };
                    self.told = Some(BalancerReport { version, haproxy, sessions, held, spill });
                }
                Err(error) => debug!("nothing new to report: {error}"),
            }
        }
        if let Some(told) = &self.told {
            reports.report(told);
        }
    }

    /// Whether there is a table to keep HAProxy in step with.
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// Falls back to the table that an earlier process kept, if this one has not read any.
    fn start_from_kept(&mut self) {
        if self.table.is_some() {
            return;
        }
        if let Some(Kept { table, age }) = self.reader.kept() {
            let text = format!("AWS cannot be read, so HAProxy follows the table read {} s ago", age.as_secs());
            self.kept.report(Some(("kept", &text)));
            self.metrics.set_condition("kept", Some(format!("CLIENT_STATE_FILE: {text}")));
            self.take(table);
            self.is_kept = true;
        }
    }

    /// Makes HAProxy match the last table.
    fn repair(&mut self, now: Instant) -> Result<(), TurnError> {
        self.converge.check_once()?;
        match &self.table {
            Some(table) => self.converge.run(table, self.history(), now),
            None => Ok(()),
        }
    }

    /// Whether the last turn could not connect to HAProxy.
    pub fn awaits_haproxy(&self) -> bool {
        self.converge.is_down()
    }

    /// Whether a slot waits to be opened, because a check of its previous server is still in flight.
    pub fn has_unopened(&self) -> bool {
        self.converge.has_unopened()
    }

    /// Whether anything listens on HAProxy's socket now.
    pub fn is_haproxy_listening(&self) -> bool {
        self.converge.is_listening()
    }

    /// What a turn would send now, one command per line; changes nothing.
    ///
    /// # Errors
    /// The table or HAProxy cannot be read, or HAProxy lacks what is configured.
    pub fn dry_run(&mut self, now: Instant) -> Result<Vec<String>, TurnError> {
        self.refresh(now, &|| now)?;
        self.converge.check_once()?;
        let history = self.history();
        let table = self.table.as_ref().expect("refresh just read it");
        self.converge.dry_run(table, history, now)
    }

    /// What the tables so far have shown. Servers above the highest row are not in use, unless no row was ever read.
    fn history(&self) -> History {
        let max_row = if self.highest_row == 0 { SlotId::MAX } else { self.highest_row.max(self.size) };
        History { max_row, ..self.known }
    }

    /// Reads the marker, and the table if necessary. An eventually consistent read may come from a stale replica, and acting on it
    /// could send traffic to an address that is gone. It only detects a difference; a strongly consistent read follows.
    fn refresh(&mut self, now: Instant, clock: &dyn Fn() -> Instant) -> Result<(), TurnError> {
        let until = now + TABLE_TIMEOUT;
        let marker = self.reader.marker(until)?;
        let need = self.watch.see(&marker, now);
        self.metrics.set_heartbeat(self.watch.beat());
        self.marker_fault.report(self.watch.fault(now).map(explain));
        let unchanged = match (&self.table, need) {
            (None, _) | (_, Need::Read) => false,
            _ if self.is_kept => false,
            (Some(_), Need::Nothing) => {
                self.confirmed(&marker, now);
                return Ok(());
            }
            (Some(table), Need::Look) => self.reader.read(false, until)? == *table,
        };
        if unchanged {
            self.watch.confirm(now);
            self.confirmed(&marker, now);
            return Ok(());
        }
        let table = self.reader.read(true, until)?;
        if table.rows.is_empty() && self.table.as_ref().is_some_and(|before| !before.rows.is_empty()) {
            let text = "the table holds no row at all any more; the last table with rows stays in force";
            return Err(TurnError::new(Subject::Turn, text.to_owned()));
        }
        self.watch.read(&marker, now, clock());
        if std::mem::take(&mut self.is_kept) {
            self.kept.report(None);
            self.metrics.set_condition("kept", None);
        }
        if self.table.as_ref() != Some(&table) {
            self.take(table);
        }
        self.confirmed(&marker, now);
        Ok(())
    }

    fn confirmed(&self, marker: &Marker, now: Instant) {
        if let Some(board) = &self.board {
            board.confirmed(marker.leader.as_deref(), marker.blind, now);
        }
    }

    /// From now on HAProxy is to match this table.
    fn take(&mut self, table: Table) {
        self.highest_row = self.highest_row.max(table.rows.keys().next_back().copied().unwrap_or(0));
        let splits = Splits::of(&table, &self.rules, self.history());
        self.known.learn(&splits);
        self.publish(&table, &splits);
        let leaves = |slot: &&slot::Slot| slot.occupant.as_ref().is_some_and(|one| one.status == Status::Draining);
        self.leaving = table.slots().filter(leaves).map(|slot| slot.id).collect();
        self.table = Some(table);
        self.converge.table_changed();
    }

    fn publish(&mut self, table: &Table, splits: &Splits) {
        let faults = table.faults();
        let text = faults.join("; ");
        let slots = About::default().slot(table.unreadable()).cause(["unreadable"]);
        self.unreadable.report_about((!faults.is_empty()).then_some((text.as_str(), text.as_str())), &slots);
        let none = if table.strays.is_empty() {
            "it holds no row at all, so nothing is changed; is `hsdo --server` running?"
        } else {
            "none of its items is a slot, so nothing is changed; is DYNAMODB_TABLE_NAME right?"
        };
        self.empty.report(table.rows.is_empty().then_some((none, none)));
        let none = Split::default();
        for (by, episode) in By::ALL.into_iter().zip(&mut self.splits) {
            let split = splits.0.iter().find(|(one, _)| *one == by).map_or(&none, |(_, split)| split);
            let text = (!split.missing.is_empty()).then(|| explain_split(by, split));
            let names = match by {
                By::Group => About::default().group(&split.missing),
                By::Zone => About::default().zone(&split.missing),
            };
            episode.report_about(text.as_ref().map(|text| (text.as_str(), text.as_str())), &names);
            self.metrics.set_condition(by.setting(), text.map(|text| format!("{}: {text}", by.setting())));
        }
        self.metrics.set_missing_groups(splits.0.iter().map(|(_, split)| split.missing.len()).sum());
        self.metrics.set_servers(ServerSeries::all(table.slots()));
        self.metrics.set_slots(&slot::counts_by_state(table.slots(), faults.len()));
    }
}

/// Describes the own names that are missing, for the log and `/readyz`.
fn explain_split(by: By, split: &Split) -> String {
    let (names, word) =
        (split.missing.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "), by.word());
    if split.blind {
        format!(
            "no row of the table carries {names}, so no server can be assigned by {word} and every server counts as own; \
             is the name spelled like the {word}'s?"
        )
    } else {
        format!("no row of the table carries {names}; is the name spelled like the {word}'s?")
    }
}

/// Key and text of a marker's fault, for the log.
fn explain(fault: MarkerFault) -> (&'static str, &'static str) {
    match fault {
        MarkerFault::Absent => {
            ("absent", "there is none, so the whole table is read every turn; is `hsdo --server` running?")
        }
        MarkerFault::Stale => ("stale", "the server's heartbeat has stopped, so the whole table is read every turn"),
    }
}

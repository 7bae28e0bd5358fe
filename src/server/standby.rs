//! A server on standby: it watches the lease and takes it when allowed.

use log::{Level, debug, info, log, warn};

use super::context::TurnContext;
use super::lease::{HeldLease, LeaseWatch, TermName};
use super::sight::Attempts;
use super::term::Term;
use crate::marker::Moment;
use crate::ports::{Sighting, SlotStore, Source, TableReading, TurnError};
use crate::slot::Observation;

pub(super) struct Standby {
    watch: LeaseWatch,
    /// Whether the source ever responded. Until then it is queried even on standby, so that a misconfiguration shows early.
    source_answered: bool,
    /// Beside a blind leader.
    attempts: Attempts,
}

impl Standby {
    pub(super) fn first(process: String) -> Self {
        Standby {
            watch: LeaseWatch::new(TermName::first(process)),
            source_answered: false,
            attempts: Attempts::default(),
        }
    }

    pub(super) fn after(term: &TermName) -> Self {
        Standby { watch: LeaseWatch::new(term.next()), source_answered: true, attempts: Attempts::default() }
    }

    /// Whether another server leads and its heartbeat was seen to change.
    pub(super) fn sees_leader(&self) -> bool {
        self.watch.alive_since().is_some()
    }

    /// One turn. A new term comes with the observation for its first turn.
    pub(super) fn turn<S: Source, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<Option<(Term, Observation)>, TurnError> {
        let sighting = context.store.read_marker()?;
        let free = self.watch_marker(context, &sighting, now);
        if !free && self.source_answered {
            return if context.relieves && self.may_relieve(now) { self.relieve(context, now) } else { Ok(None) };
        }
        // A server that cannot see the instances must not lead.
        let seen = context.source.fetch(&[])?;
        self.source_answered = true;
        if !free {
            return Ok(None);
        }
        Ok(self.take(context, &sighting, free, now)?.map(|term| (term, seen)))
    }

    /// Takes over from a blind leader, if this server sees the instances of its groups and of the table: the same that it would have to
    /// see as the leader, so that two servers that see only a part do not take turns. Where it sees no more than the leader, that is no
    /// failure of a standby.
    fn relieve<S: Source, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<Option<(Term, Observation)>, TurnError> {
        let TableReading { table, orders, .. } = context.store.read()?;
        let occupants = table.slots().filter_map(|slot| slot.occupant.as_ref()).map(|occupant| occupant.name.as_str());
        let seen = match context.source.fetch(&occupants.chain(orders.instances()).collect::<Vec<_>>()) {
            Ok(seen) => seen,
            Err(error) => {
                let level = if self.attempts.failed(now.clock) { Level::Info } else { Level::Debug };
                log!(
                    level,
                    "the leader cannot see its instances, and neither can this server, so it stands by: {error}"
                );
                return Ok(None);
            }
        };
        // The leader has beaten meanwhile, and may see again.
        let sighting = context.store.read_marker()?;
        let free = self.watch_marker(context, &sighting, now);
        if !free && !self.watch.is_blind() {
            return Ok(None);
        }
        Ok(self.take(context, &sighting, free, now)?.map(|term| (term, seen)))
    }

    /// Whether the leader is blind, and it is time to try to see more.
    fn may_relieve(&self, now: Moment) -> bool {
        self.watch.is_blind() && self.attempts.are_due(now.clock)
    }

    /// Reads the marker between turns. Returns whether the lease may be taken, or a turn may find that it may.
    pub(super) fn may_take_lease<S, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<bool, TurnError> {
        let sighting = context.store.read_marker()?;
        let free = self.watch_marker(context, &sighting, now);
        Ok(free || context.relieves && self.source_answered && self.may_relieve(now))
    }

    fn watch_marker<S, T: SlotStore>(
        &mut self,
        context: &TurnContext<S, T>,
        seen: &Sighting<T::Raw>,
        now: Moment,
    ) -> bool {
        let before = self.watch.rival().map(str::to_owned);
        let free = self.watch.see(&seen.marker, now.clock, seen.read_at);
        if let Some(since) = self.watch.alive_since() {
            context.gauges.heartbeat(since);
        }
        if !self.watch.is_blind() {
            self.attempts.reset();
        }
        context.gauges.leader(self.watch.rival(), self.watch.is_blind());
        if let Some(rival) = self.watch.rival().filter(|rival| before.as_deref() != Some(*rival)) {
            info!("standing by: {} leads the table", rival.escape_debug());
        }
        free
    }

    /// Tries to take the lease, which is `free`, or its leader blind; `None` if another server took it first, or the leader wrote
    /// meanwhile.
    fn take<S, T: SlotStore>(
        &self,
        context: &mut TurnContext<S, T>,
        seen: &Sighting<T::Raw>,
        free: bool,
        now: Moment,
    ) -> Result<Option<Term>, TurnError> {
        let claim = self.watch.claim(&seen.marker, now);
        if !context.store.take(seen, &claim)? {
            debug!("another server took the lease first, or its leader wrote meanwhile");
            return Ok(None);
        }
        let name = self.watch.term();
        match seen.marker.leader.as_deref().filter(|leader| *leader != claim.leader) {
            Some(old) => {
                let why = if free { "whose heartbeat had stopped" } else { "which cannot see its instances" };
                warn!("leading the table as {name}: took over from {}, {why}", old.escape_debug());
            }
            None => info!("leading the table as {name}"),
        }
        context.gauges.leads(true);
        context.gauges.leader(Some(&name.to_string()), false);
        context.gauges.heartbeat(now.clock);
        Ok(Some(Term::new(HeldLease::new(name.clone(), &claim, now.clock), now.clock)))
    }
}

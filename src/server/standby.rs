//! A server on standby: it watches the lease and takes it when allowed.

use log::{debug, info, warn};

use super::context::TurnContext;
use super::lease::{HeldLease, LeaseWatch, TermName};
use super::term::Term;
use crate::marker::Moment;
use crate::ports::{Sighting, SlotStore, Source, TurnError};
use crate::slot::Observation;

pub(super) struct Standby {
    watch: LeaseWatch,
    /// Whether the source ever responded. Until then it is queried even on standby, so that a misconfiguration shows early.
    source_answered: bool,
}

impl Standby {
    pub(super) fn first(process: String) -> Self {
        Standby { watch: LeaseWatch::new(TermName::first(process)), source_answered: false }
    }

    pub(super) fn after(term: &TermName) -> Self {
        Standby { watch: LeaseWatch::new(term.next()), source_answered: true }
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
            return Ok(None);
        }
        // A server that cannot see the instances must not lead.
        let seen = context.source.fetch(&[])?;
        self.source_answered = true;
        if !free {
            return Ok(None);
        }
        Ok(self.take(context, &sighting, now)?.map(|term| (term, seen)))
    }

    /// Reads the marker between turns. Returns whether the lease may be taken.
    pub(super) fn may_take_lease<S, T: SlotStore>(
        &mut self,
        context: &mut TurnContext<S, T>,
        now: Moment,
    ) -> Result<bool, TurnError> {
        let sighting = context.store.read_marker()?;
        Ok(self.watch_marker(context, &sighting, now))
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
        context.gauges.leader(self.watch.rival());
        if let Some(rival) = self.watch.rival().filter(|rival| before.as_deref() != Some(*rival)) {
            info!("standing by: {} leads the table", rival.escape_debug());
        }
        free
    }

    /// Tries to take the lease; `None` if another server took it first.
    fn take<S, T: SlotStore>(
        &self,
        context: &mut TurnContext<S, T>,
        seen: &Sighting<T::Raw>,
        now: Moment,
    ) -> Result<Option<Term>, TurnError> {
        let claim = self.watch.claim(&seen.marker, now);
        if !context.store.take(seen, &claim)? {
            debug!("another server took the lease first");
            return Ok(None);
        }
        let name = self.watch.term();
        match seen.marker.leader.as_deref().filter(|leader| *leader != claim.leader) {
            Some(old) => {
                warn!(
                    "leading the table as {name}: took over from {}, whose heartbeat had stopped",
                    old.escape_debug()
                );
            }
            None => info!("leading the table as {name}"),
        }
        context.gauges.leads(true);
        context.gauges.leader(Some(&name.to_string()));
        context.gauges.heartbeat(now.clock);
        Ok(Some(Term::new(HeldLease::new(name.clone(), &claim, now.clock), now.clock)))
    }
}

//! The health checks of one server, as they go on by themselves. While nothing can change their result they are not worked
//! out: where they stand is computed when it matters.

use super::config::BackendConfig;

/// A check that was begun.
#[derive(Clone, Copy, Debug)]
struct Flight {
    ends: u64,
    passes: bool,
    /// Whether the next one would have the same result: not if something was changed since it was begun.
    is_current: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Checks {
    is_configured: bool,
    is_enabled: bool,
    /// By maintenance.
    is_paused: bool,
    /// 0 to `rise` - 1 is down, up to `rise` + `fall` - 1 is up.
    health: u32,
    flight: Option<Flight>,
    /// When the next one begins, if none is under way and none is left out.
    next: u64,
    /// The result of the last check, where it changed nothing and all that follow will have the same.
    settled: Option<bool>,
    rise: u32,
    fall: u32,
    inter: u64,
    takes: u64,
}

impl Checks {
    pub(super) fn new(config: &BackendConfig, is_empty: bool, first: u64) -> Self {
        // HAProxy's defaults count for a server without a check, too.
        let (rise, fall) = config.check.map_or((2, 3), |check| (check.rise, check.fall));
        let (inter, takes) = config.check.map_or((1, 0), |check| (check.inter.as_nanos(), check.takes.as_nanos()));
        Checks {
            is_configured: config.check.is_some(),
            is_enabled: config.check.is_some(),
            is_paused: config.disabled,
            health: if config.disabled || is_empty { 0 } else { rise },
            flight: None,
            next: first,
            settled: None,
            rise,
            fall,
            inter: u64::try_from(inter).expect("a short time").max(1),
            takes: u64::try_from(takes).expect("a short time"),
        }
    }

    /// Whether checks run.
    fn go_on(&self) -> bool {
        self.is_configured && self.counts()
    }

    /// Whether the health counts.
    fn counts(&self) -> bool {
        self.is_enabled && !self.is_paused
    }

    /// When something happens next; `u64::MAX` where nothing will that matters.
    pub(super) fn due(&self) -> u64 {
        match self.flight {
            Some(flight) => flight.ends,
            None if self.go_on() && self.settled.is_none() => self.next,
            None => u64::MAX,
        }
    }

    /// Does what is due at `now`; gives the result of a check that ends.
    pub(super) fn step(&mut self, now: u64, is_steady: bool, is_healthy: impl FnOnce() -> bool) -> Option<bool> {
        if self.flight.is_none() {
            self.flight = Some(Flight { ends: now + self.takes, passes: is_healthy(), is_current: true });
        }
        let flight = self.flight.filter(|flight| flight.ends <= now)?;
        self.flight = None;
        self.next = flight.ends + self.inter;
        let extreme = if flight.passes { self.is_full() } else { self.health == 0 };
        self.settled = (is_steady && extreme && flight.is_current && self.go_on()).then_some(flight.passes);
        Some(flight.passes)
    }

    /// From `now` on checks may have other results: one by one again, from where they stand.
    pub(super) fn stir(&mut self, now: u64) {
        if let Some(passes) = self.settled.take()
            && self.next <= now
        {
            let begun = now - (now - self.next) % (self.inter + self.takes);
            if now < begun + self.takes {
                self.flight = Some(Flight { ends: begun + self.takes, passes, is_current: false });
            }
            self.next = begun + self.takes + self.inter;
        }
        if let Some(flight) = &mut self.flight {
            flight.is_current = false;
        }
    }

    /// While nothing is asked, HAProxy looks every `inter` whether it may again.
    fn skip(&mut self, now: u64) {
        if self.flight.is_none() && self.next < now {
            self.next += (now - self.next).div_ceil(self.inter) * self.inter;
        }
    }

    pub(super) fn is_under_way(&self, now: u64) -> bool {
        let settled = self.settled.is_some() && self.next <= now;
        self.flight.is_some() || settled && (now - self.next) % (self.inter + self.takes) < self.takes
    }

    /// Counts a result.
    pub(super) fn count(&mut self, passed: bool) {
        if passed {
            self.health = (self.health + 1).min(self.full());
            if self.is_risen() {
                self.fill();
            }
        } else {
            self.health = self.health.saturating_sub(1);
            if !self.is_risen() {
                self.empty();
            }
        }
    }

    pub(super) fn pause(&mut self) {
        self.is_paused |= self.is_enabled;
        self.empty();
    }

    pub(super) fn resume(&mut self, now: u64) {
        // Checks that are switched off stay paused, even if they are switched on later.
        if self.is_enabled {
            self.is_paused = false;
            // The next check decides, whatever `fall` says.
            self.health = self.rise;
        }
        self.skip(now);
    }

    pub(super) fn enable(&mut self, now: u64) {
        self.is_enabled = true;
        self.skip(now);
    }

    pub(super) fn disable(&mut self) {
        self.is_enabled = false;
    }

    pub(super) fn fill(&mut self) {
        self.health = self.full();
    }

    pub(super) fn empty(&mut self) {
        self.health = 0;
    }

    fn full(&self) -> u32 {
        self.rise + self.fall - 1
    }

    pub(super) fn health(&self) -> u32 {
        self.health
    }

    pub(super) fn is_full(&self) -> bool {
        self.health == self.full()
    }

    pub(super) fn is_risen(&self) -> bool {
        self.health >= self.rise
    }

    pub(super) fn is_configured(&self) -> bool {
        self.is_configured
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether the checks have a server that leaves maintenance down.
    pub(super) fn keeps_down(&self) -> bool {
        self.counts() && !self.is_risen()
    }

    /// `srv_check_state`, but whether a check is under way.
    pub(super) fn bits(&self) -> u32 {
        u32::from(self.is_configured) << 1 | u32::from(self.is_enabled) << 2 | u32::from(self.is_paused) << 3
    }

    /// The numbers of `UP 1/3`.
    pub(super) fn rise_and_fall(&self) -> (u32, u32) {
        (self.rise, self.fall)
    }
}

//! What happens to a run from outside: faults, and changes of the fleet, each at its time. A seed makes a schedule, and a schedule
//! alone, with its seed, makes a run; so what a failure needs is found by leaving entries out.

use crate::journal::{At, MILLI};
use crate::orders::{How, Whom};
use crate::random::Random;
use crate::settings::{CLIENTS, SERVERS, SLOTS};
use crate::world::seconds;

/// At so many milliseconds this begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64, pub(crate) What);

impl Entry {
    pub(crate) fn at(self) -> At {
        self.0 * MILLI
    }
}

/// Which one of several: a number that is taken modulo how many there are.
pub(crate) type Pick = u8;

pub(crate) const BESIDE_A_MISSING_GROUP: u8 = 80;
/// That group.
pub(crate) const BESIDE: usize = 1;
/// A pick that is everybody.
pub(crate) const ALL: Pick = 30;
/// The values of the tag `hsdo:weight`.
pub(crate) const TAGS: [Option<&str>; 6] = [None, Some("0"), Some("0.3"), Some("1"), Some("2.5"), Some("heavy")];

/// A change of the fleet, or a fault; `secs` is how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    // The fleet.
    Launch { group: u8, count: u8 },
    Terminate { pick: Pick },
    Unhealthy { pick: Pick, secs: u16 },
    StopsAnswering { pick: Pick, secs: u16 },
    Standby { pick: Pick, secs: u16 },
    Detach { pick: Pick },
    Refresh { group: u8 },
    RootVolume { pick: Pick },
    Spot { pick: Pick },
    ZoneLost { zone: u8 },
    GroupMissing { group: u8, secs: u16 },
    GroupReplaced { group: u8, secs: u16 },
    Moves { pick: Pick },
    // All that are ready, if the pick is below `ALL`.
    Tagged { pick: Pick, with: u8 },
    // So many are launched in one zone, as is whatever else is launched meanwhile.
    Uneven { zone: u8, count: u8, secs: u16 },
    // What AWS says.
    UnknownWord { pick: Pick, secs: u16 },
    LeftOut { pick: Pick, secs: u16 },
    Denied { pick: Pick, secs: u16 },
    // One that leaves out `BESIDE_A_MISSING_GROUP` percent does not know a group either.
    Bogus { percent: u8, secs: u16 },
    OldGroups { group: u8, lag_ms: u16, secs: u16 },
    OldInstances { lag_ms: u16, secs: u16 },
    MixedInstances { lag_ms: u16, secs: u16 },
    // Calls: of Auto Scaling, EC2, DynamoDB, and of the report table alone.
    Refuses { service: u8, percent: u8, secs: u16 },
    LosesAnswers { service: u8, percent: u8, secs: u16 },
    Slow { service: u8, millis: u16, secs: u16 },
    Hangs { service: u8, millis: u16, secs: u16 },
    // Auto Scaling and EC2 refuse one server alone.
    Sightless { server: u8, secs: u16 },
    // The table.
    Replicas { lags_ms: [u16; 3], secs: u16 },
    Torn { millis: u16, secs: u16 },
    TableEmptied,
    BackedUp,
    Restored,
    RowDeleted { pick: Pick },
    RowUnreadable { pick: Pick, secs: u16 },
    RowDisabled { pick: Pick, secs: u16 },
    RowCopied { pick: Pick, to: u8 },
    Original { secs: u16 },
    // From the beginning on: clients report, and hooks hold back those that are terminated.
    Reporting,
    // Half of those in service are announced.
    SpotWave { pick: Pick },
    Liar { secs: u16 },
    DeadBalancers { count: u8, secs: u16 },
    ReportsEmptied,
    ReportSpoiled { site: u8 },
    // Orders, each from a shell of its own.
    Ordered { whom: Whom, how: How, secs: u16 },
    // HAProxy.
    HaproxyRestarts { site: u8, down_ms: u16 },
    HaproxyReloads { site: u8, linger: u16 },
    HaproxyStops { site: u8, secs: u16 },
    SocketCrowded { site: u8, secs: u16 },
    SocketCut { site: u8, percent: u8, secs: u16 },
    Operator { site: u8, pick: Pick, drain: bool, secs: u16 },
    // Processes: servers first, then clients.
    Kill { process: u8, steps: u8, restart_ms: u16 },
    KillNow { process: u8, restart_ms: u16 },
    Stop { process: u8, restart_ms: u16 },
    Pause { process: u8, steps: u8, millis: u16 },
    Clock { process: u8, secs: i32 },
    Drift { process: u8, parts_per_million: i32 },
}

impl What {
    /// How long it goes on after it began.
    pub(crate) fn lasts(self) -> At {
        match self {
            What::Unhealthy { secs, .. }
            | What::StopsAnswering { secs, .. }
            | What::Standby { secs, .. }
            | What::GroupMissing { secs, .. }
            | What::GroupReplaced { secs, .. }
            | What::UnknownWord { secs, .. }
            | What::LeftOut { secs, .. }
            | What::Denied { secs, .. }
            | What::Bogus { secs, .. }
            | What::Refuses { secs, .. }
            | What::LosesAnswers { secs, .. }
            | What::Slow { secs, .. }
            | What::Hangs { secs, .. }
            | What::Sightless { secs, .. }
            | What::Torn { secs, .. }
            | What::Uneven { secs, .. }
            | What::Ordered { secs, .. }
            | What::Original { secs }
            | What::Liar { secs }
            | What::DeadBalancers { secs, .. }
            | What::RowUnreadable { secs, .. }
            | What::RowDisabled { secs, .. }
            | What::HaproxyReloads { linger: secs, .. }
            | What::HaproxyStops { secs, .. }
            | What::SocketCrowded { secs, .. }
            | What::SocketCut { secs, .. }
            | What::Operator { secs, .. } => seconds(secs),
            // Until what was seen late has passed.
            What::OldGroups { secs, lag_ms, .. }
            | What::OldInstances { secs, lag_ms }
            | What::MixedInstances { secs, lag_ms } => seconds(secs) + At::from(lag_ms) * MILLI,
            What::Replicas { secs, lags_ms } => {
                seconds(secs) + At::from(lags_ms.into_iter().max().unwrap_or(0)) * MILLI
            }
            What::HaproxyRestarts { down_ms, .. } => At::from(down_ms) * MILLI,
            _ => 0,
        }
    }

    /// How long something is wrong. While transactions become visible row by row, orders stand, instances are launched in one zone, or
    /// strangers report, everything has to be right; and while one server is refused what others see, once another one leads.
    pub(crate) fn disturbs(self) -> At {
        match self {
            What::Torn { .. } | What::Ordered { .. } | What::Uneven { .. } => 0,
            What::Liar { .. } | What::DeadBalancers { .. } | What::Sightless { .. } => 0,
            _ => self.lasts(),
        }
    }
}

/// The schedule of a seed: some entries close together, then a while in which everything must become right, over and over.
pub(crate) fn schedule(seed: u64, until: At) -> Vec<Entry> {
    let mut random = Random::stream(seed, "schedule", 0);
    let mut entries = Vec::new();
    if seed.is_multiple_of(2) {
        entries.push(Entry(0, What::Reporting));
    }
    let mut at = 120_000;
    while at * MILLI < until {
        let mut end = at;
        for _ in 0..=random.below(6) {
            let what = what(&mut random);
            // Every second order stands through what comes next.
            if !matches!(what, What::Ordered { .. }) || random.percent(50) {
                end = end.max(at + what.lasts() / MILLI);
            }
            entries.push(Entry(at, what));
            if matches!(what, What::Ordered { .. }) {
                entries.extend(beside_an_order(&mut random, at, what));
            }
            let pause = *random.pick(&[3_000, 30_000]);
            at += random.below(pause);
        }
        at = at.max(end) + 40_000 + random.below(600_000);
    }
    entries
}

/// What comes at the same time as an order: another one from another shell, or the loss of the row that keeps both.
fn beside_an_order(random: &mut Random, at: u64, order: What) -> Option<Entry> {
    let server = random.below(SERVERS as u64) as u8;
    let steps = random.below(12) as u8;
    let (close, later) = (at + random.below(60), at + random.below(4_000));
    if let What::Ordered { whom: Whom::Group(group), how, secs } = order
        && random.percent(50)
    {
        // Nobody is left without an order: the last resort serves.
        return Some(Entry(close, What::Ordered { whom: Whom::Group(1 - group), how, secs }));
    }
    match random.below(20) {
        0..=7 => Some(Entry(close, ordered(random))),
        8 | 9 => Some(Entry(later, What::RowDeleted { pick: 0 })),
        10 => Some(Entry(later, What::TableEmptied)),
        11 => Some(Entry(later, What::Restored)),
        12 => Some(Entry(close, What::Kill { process: server, steps, restart_ms: 1_000 })),
        13 => Some(Entry(close, What::Pause { process: server, steps, millis: *random.pick(&[1_000, 5_000, 15_000]) })),
        _ => None,
    }
}

fn ordered(random: &mut Random) -> What {
    let r = &mut *random;
    let pick = r.below(256) as u8;
    let whom = match r.below(10) {
        // The own zone of those that spill.
        0 | 1 => Whom::Zone(1),
        2 | 3 => Whom::Zone(r.below(3) as u8),
        4 => Whom::Group(r.below(2) as u8),
        5 | 6 => Whom::Slot(r.below(u64::from(SLOTS)) as u8),
        7 | 8 => Whom::Instance(pick),
        _ => Whom::Address(pick),
    };
    let how = *r.pick(&[How::Lapses, How::Lapses, How::Lifted, How::LiftedEarly]);
    What::Ordered { whom, how, secs: *r.pick(&[2, 20, 60, 300, 1_800]) }
}

fn what(random: &mut Random) -> What {
    let r = &mut *random;
    let pick = r.below(256) as u8;
    let group = r.below(2) as u8;
    let secs = *r.pick(&[2, 5, 10, 20, 25, 60, 300]);
    let percent = *r.pick(&[5, 20, 50, 100]);
    let service = r.below(4) as u8;
    let server = r.below(SERVERS as u64) as u8;
    let client = (SERVERS as u64 + r.below(CLIENTS as u64)) as u8;
    let process = if r.percent(50) { server } else { client };
    let site = r.below(CLIENTS as u64) as u8;
    let restart_ms = *r.pick(&[100, 1_000, 5_000, 20_000]);
    let most = *r.pick(&[8, 60]);
    let steps = r.below(most) as u8;
    let lag_ms = r.below(8_000) as u16;
    let minutes = if r.percent(3) { 3_600 + r.below(10_000) as u16 } else { secs };
    match r.below(92) {
        0..=5 => What::Launch { group, count: 1 + r.below(3) as u8 },
        6..=8 => What::Terminate { pick },
        9 | 10 => What::Unhealthy { pick, secs },
        11 => What::StopsAnswering { pick, secs },
        12 => What::Standby { pick, secs },
        13 => What::Detach { pick },
        14 => What::Refresh { group },
        15 => What::RootVolume { pick },
        16 => What::Spot { pick },
        17 => What::ZoneLost { zone: pick % 3 },
        18 => What::GroupMissing { group, secs },
        19 => What::UnknownWord { pick, secs },
        20 => What::LeftOut { pick, secs },
        21 => What::Denied { pick, secs: secs.min(10) },
        // Shorter than the guard.
        22 | 23 => What::Bogus { percent: *r.pick(&[60, BESIDE_A_MISSING_GROUP, 100]), secs: secs.min(20) },
        24 => What::OldGroups { group, lag_ms, secs },
        25 => What::OldInstances { lag_ms, secs },
        26 | 27 => What::Refuses { service, percent, secs: minutes },
        28 | 29 => What::LosesAnswers { service, percent: percent.min(50), secs },
        30 | 31 => What::Slow { service, millis: *r.pick(&[50, 500, 2_000]), secs },
        32 => What::Hangs { service, millis: *r.pick(&[1_000, 4_500]), secs },
        33 | 34 => What::Replicas { lags_ms: [0, r.below(500) as u16, lag_ms], secs },
        35 | 36 => What::Torn { millis: r.below(900) as u16 + 1, secs: secs.max(60) },
        37 => What::TableEmptied,
        38 => What::BackedUp,
        39 => What::Restored,
        40 => What::RowDeleted { pick },
        41 => What::RowUnreadable { pick, secs: secs.max(10) },
        42 => What::RowDisabled { pick, secs: secs.max(10) },
        43 => What::RowCopied { pick, to: r.below(u64::from(SLOTS)) as u8 },
        44 => What::Original { secs },
        45 | 46 => What::HaproxyRestarts { site, down_ms: *r.pick(&[20, 100, 3_000]) },
        47 => What::SocketCut { site, percent: percent.min(50), secs },
        48 => What::Operator { site, pick, drain: r.percent(50), secs },
        49..=52 => What::Kill { process, steps, restart_ms },
        53 => What::KillNow { process, restart_ms },
        54 => What::Stop { process, restart_ms },
        55..=59 => What::Pause { process, steps, millis: *r.pick(&[200, 1_000, 5_000, 15_000, 60_000]) },
        60 | 61 => What::Clock { process, secs: *r.pick(&[-7_200, -60, -1, 1, 60, 7_200]) },
        62 => What::Drift { process, parts_per_million: *r.pick(&[-500, 0, 500]) },
        63 => What::GroupReplaced { group, secs },
        64 | 65 => What::Moves { pick },
        66 => What::MixedInstances { lag_ms, secs },
        67 | 68 => What::HaproxyReloads { site, linger: secs },
        69 | 70 => What::HaproxyStops { site, secs: secs.min(60) },
        71 => What::SocketCrowded { site, secs: secs.min(60) },
        72 | 73 => What::Uneven { zone: pick % 3, count: 1 + r.below(4) as u8, secs: *r.pick(&[60, 1_800]) },
        83 => What::SpotWave { pick },
        84 => What::Liar { secs: *r.pick(&[20, 300, 1_800]) },
        85 => What::DeadBalancers { count: 1 + r.below(100) as u8, secs },
        86 => What::ReportsEmptied,
        87 => What::ReportSpoiled { site },
        88 | 89 => What::Terminate { pick },
        90 | 91 => What::Sightless { server, secs: *r.pick(&[10, 25, 60, 300, 1_800]) },
        80..=82 => What::Tagged { pick, with: r.below(TAGS.len() as u64) as u8 },
        _ => ordered(r),
    }
}

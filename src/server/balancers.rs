//! The load balancers as their reports show them: which are there, and how far behind they are. Pure.
//!
//! No clocks of two machines are compared. A report counts from the moment that it, or a change of its `Seen`, was first read.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::balancer::{BalancerItems, BalancerReport};
use crate::ports::{BalancerState, BalancerView};

/// After this long without a change of its `Seen`, a load balancer counts as gone: a client that runs changes it every 10 s.
const SILENT: Duration = Duration::from_secs(30);
/// How long a version may be new before a load balancer that has not carried it out counts as behind.
const BEHIND: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Balancers {
    known: BTreeMap<String, Known>,
    /// The versions of the table, and since when each is known; the first one is older than [`BEHIND`], if any is.
    versions: VecDeque<(u64, Instant)>,
}

#[derive(Debug)]
struct Known {
    seen: u64,
    /// When that was first read, or, of an item that is gone, when it was first missing.
    changed: Instant,
    report: BalancerReport,
    /// Its item is gone: its client has stopped, which HAProxy need not have. Nobody is shown, but it counts for as long as a silent one.
    is_gone: bool,
}

impl Balancers {
    /// Takes in a whole reading that ended at `now`.
    pub(super) fn learn(&mut self, reading: BalancerItems, now: Instant) {
        let mut before = std::mem::take(&mut self.known);
        for item in reading.items {
            let same = before.remove(&item.name).filter(|known| known.seen == item.seen);
            let changed = same.map_or(now, |known| known.changed);
            self.known.insert(item.name, Known { seen: item.seen, changed, report: item.report, is_gone: false });
        }
        let left = before.into_iter().filter(|(name, known)| !known.is_silent(now) && !self.known.contains_key(name));
        // From now on: between two readings it may have been there until a moment ago.
        let gone =
            |known: Known| Known { is_gone: true, changed: if known.is_gone { known.changed } else { now }, ..known };
        let left: Vec<(String, Known)> = left.map(|(name, known)| (name, gone(known))).collect();
        self.known.extend(left);
    }

    /// The table has this version at `now`.
    pub(super) fn note_version(&mut self, version: Option<u64>, now: Instant) {
        if let Some(version) = version.filter(|version| self.versions.back().is_none_or(|(last, _)| last != version)) {
            self.versions.push_back((version, now));
        }
        while self.versions.get(1).is_some_and(|(_, since)| now.saturating_duration_since(*since) >= BEHIND) {
            self.versions.pop_front();
        }
    }

    /// Those that count: seen within the last 30 s.
    pub(super) fn live(&self, now: Instant) -> BTreeMap<&str, &BalancerReport> {
        let live = self.known.iter().filter(|(_, known)| !known.is_silent(now));
        live.map(|(name, known)| (name.as_str(), &known.report)).collect()
    }

    /// All of them, as they are shown.
    pub(super) fn views(&self, now: Instant) -> Vec<BalancerView> {
        let wanted =
            self.versions.front().filter(|(_, since)| now.saturating_duration_since(*since) >= BEHIND).map(|one| one.0);
        let view = |(name, known): (&String, &Known)| BalancerView {
            name: name.clone(),
            state: match wanted {
                _ if known.is_silent(now) => BalancerState::Silent,
                Some(wanted) if known.report.version.is_none_or(|version| version < wanted) => BalancerState::Behind,
                _ => BalancerState::Current,
            },
            seen: known.seen,
            report: known.report.clone(),
        };
        self.known.iter().filter(|(_, known)| !known.is_gone).map(view).collect()
    }
}

impl Known {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.changed) >= SILENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::BalancerItem;

    fn items(items: &[(&str, u64, u64)]) -> BalancerItems {
        let item = |(name, seen, version): &(&str, u64, u64)| BalancerItem {
            name: (*name).to_owned(),
            seen: *seen,
            report: BalancerReport { version: Some(*version), ..BalancerReport::default() },
        };
        BalancerItems { items: items.iter().map(item).collect(), unreadable: vec![] }
    }

    #[test]
    fn a_balancer_counts_while_its_word_changes() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut balancers = Balancers::default();
        let live = |balancers: &Balancers, now| balancers.live(now).into_keys().map(str::to_owned).collect::<Vec<_>>();
        // Found as a leader begins: it may be dead for days, which costs 30 s.
        balancers.learn(items(&[("a", 7, 1), ("b", 900, 1)]), after(0));
        assert_eq!(live(&balancers, after(29)), ["a", "b"]);
        // Its clock went back: that is a change all the same.
        balancers.learn(items(&[("a", 3, 1), ("b", 900, 1)]), after(29));
        assert_eq!(live(&balancers, after(30)), ["a"]);
        assert_eq!(live(&balancers, after(59)), [""; 0]);
        balancers.learn(items(&[("b", 901, 1)]), after(60));
        assert_eq!(live(&balancers, after(60)), ["b"], "back after a pause");
        // Its client stops, and takes the item with it: HAProxy may serve on.
        balancers.learn(items(&[]), after(70));
        balancers.learn(items(&[]), after(91));
        assert_eq!((live(&balancers, after(99)), balancers.views(after(99)).len()), (vec!["b".to_owned()], 0));
        assert_eq!(live(&balancers, after(100)), [""; 0]);
        balancers.learn(items(&[]), after(101));
        assert!(balancers.known.is_empty());
        // One that was silent before counts no more for being removed.
        balancers.learn(items(&[("c", 1, 1)]), after(110));
        balancers.learn(items(&[]), after(140));
        assert_eq!(live(&balancers, after(140)), [""; 0]);
    }

    #[test]
    fn who_is_behind() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut balancers = Balancers::default();
        let states = |balancers: &Balancers, now| {
            balancers.views(now).into_iter().map(|view| view.state.word()).collect::<Vec<_>>().join(" ")
        };
        for second in 0..=20 {
            balancers.note_version(Some(100 + second), after(second));
        }
        balancers.learn(items(&[("a", 1, 110), ("b", 1, 109), ("c", 1, 130)]), after(20));
        assert_eq!(states(&balancers, after(20)), "current behind current");
        assert_eq!(states(&balancers, after(50)), "silent silent silent");
        balancers.learn(items(&[("a", 2, 119)]), after(51));
        balancers.note_version(Some(120), after(51));
        assert_eq!(states(&balancers, after(51)), "behind", "120 is known for long");
        balancers.learn(BalancerItems { items: vec![], ..BalancerItems::default() }, after(52));
        assert_eq!(states(&balancers, after(52)), "");
    }
}

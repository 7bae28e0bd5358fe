//! What differs between versions of HAProxy, as data. Measured; the differential test holds each to its version.

/// A version, as far as it differs from others.
#[derive(Debug)]
pub(crate) struct Version {
    /// As `show info` tells it.
    pub(crate) name: &'static str,
    /// Whether `show info` has `Start_time_sec`.
    pub(crate) tells_start: bool,
    /// Whether `show stat` has the weight that was set: without it no turn can tell that nothing changed.
    pub(crate) stat_tells_weight: bool,
    /// Whether the time for which it was stopped by a signal counts as uptime.
    pub(crate) counts_stops: bool,
    /// How many commands it still does of a line whose sender is gone, at least; all of them where there is none. It may be more.
    pub(crate) done_of_orphan: Option<usize>,
    /// Whether a new address holds only a moment after the reply, and replies are worded that way.
    pub(crate) late_address: bool,
    /// Whether `enable health` does something to a server without a check: it shows as `UP 1/3`, though no check runs.
    pub(crate) enables_no_check: bool,
    /// Whether the first server of a template that begins in rotation needs `rise` checks as if it were down, though it serves
    /// before: `UP -1/3`.
    pub(crate) starts_empty: bool,
}

static VERSIONS: [Version; 6] = [
    Version {
        name: "2.2.9",
        tells_start: false,
        stat_tells_weight: false,
        counts_stops: false,
        done_of_orphan: None,
        late_address: false,
        enables_no_check: true,
        starts_empty: false,
    },
    Version {
        name: "2.6.12",
        tells_start: true,
        stat_tells_weight: true,
        counts_stops: false,
        done_of_orphan: Some(3),
        late_address: false,
        enables_no_check: false,
        starts_empty: false,
    },
    Version {
        name: "2.8.25",
        tells_start: true,
        stat_tells_weight: true,
        counts_stops: false,
        done_of_orphan: Some(2),
        late_address: false,
        enables_no_check: false,
        starts_empty: false,
    },
    Version {
        name: "3.0.11",
        tells_start: true,
        stat_tells_weight: true,
        counts_stops: false,
        done_of_orphan: Some(2),
        late_address: true,
        enables_no_check: false,
        starts_empty: false,
    },
    Version {
        name: "3.2.26",
        tells_start: true,
        stat_tells_weight: true,
        counts_stops: true,
        done_of_orphan: None,
        late_address: true,
        enables_no_check: false,
        starts_empty: false,
    },
    Version {
        name: "3.4.7",
        tells_start: true,
        stat_tells_weight: true,
        counts_stops: true,
        done_of_orphan: None,
        late_address: true,
        enables_no_check: false,
        starts_empty: true,
    },
];

impl Version {
    /// From the oldest on.
    pub(crate) fn all() -> &'static [Version] {
        &VERSIONS
    }

    /// The latest of them that is not after this one, such as "2.6.12-1+deb12u4"; the first for one before all.
    pub(crate) fn of(text: &str) -> &'static Version {
        let wanted = numbers(text);
        VERSIONS.iter().rev().find(|version| numbers(version.name) <= wanted).unwrap_or(&VERSIONS[0])
    }
}

/// The first two numbers of a version.
fn numbers(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

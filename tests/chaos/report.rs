//! What happened: counts, sizes over time, and a journal that is printed when something is wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How much of the journal a failure prints.
const SHOWN: usize = 80;
/// No process of hsdo may ever need more, in KiB: the largest answer that it reads is 32 MiB.
const MOST_MEMORY: u64 = 160 * 1024;
/// How much a process may be larger than when it began, and at the end than when a quarter was over, in KiB.
const GROWTH: u64 = 6 * 1024;
/// How many descriptors more.
const MORE_FILES: u64 = 12;
/// The turns of a process in a second, ten by its interval, and what a HAProxy that comes back asks for.
const TURNS_A_SECOND: f64 = 14.0;
/// The share of a CPU that a process may take over the whole run, faults such as endless replies included.
const CPU: f64 = 0.25;
/// Lines of log in a round: some for each fault that begins, changes and ends, and for each change of a server.
const LINES: u64 = 250;

/// The state of a process at the end of a round, and what it did since the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// KiB.
    pub(crate) memory: u64,
    /// How much of that it has more than at its first sample.
    pub(crate) grown: u64,
    pub(crate) files: u64,
    /// Seconds.
    pub(crate) cpu: f64,
    pub(crate) turns: f64,
    pub(crate) lines: u64,
    pub(crate) panics: u64,
    pub(crate) span: Duration,
}

/// The samples of one process after another under one name.
#[derive(Debug, Default)]
struct Track {
    samples: Vec<Sample>,
}

impl Track {
    fn at(&self, part: usize) -> &Sample {
        &self.samples[(self.samples.len() - 1) * part / 4]
    }

    /// The median of a quarter, which one large answer at the wrong moment does not move.
    fn median(&self, quarter: usize, of: impl Fn(&Sample) -> u64) -> u64 {
        let length = self.samples.len();
        let mut values: Vec<u64> =
            self.samples[length * quarter / 4..length * (quarter + 1) / 4].iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    }
}

/// Everything that is told at the end.
pub(crate) struct Report {
    seed: u64,
    start: Instant,
    journal: Vec<String>,
    counts: BTreeMap<String, u64>,
    tracks: BTreeMap<&'static str, Track>,
    failures: BTreeMap<String, u64>,
    pub(crate) answered: u64,
    pub(crate) looks: u64,
    pub(crate) turns: f64,
    rounds: Vec<Duration>,
    settled: Vec<Duration>,
    finished: bool,
    minutes_told: u64,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Report {
            seed,
            start: Instant::now(),
            journal: Vec::new(),
            counts: BTreeMap::new(),
            tracks: BTreeMap::new(),
            failures: BTreeMap::new(),
            answered: 0,
            looks: 0,
            turns: 0.0,
            rounds: Vec::new(),
            settled: Vec::new(),
            finished: false,
            minutes_told: 0,
        }
    }

    /// Notes in the journal what was done.
    pub(crate) fn say(&mut self, text: &str) {
        self.journal.push(format!("{:9.3} {text}", self.start.elapsed().as_secs_f64()));
        if self.journal.len() > 4 * SHOWN {
            self.journal.drain(..2 * SHOWN);
        }
    }

    pub(crate) fn count(&mut self, what: &str, times: u64) {
        *self.counts.entry(what.to_owned()).or_default() += times;
    }

    /// A request failed for a reason that an outage explains.
    pub(crate) fn excused(&mut self, why: &str) {
        *self.failures.entry(why.to_owned()).or_default() += 1;
    }

    /// A round is over. A long run says once a minute how far it is.
    pub(crate) fn round(&mut self, took: Duration, settled: Duration) {
        self.rounds.push(took);
        self.settled.push(settled);
        let minutes = self.start.elapsed().as_secs() / 60;
        if minutes > self.minutes_told {
            self.minutes_told = minutes;
            println!("{minutes} minutes, {} rounds, {} requests", self.rounds.len(), self.answered);
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// Takes in a measurement, and what is wrong with it.
    pub(crate) fn sample(&mut self, name: &'static str, sample: Sample) -> Option<String> {
        self.tracks.entry(name).or_default().samples.push(sample);
        let seconds = sample.span.as_secs_f64();
        if sample.memory > MOST_MEMORY {
            return Some(format!("the {name} has {} KiB", sample.memory));
        }
        if sample.grown > GROWTH {
            return Some(format!("the {name} has grown by {} KiB, to {} KiB", sample.grown, sample.memory));
        }
        // A few more, since the two ends of the span are not those of a turn.
        if sample.turns > TURNS_A_SECOND * seconds + 8.0 {
            return Some(format!("the {name} made {} turns in {seconds:.1} s", sample.turns));
        }
        if sample.lines > LINES + 10 * seconds as u64 {
            return Some(format!("the {name} logged {} lines in {seconds:.1} s", sample.lines));
        }
        (sample.panics > 0).then(|| format!("the {name} panicked"))
    }

    /// Prints the end, and says what is wrong with it.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        self.finished = true;
        let mut faults = Vec::new();
        let seconds = self.start.elapsed().as_secs_f64();
        println!(
            "{} rounds in {seconds:.0} s, {} turns, {} looks at HAProxy",
            self.rounds.len(),
            self.turns,
            self.looks
        );
        for (name, spans) in [("a round", &self.rounds), ("from the end of its faults to right", &self.settled)] {
            let mean = |part: &[Duration]| part.iter().sum::<Duration>().as_secs_f64() / part.len().max(1) as f64;
            let (early, late) = spans.split_at(spans.len() / 2);
            let longest = spans.iter().max().copied().unwrap_or_default();
            println!("{name}: {:.1} s, in the second half {:.1} s, at most {longest:.1?}", mean(early), mean(late));
        }
        let failed: u64 = self.failures.values().sum();
        println!(
            "{} requests answered, {failed} failed while HAProxy was away or empty: {:?}",
            self.answered, self.failures
        );
        for (what, count) in &self.counts {
            println!("{count:7} {what}");
        }
        for (name, track) in &self.tracks {
            let [memory, files]: [Vec<u64>; 2] = [|s: &Sample| s.memory, |s: &Sample| s.files]
                .map(|of| (0..=4).map(|part| of(track.at(part))).collect());
            let most = track.samples.iter().map(|sample| sample.memory).max().unwrap_or(0);
            let cpu: f64 = track.samples.iter().map(|sample| sample.cpu).sum();
            let span: f64 = track.samples.iter().map(|sample| sample.span.as_secs_f64()).sum();
            let lines: u64 = track.samples.iter().map(|sample| sample.lines).sum();
            let medians: Vec<u64> = (0..4).map(|quarter| track.median(quarter, |s| s.memory)).collect();
            println!(
                "{name}: KiB resident {memory:?} (first, quarters, end; at most {most}; medians {medians:?}), \
                 descriptors {files:?}, {:.1} % of a CPU, {lines} lines of log",
                100.0 * cpu / span
            );
            if cpu / span > CPU {
                faults.push(format!("the {name} spins: {cpu:.0} s of CPU time in {span:.0} s"));
            }
            if track.samples.len() >= 20 {
                let files: Vec<u64> = (0..4).map(|quarter| track.median(quarter, |s| s.files)).collect();
                if medians[3] > medians[1] + GROWTH {
                    faults.push(format!("the {name} grows: {medians:?} KiB"));
                }
                if files[3] > files[1] + MORE_FILES {
                    faults.push(format!("the {name} keeps descriptors: {files:?}"));
                }
            }
        }
        println!("violations: {}", faults.len());
        faults
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.finished {
            eprintln!("--- HSDO_CHAOS_SEED={}, round {}; what was done:", self.seed, self.rounds.len() + 1);
            for line in &self.journal[self.journal.len().saturating_sub(SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}

#[test]
fn who_grows_spins_or_floods_its_log_is_told() {
    let well = Sample {
        memory: 5_000,
        grown: 100,
        files: 10,
        cpu: 0.1,
        turns: 30.0,
        lines: 20,
        panics: 0,
        span: Duration::from_secs(3),
    };
    for (sample, fault) in [
        (well, ""),
        (Sample { memory: 200_000, ..well }, "has 200000 KiB"),
        (Sample { grown: 10_000, ..well }, "has grown by 10000 KiB"),
        (Sample { turns: 100.0, ..well }, "made 100 turns"),
        (Sample { lines: 1_000, ..well }, "logged 1000 lines"),
        (Sample { panics: 1, ..well }, "panicked"),
    ] {
        let told = Report::new(1).sample("client", sample);
        assert!(told.is_some() != fault.is_empty(), "{fault}: {told:?}");
        assert!(told.unwrap_or_default().contains(fault), "{fault}");
    }
    type Of = fn(u64) -> (u64, u64, f64);
    let tracks: [(Of, &str); 4] = [
        (|_| (5_000, 10, 0.1), ""),
        (|round| (5_000 + 200 * round, 10, 0.1), "grows"),
        (|round| (5_000, 10 + round, 0.1), "keeps descriptors"),
        (|_| (5_000, 10, 2.0), "spins"),
    ];
    for (of, fault) in tracks {
        let mut report = Report::new(1);
        for round in 0..100 {
            let (memory, files, cpu) = of(round);
            assert_eq!(report.sample("client", Sample { memory, files, cpu, ..well }), None);
        }
        let faults = report.finish();
        assert_eq!(faults.len(), usize::from(!fault.is_empty()), "{fault}: {faults:?}");
        assert!(faults.iter().all(|told| told.contains(fault)), "{fault}: {faults:?}");
    }
}

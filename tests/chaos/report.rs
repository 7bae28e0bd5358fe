//! Counts, sizes over time, and a journal that is printed on failure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Journal lines that a failure prints.
const JOURNAL_LINES: usize = 80;
/// Memory limit of any hsdo process, in KiB: the largest response it reads is 32 MiB.
const MAX_MEMORY: u64 = 160 * 1024;
/// Growth limit in KiB, since the start, and between the medians of the second and the last quarter.
const MAX_MEMORY_GROWTH: u64 = 6 * 1024;
/// Growth limit of file descriptors.
const MAX_FILE_GROWTH: u64 = 12;
/// Turns per second: ten by its interval, plus those that a returning HAProxy triggers.
const MAX_TURNS_PER_SECOND: f64 = 14.0;
/// CPU share over the whole run, endless replies included.
const CPU: f64 = 0.25;
/// Log lines per round: a few per fault and per change of a server.
const MAX_LINES: u64 = 250;

/// A process at the end of a round, and what it did since the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// KiB.
    pub(crate) memory: u64,
    /// Growth since its first sample.
    pub(crate) grown: u64,
    pub(crate) files: u64,
    pub(crate) cpu: f64,
    pub(crate) turns: f64,
    pub(crate) lines: u64,
    pub(crate) panics: u64,
    pub(crate) span: Duration,
}

/// The samples of successive processes of one name.
#[derive(Debug, Default)]
struct Track {
    samples: Vec<Sample>,
}

impl Track {
    fn at(&self, part: usize) -> &Sample {
        &self.samples[(self.samples.len() - 1) * part / 4]
    }

    fn cpu(&self) -> f64 {
        let sum = |of: fn(&Sample) -> f64| self.samples.iter().map(of).sum::<f64>();
        sum(|sample| sample.cpu) / sum(|sample| sample.span.as_secs_f64())
    }

    /// The median of a quarter, so that one large response does not move it.
    fn median(&self, quarter: usize, of: impl Fn(&Sample) -> u64) -> u64 {
        let length = self.samples.len();
        let mut values: Vec<u64> =
            self.samples[length * quarter / 4..length * (quarter + 1) / 4].iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    }
}

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
    minutes_printed: u64,
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
            minutes_printed: 0,
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.journal.push(format!("{:9.3} {text}", self.start.elapsed().as_secs_f64()));
        if self.journal.len() > 4 * JOURNAL_LINES {
            self.journal.drain(..2 * JOURNAL_LINES);
        }
    }

    pub(crate) fn count(&mut self, what: &str, times: u64) {
        *self.counts.entry(what.to_owned()).or_default() += times;
    }

    /// A request failed during an outage that explains it.
    pub(crate) fn excused(&mut self, why: &str) {
        *self.failures.entry(why.to_owned()).or_default() += 1;
    }

    /// Ends a round. A long run prints its progress once a minute.
    pub(crate) fn round(&mut self, took: Duration, settled: Duration) {
        self.rounds.push(took);
        self.settled.push(settled);
        let minutes = self.start.elapsed().as_secs() / 60;
        if minutes > self.minutes_printed {
            self.minutes_printed = minutes;
            println!("{minutes} minutes, {} rounds, {} requests", self.rounds.len(), self.answered);
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// Adds a sample, and returns what is wrong with it.
    pub(crate) fn sample(&mut self, name: &'static str, sample: Sample) -> Option<String> {
        self.tracks.entry(name).or_default().samples.push(sample);
        let seconds = sample.span.as_secs_f64();
        if sample.memory > MAX_MEMORY {
            return Some(format!("the {name} uses {} KiB", sample.memory));
        }
        if sample.grown > MAX_MEMORY_GROWTH {
            return Some(format!("the {name} has grown by {} KiB, to {} KiB", sample.grown, sample.memory));
        }
        // Some slack: a span does not begin and end with a turn.
        if sample.turns > MAX_TURNS_PER_SECOND * seconds + 8.0 {
            return Some(format!("the {name} made {} turns in {seconds:.1} s", sample.turns));
        }
        if sample.lines > MAX_LINES + 10 * seconds as u64 {
            return Some(format!("the {name} logged {} lines in {seconds:.1} s", sample.lines));
        }
        (sample.panics > 0).then(|| format!("the {name} panicked"))
    }

    /// What is wrong with the run as a whole.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, track) in &self.tracks {
            let cpu = track.cpu();
            if cpu > CPU {
                faults.push(format!("the {name} spins: {:.0} % of a CPU", 100.0 * cpu));
            }
            if track.samples.len() >= 20 {
                let medians = |of: fn(&Sample) -> u64| (0..4).map(|quarter| track.median(quarter, of)).collect();
                let (memory, files): (Vec<u64>, Vec<u64>) = (medians(|s| s.memory), medians(|s| s.files));
                if memory[3] > memory[1] + MAX_MEMORY_GROWTH {
                    faults.push(format!("the {name} grows: {memory:?} KiB"));
                }
                if files[3] > files[1] + MAX_FILE_GROWTH {
                    faults.push(format!("the {name} leaks descriptors: {files:?}"));
                }
            }
        }
        faults
    }

    /// Prints the totals, and returns what is wrong.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        self.finished = true;
        let seconds = self.start.elapsed().as_secs_f64();
        println!(
            "{} rounds in {seconds:.0} s, {} turns, {} rotation checks",
            self.rounds.len(),
            self.turns,
            self.looks
        );
        for (name, spans) in
            [("a round", &self.rounds), ("from the end of the faults to everything right", &self.settled)]
        {
            let mean = |part: &[Duration]| part.iter().sum::<Duration>().as_secs_f64() / part.len().max(1) as f64;
            let (early, late) = spans.split_at(spans.len() / 2);
            let longest = spans.iter().max().copied().unwrap_or_default();
            println!("{name}: {:.1} s, in the second half {:.1} s, at most {longest:.1?}", mean(early), mean(late));
        }
        let failed: u64 = self.failures.values().sum();
        println!(
            "{} requests answered, {failed} failed while HAProxy was away or not yet filled: {:?}",
            self.answered, self.failures
        );
        for (what, count) in &self.counts {
            println!("{count:7} {what}");
        }
        for (name, track) in &self.tracks {
            let [memory, files]: [Vec<u64>; 2] = [|s: &Sample| s.memory, |s: &Sample| s.files]
                .map(|of| (0..=4).map(|part| of(track.at(part))).collect());
            let most = track.samples.iter().map(|sample| sample.memory).max().unwrap_or(0);
            let lines: u64 = track.samples.iter().map(|sample| sample.lines).sum();
            let medians: Vec<u64> = (0..4).map(|quarter| track.median(quarter, |s| s.memory)).collect();
            println!(
                "{name}: KiB resident {memory:?} (first, quarters, end; at most {most}; medians {medians:?}), \
                 descriptors {files:?}, {:.1} % of a CPU, {lines} log lines",
                100.0 * track.cpu()
            );
        }
        let faults = self.faults();
        println!("violations: {}", faults.len());
        faults
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.finished {
            eprintln!("--- HSDO_CHAOS_SEED={}, round {}; the journal:", self.seed, self.rounds.len() + 1);
            for line in &self.journal[self.journal.len().saturating_sub(JOURNAL_LINES)..] {
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
        (Sample { memory: 200_000, ..well }, "uses 200000 KiB"),
        (Sample { grown: 10_000, ..well }, "has grown by 10000 KiB"),
        (Sample { turns: 100.0, ..well }, "made 100 turns"),
        (Sample { lines: 1_000, ..well }, "logged 1000 lines"),
        (Sample { panics: 1, ..well }, "panicked"),
    ] {
        let found = Report::new(1).sample("client", sample);
        assert!(found.is_some() != fault.is_empty(), "{fault}: {found:?}");
        assert!(found.unwrap_or_default().contains(fault), "{fault}");
    }
    type Of = fn(u64) -> (u64, u64, f64);
    let tracks: [(Of, &str); 4] = [
        (|_| (5_000, 10, 0.1), ""),
        (|round| (5_000 + 200 * round, 10, 0.1), "grows"),
        (|round| (5_000, 10 + round, 0.1), "leaks descriptors"),
        (|_| (5_000, 10, 2.0), "spins"),
    ];
    for (of, fault) in tracks {
        let mut report = Report::new(1);
        for round in 0..100 {
            let (memory, files, cpu) = of(round);
            assert_eq!(report.sample("client", Sample { memory, files, cpu, ..well }), None);
        }
        let faults = report.faults();
        assert_eq!(faults.len(), usize::from(!fault.is_empty()), "{fault}: {faults:?}");
        assert!(faults.iter().all(|found| found.contains(fault)), "{fault}: {faults:?}");
    }
}

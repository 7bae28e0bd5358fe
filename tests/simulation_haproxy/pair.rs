//! The real HAProxy and the model, side by side.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hsdo::haproxy::Runtime;
use hsdo::haproxy::socket::{Socket, SocketLimits};
use hsdo::ports::{Change, Command, Haproxy as _, Reading, Verdict};
use hsdo::settings::HaproxySocket;

use crate::common::bed::Bed;
use crate::common::haproxy::Haproxy;
use crate::common::port::Port;
use crate::common::wait::try_wait_for;
use crate::machines::{Asked, Machines};
use crate::model::{BackendConfig, Session, SimHaproxy, Version};
use crate::script::{Act, Place, Step};
use crate::shape::Shape;
use crate::table::{self, Shown};

/// How long the real one may take to show what the model does.
const PATIENCE: Duration = Duration::from_secs(5);

/// What checks take to settle: the longest `rise` and `fall` at the shortest interval, and some more.
const SETTLE: Duration = Duration::from_millis(90);

pub(crate) struct Pair {
    seed: u64,
    names: Vec<String>,
    is_fast: bool,
    machines: Rc<Machines>,
    real: Haproxy,
    runtime: Runtime,
    model: SimHaproxy,
    session: Session,
    version: &'static Version,
    now: Instant,
    told: Vec<String>,
    looks: u64,
    _bed: Bed,
}

impl Pair {
    pub(crate) fn start(seed: u64, shape: &Shape) -> Self {
        let bed = Bed::new("model");
        let machines = Machines::start();
        let names: Vec<String> = shape.backends.iter().map(|(config, _)| config.name.clone()).collect();
        let ports: BTreeMap<String, Port> = names.iter().map(|name| (name.clone(), Port::reserve())).collect();
        let text = shape.text(&bed.socket(), &ports);
        let real = Haproxy::start_with_config(&bed, &text, ports, &["-W", "-db"]);
        let info = real.command("show info");
        let version = info.lines().find_map(|line| line.strip_prefix("Version: ")).expect("a version");
        let version = Version::of(version);
        let now = Instant::now();
        let configs: Vec<BackendConfig> = shape.backends.iter().map(|(config, _)| config.clone()).collect();
        let model = SimHaproxy::new(version, configs, Asked(Rc::clone(&machines)), now);
        let socket = Socket::new(HaproxySocket::Path(bed.socket()), SocketLimits::default());
        let mut pair = Pair {
            seed,
            names,
            is_fast: shape.is_fast,
            machines,
            real,
            runtime: Runtime::new(socket),
            session: model.session(),
            model,
            version,
            now,
            told: vec![format!("{version:?}"), text],
            looks: 0,
            _bed: bed,
        };
        pair.agree();
        pair.look();
        pair
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.told.push(step.to_string());
        match step {
            Step::Hsdo(orders) => {
                let steps = self.commands(orders);
                let (mut real, mut model) = (Vec::new(), Vec::new());
                let sent = self.runtime.send(&steps, &mut |command, verdict| real.push((command.clone(), verdict)));
                self.check("hsdo sends", &sent, &Ok(()));
                let sent = self.session.send(&steps, &mut |command, verdict| model.push((command.clone(), verdict)));
                self.check("the model takes", &sent, &Ok(()));
                self.check::<Vec<(Command, Verdict)>>("verdicts", &real, &model);
            }
            Step::Orphan(orders) => self.cut(orders, false),
            Step::Stopped(orders) => self.cut(orders, true),
            Step::Operator(line) => {
                let real = self.real.command(line);
                let model = self.model.operate(line).expect("it answers");
                self.check("replies", &real.trim_end(), &model.trim_end());
            }
            Step::Machine(number, is_up) => {
                // Nothing is under way in the model: it is advanced until all is settled.
                self.machines.set(*number, *is_up);
            }
            Step::Restart => {
                self.real.kill();
                self.real.restart();
                self.model.restart(self.now);
            }
            Step::Reload => {
                self.real.reload();
                self.model.reload(self.now, Duration::from_secs(1));
            }
        }
        self.agree();
        self.looks += 1;
        if self.looks.is_multiple_of(3) || matches!(step, Step::Restart | Step::Reload) {
            self.look();
        }
    }

    fn commands(&self, orders: &[(usize, u32, Vec<Act>)]) -> Vec<Vec<Command>> {
        let change = |act: &Act| match act {
            Act::Is(change) => *change,
            Act::To(Place::Other(ip, port)) => Change::Address(*ip, Some(*port)),
            Act::To(Place::Machine(number)) => {
                let address = self.machines.address(*number);
                Change::Address(address.ip(), Some(address.port()))
            }
        };
        let command = |backend: usize, slot: u32, act: &Act| {
            Command::new(&self.names[backend], &format!("web{slot}"), change(act)).expect("names of ours")
        };
        let step = |(backend, slot, acts): &(usize, u32, Vec<Act>)| {
            acts.iter().map(|act| command(*backend, *slot, act)).collect()
        };
        orders.iter().map(step).collect()
    }

    /// Sends a line and is gone; the real one did its first commands, the model is told how many.
    fn cut(&mut self, orders: &[(usize, u32, Vec<Act>)], is_stopped: bool) {
        let steps = self.commands(orders);
        let commands: Vec<&Command> = steps.iter().flatten().collect();
        let line = commands.iter().map(ToString::to_string).collect::<Vec<_>>().join(";");
        let frozen = is_stopped.then(|| self.real.freeze());
        let mut stream = UnixStream::connect(self.real.socket()).expect("HAProxy listens");
        stream.write_all(format!("{line}\n").as_bytes()).expect("HAProxy's queue has room");
        let _ = stream.shutdown(Shutdown::Both);
        drop(stream);
        drop(frozen);
        let forks: Vec<SimHaproxy> = (0..=commands.len()).map(|_| self.model.fork()).collect();
        for (count, fork) in forks.iter().enumerate() {
            for command in &commands[..count] {
                fork.operate(&command.to_string()).expect("it answers");
            }
        }
        let drops = self.version.done_of_orphan.is_some();
        let later = self.later();
        for fork in &forks {
            fork.advance(later);
        }
        // Time for all that it does.
        std::thread::sleep(if self.is_fast { SETTLE } else { Duration::from_millis(20) });
        let least = if drops { 0 } else { commands.len() };
        let last = Cell::new(String::new());
        let done = try_wait_for(PATIENCE, || {
            self.machines.accept();
            let real = self.real_shows();
            last.set(format!("{real:?}"));
            (least..=commands.len())
                .rev()
                .find(|count| real.as_ref() == Ok(&self.model_shows(&forks[*count])))
                .ok_or(())
        });
        let Ok(done) = done else { self.fail("what is left of a line", &last.take(), &"any number of its commands") };
        self.told.push(format!("{done} of {} commands were done", commands.len()));
        let mut session = self.model.session();
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        session.read(&names).expect("it answers");
        if is_stopped {
            self.model.stop(self.now);
        } else {
            self.model.cut_after(Some(done));
        }
        session.send(&steps, &mut |_, _| panic!("the sender is gone")).expect_err("the sender is gone");
        if is_stopped {
            self.model.cut_after(Some(done));
            self.model.resume(self.now);
            self.model.cut_after(None);
        }
    }

    /// A moment at which all checks have settled.
    fn later(&self) -> Instant {
        self.now + if self.is_fast { SETTLE * 10 } else { Duration::from_millis(10) }
    }

    fn real_shows(&self) -> Result<Vec<Shown>, String> {
        self.names.iter().map(|name| table::shown(&self.real, name).map_err(|error| error.to_string())).collect()
    }

    fn model_shows(&self, model: &SimHaproxy) -> Vec<Shown> {
        let shown = |name: &String| Shown { rows: model.rows(name), serving: model.serving(name).len() };
        self.names.iter().map(shown).collect()
    }

    /// Both show the same servers.
    fn agree(&mut self) {
        self.now = self.later();
        self.model.advance(self.now);
        let model = self.model_shows(&self.model);
        if self.is_fast {
            std::thread::sleep(SETTLE);
        }
        let same = try_wait_for(PATIENCE, || {
            self.machines.accept();
            let real = self.real_shows()?;
            if real == model { Ok(()) } else { Err(differences(&real, &model)) }
        });
        if let Err(last) = same {
            self.fail("rows (the real ones, then the model's)", &last, &"");
        }
    }

    /// hsdo's edge sees the same in both.
    fn look(&mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        for _ in 0..2 {
            let real = self.runtime.unchanged(&names);
            let model = self.session.unchanged(&names);
            self.check("whether all is as it was", &real, &model);
        }
        let plain = |reading: Reading| {
            let mut backends = reading.backends;
            let servers = backends.values_mut().flatten().flat_map(|servers| servers.values_mut());
            servers.for_each(|server| server.checking = false);
            (reading.is_new, reading.process.started.is_some(), backends)
        };
        let real = self.runtime.read(&names).map(plain);
        let model = self.session.read(&names).map(plain);
        self.check("readings", &real, &model);
    }

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(&self, what: &str, real: &T, model: &T) {
        if real != model {
            self.fail(what, &format!("{real:?}"), &format!("{model:?}"));
        }
    }

    #[track_caller]
    fn fail(&self, what: &str, real: &str, model: &dyn std::fmt::Display) -> ! {
        panic!(
            "{what} differ; SEED={} ROUNDS=1 repeats it\nreal:  {real}\nmodel: {model}\nafter:\n{}",
            self.seed,
            self.told.join("\n")
        )
    }
}

/// What differs.
fn differences(real: &[Shown], model: &[Shown]) -> String {
    let mut text = String::new();
    for (number, (real, model)) in real.iter().zip(model).enumerate() {
        if real.serving != model.serving {
            text.push_str(&format!("back-{number}\n  {} serve\n  {} serve\n", real.serving, model.serving));
        }
        for (real, model) in real.rows.iter().zip(&model.rows).filter(|(real, model)| real != model) {
            text.push_str(&format!("back-{number}\n  {real}\n  {model}\n"));
        }
    }
    text
}

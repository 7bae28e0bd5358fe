//! Faults of AWS, of HAProxy and its socket, and of hsdo itself.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::Chaos;
use crate::common::aws_proxy::{Chance, Fault};
use crate::common::hsdo::UnreadLog;
use crate::common::tap::{Replacement, SocketFault};
use crate::common::wait::try_wait_for;
use crate::role::Role;

/// A fault, or several, of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    AwsRandomFaults,
    AwsAllCalls,
    AwsUnreachable,
    SocketRandomFaults,
    SocketAllConnections,
    SocketReplaced,
    KillServer,
    KillClient,
    KillServerAtWrite,
    KillClientAtCommand,
    RestartServer,
    RestartClient,
    PauseServer,
    PauseClient,
    PauseLeaderForLong,
    SecondServer,
    FewDescriptors,
    KillHaproxy,
    ReloadHaproxy,
    PauseHaproxy,
    FillConnections,
    Operator,
    EditTable,
    GiveOrders,
    BogusResponse,
}

use Trouble::*;

/// Repeated entries are more likely.
const TROUBLES: [Trouble; 41] = [
    AwsRandomFaults,
    AwsRandomFaults,
    AwsRandomFaults,
    AwsRandomFaults,
    AwsAllCalls,
    AwsAllCalls,
    AwsUnreachable,
    SocketRandomFaults,
    SocketRandomFaults,
    SocketAllConnections,
    SocketReplaced,
    KillServer,
    KillClient,
    KillServerAtWrite,
    KillServerAtWrite,
    KillClientAtCommand,
    KillClientAtCommand,
    RestartServer,
    RestartClient,
    PauseServer,
    PauseClient,
    PauseLeaderForLong,
    SecondServer,
    SecondServer,
    FewDescriptors,
    KillHaproxy,
    ReloadHaproxy,
    PauseHaproxy,
    FillConnections,
    Operator,
    Operator,
    EditTable,
    EditTable,
    EditTable,
    GiveOrders,
    GiveOrders,
    GiveOrders,
    GiveOrders,
    BogusResponse,
    BogusResponse,
    BogusResponse,
];

const CONNECTIONS: usize = 10;
/// How long a kill waits for the call that it should interrupt.
const KILL_WINDOW: Duration = Duration::from_secs(2);

impl Chaos {
    pub(crate) fn random_troubles(&mut self) -> Vec<Option<Trouble>> {
        let count = self.random.below(5);
        (0..count).map(|_| Some(*self.random.pick(&TROUBLES))).collect()
    }

    pub(crate) fn start_trouble(&mut self, trouble: Trouble) {
        // In Consul mode AWS has only the table.
        if self.consul.is_some() && self.random.percent(25) {
            return self.harm_consul();
        }
        if matches!(trouble, AwsRandomFaults | AwsAllCalls | EditTable) {
            // Mixed with stale responses, a bogus response could look plausible.
            if self.all_leave || self.detached.is_some() || !self.fleet.scene().unlisted.is_empty() {
                return;
            }
            self.mixed_views = true;
            self.allow_mixed_views();
        }
        self.count(&format!("trouble: {trouble:?}"));
        self.say(&format!("{trouble:?}"));
        let place = self.random.below(self.sites.len() as u64) as usize;
        match trouble {
            AwsRandomFaults => self.random_aws_faults(),
            AwsAllCalls => {
                let fault = self.random.pick(&faults()).clone();
                self.say(&format!("all calls: {fault:?}"));
                self.bed.aws().inject("*", fault);
                self.linger(200, 2_500);
            }
            AwsUnreachable => {
                self.bed.aws().refuse();
                self.linger(100, 1_500);
            }
            SocketRandomFaults => {
                let (seed, percent) = (self.random.next(), *self.random.pick(&[10, 30, 60]));
                let faults: Vec<SocketFault> = (0..=self.random.below(4)).map(|_| self.socket_fault()).collect();
                self.say(&format!("socket of {place}: {percent} % of {faults:?}"));
                self.sites[place].tap.schedule(seed, percent, faults);
                self.linger(200, 2_000);
            }
            SocketAllConnections => {
                let way = self.socket_fault();
                self.say(&format!("socket of {place}: {way:?}"));
                self.sites[place].tap.set_fault(way);
                self.linger(200, 2_000);
            }
            SocketReplaced => {
                let behind = *self.random.pick(&[Replacement::Nothing, Replacement::NoListener, Replacement::File]);
                self.say(&format!("socket of {place}: {behind:?} in its place"));
                self.count(&format!("socket replaced by {behind:?}"));
                self.sites[place].tap.replace_socket(behind);
                self.linger(100, 1_500);
            }
            KillServer => self.kill_server(),
            KillClient => self.kill_client(place),
            KillServerAtWrite => {
                let held = if self.random.percent(50) { Fault::Hang } else { Fault::Hold };
                let operation = *self.random.pick(&["TransactWriteItems", "TransactWriteItems", "UpdateItem"]);
                self.bed.aws().inject(operation, held);
                self.change();
                let moment = try_wait_for(KILL_WINDOW, || (self.bed.aws().hanging() > 0).then_some(()).ok_or(()));
                self.count(if moment.is_ok() { "killed at a write" } else { "no write to be killed at" });
                self.kill_server();
                self.bed.aws().heal();
            }
            KillClientAtCommand => {
                let way = *self.random.pick(&[SocketFault::Silent, SocketFault::Mute, SocketFault::Half(30)]);
                self.sites[place].tap.forget();
                self.sites[place].tap.set_fault_on_changes(way);
                self.change();
                let sent = || (!self.sites[place].tap.changes().is_empty()).then_some(()).ok_or(());
                let moment = try_wait_for(KILL_WINDOW, sent);
                self.count(if moment.is_ok() { "killed at a command" } else { "no command to be killed at" });
                self.kill_client(place);
                self.sites[place].tap.heal();
            }
            RestartServer => {
                let unread = self.unread_log();
                let place = self.servers.len() - 1;
                if self.may_kill_all || place > 0 {
                    self.servers[place].restart(unread);
                }
            }
            RestartClient => {
                let unread = self.unread_log();
                if self.may_kill_all || place == 0 {
                    self.sites[place].client.restart(unread);
                }
            }
            PauseServer => {
                let place = self.random.below(self.servers.len() as u64) as usize;
                self.servers[place].freeze();
                self.linger(100, 1_500);
                if self.random.percent(50) {
                    self.servers[place].thaw();
                }
            }
            PauseClient => {
                self.sites[place].client.freeze();
                self.linger(100, 1_500);
                if self.random.percent(50) {
                    self.sites[place].client.thaw();
                }
            }
            PauseLeaderForLong => {
                // Seldom, since it takes as long as three rounds: the lease expires while it sleeps.
                if let Some(leader) = self.servers.iter().position(|server| !server.frozen && server.state().leads)
                    && self.random.percent(30)
                {
                    self.count("leader stopped for longer than its lease");
                    self.servers[leader].freeze();
                    self.change();
                    self.linger(6_500, 8_000);
                    self.change();
                    self.servers[leader].thaw();
                    self.linger(0, 300);
                }
            }
            SecondServer => {
                if self.servers.len() > 1 {
                    let server = self.servers.pop().expect("there are two");
                    self.report.turns += server.end();
                } else {
                    let server = self.new_server("second server");
                    self.servers.push(server);
                    self.linger(100, 1_000);
                }
            }
            FewDescriptors => {
                let most = *self.random.pick(&[3, 8, 12]);
                let server = self.random.below(self.servers.len() as u64) as usize;
                let of_client = self.random.percent(50);
                let role = if of_client { &mut self.sites[place].client } else { &mut self.servers[server] };
                role.limit_files(most);
                // A connection waits at its exporter, which has no descriptor for it.
                let waiting = role.connect_exporter();
                self.linger(200, 2_000);
                drop(waiting);
            }
            KillHaproxy => {
                self.sites[place].outage(true);
                if self.random.percent(50) {
                    self.sites[place].haproxy.crash();
                } else {
                    self.sites[place].haproxy.kill();
                }
                self.linger(0, 700);
                self.sites[place].haproxy.restart();
            }
            ReloadHaproxy => {
                self.sites[place].outage(true);
                self.sites[place].haproxy.reload();
            }
            PauseHaproxy => {
                self.sites[place].outage(false);
                let span = self.random.millis(100, 1_500);
                self.sites[place].haproxy.pause(span);
                self.sites[place].outage(false);
            }
            FillConnections => {
                let held: Vec<_> = (0..CONNECTIONS)
                    .filter_map(|_| UnixStream::connect(self.sites[place].haproxy.socket()).ok())
                    .collect();
                self.linger(100, 3_000);
                drop(held);
            }
            Operator => self.hold_server(place),
            EditTable => self.edit_table(),
            GiveOrders => self.give_orders(),
            BogusResponse if self.consul.is_none() => {
                self.unlist();
                let unlisted = !self.fleet.scene().unlisted.is_empty();
                self.linger(200, 2_500);
                let held = self.servers.iter().filter_map(Role::held).any(|held| held > 0.0);
                self.count(match (unlisted, held) {
                    (true, true) => "bogus answer, seen to be held against",
                    (true, false) => "bogus answer, not seen to be held against",
                    (false, _) => "no bogus answer in such a round",
                });
            }
            BogusResponse => {}
        }
    }

    pub(crate) fn heal(&mut self) {
        self.say("the faults end");
        self.bed.aws().heal();
        for server in &mut self.servers {
            server.thaw();
            server.limit_files(1_024);
        }
        for site in &mut self.sites {
            site.tap.heal();
            site.client.thaw();
            site.client.limit_files(1_024);
        }
        self.undo_edits();
        self.lift_some();
        self.settle_fleet();
        self.release_held();
    }

    /// Keeps the faults on for a while.
    fn linger(&mut self, from: u64, to: u64) {
        let span = self.random.millis(from, to);
        std::thread::sleep(span);
    }

    fn random_aws_faults(&mut self) {
        let operations = [
            "Scan",
            "Scan",
            "GetItem",
            "GetItem",
            "TransactWriteItems",
            "TransactWriteItems",
            "UpdateItem",
            "DescribeAutoScalingGroups",
            "DescribeAutoScalingGroups",
            "DescribeInstances",
            "DescribeInstances",
            "*",
        ];
        let faults = faults();
        let chances: Vec<Chance> = (0..=self.random.below(4))
            .map(|_| Chance {
                operation: (*self.random.pick(&operations)).to_owned(),
                percent: *self.random.pick(&[5, 20, 50, 100]),
                fault: self.random.pick(&faults).clone(),
            })
            .collect();
        self.say(&format!("{chances:?}"));
        let seed = self.random.next();
        self.bed.aws().schedule(seed, chances);
        self.linger(300, 2_500);
    }

    fn socket_fault(&mut self) -> SocketFault {
        let faults = [
            SocketFault::Slow(Duration::from_millis(300)),
            SocketFault::Closed,
            SocketFault::Reset,
            SocketFault::Silent,
            SocketFault::Mute,
            SocketFault::Lost,
            SocketFault::Half(self.random.below(200) as usize),
            SocketFault::Cut(self.random.below(3_000) as usize),
            SocketFault::Trickle,
            SocketFault::Garbage,
            SocketFault::Denied,
            SocketFault::Endless,
        ];
        *self.random.pick(&faults)
    }

    /// Kills the leader if allowed, else the second server if there is one.
    fn kill_server(&mut self) {
        let leader = self.servers.iter().position(|server| server.state().leads).unwrap_or(0);
        let unread = self.unread_log();
        if self.may_kill_all || leader > 0 {
            self.servers[leader].kill(unread);
        } else if self.servers.len() > 1 {
            self.servers[1].kill(unread);
        }
    }

    fn kill_client(&mut self, place: usize) {
        let unread = self.unread_log();
        if self.may_kill_all || place == 0 {
            self.sites[place].client.kill(unread);
        }
    }

    /// Now and then, a log that nobody reads.
    fn unread_log(&mut self) -> Option<UnreadLog> {
        let log = *self.random.pick(&[UnreadLog::Full, UnreadLog::Pipe]);
        self.random.percent(15).then_some(log)
    }
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::Delay(Duration::from_millis(400)),
        Fault::Delay(Duration::from_millis(1_500)),
        Fault::Reply(500, String::new()),
        Fault::Reply(503, "<html>later</html>".to_owned()),
        Fault::Reply(200, "{}".to_owned()),
        Fault::Reply(200, "<html>captive portal</html>".to_owned()),
        Fault::dynamodb(400, "ProvisionedThroughputExceededException"),
        Fault::dynamodb(400, "TransactionConflictException"),
        Fault::dynamodb(400, "ExpiredTokenException"),
        Fault::dynamodb(400, "AccessDeniedException"),
        Fault::dynamodb(400, "ResourceNotFoundException"),
        Fault::ec2(503, "RequestLimitExceeded", "slow down"),
        Fault::ec2(400, "RequestExpired", "by the test"),
        Fault::ec2(403, "UnauthorizedOperation", "by the test"),
        Fault::autoscaling(400, "Throttling"),
        Fault::autoscaling(403, "ExpiredToken"),
        Fault::Close,
        Fault::Reset,
        Fault::Lose,
        Fault::Lose,
        Fault::Hang,
        Fault::Hold,
        Fault::Garbage,
        Fault::Empty,
        Fault::Cut,
        Fault::Stale,
        Fault::Stale,
        Fault::Endless,
        Fault::Huge,
    ]
}

//! Tiny web servers, one for each instance, on the instance's own loopback address; each answers its name and counts.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Listener, Response, lock, read_request, write_response};
use super::port::Port;

/// How a web server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200 and its name.
    Well,
    /// That status, and its name.
    Status(u16),
    /// 503 with that reason phrase, which need not be UTF-8.
    Reason(&'static [u8]),
    /// Closes the connection without an answer.
    Close,
    /// Answers after that time.
    Slow(Duration),
}

/// The path of a health check (`option httpchk GET /check`): its answer has a mood of its own.
pub const CHECK: &str = "/check";

/// What a server was asked so far, and how it answers.
#[derive(Debug)]
struct State {
    requests: AtomicU64,
    checks: AtomicU64,
    mood: Mutex<Mood>,
    check_mood: Mutex<Mood>,
}

#[derive(Debug)]
struct Server {
    name: String,
    state: Arc<State>,
    _listener: Listener,
}

/// The web servers of a bed, by address, all on one port.
#[derive(Debug)]
pub struct Web {
    port: Port,
    servers: Mutex<BTreeMap<IpAddr, Server>>,
}

impl Web {
    /// No server yet; `port` is that of all to come.
    pub fn new(port: Port) -> Self {
        Web { port, servers: Mutex::default() }
    }

    /// The port of all servers.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Starts a server on `address` that answers `name`. One of that name there stays as it is; one of another name is replaced.
    pub fn serve(&self, name: &str, address: IpAddr) {
        let mut servers = lock(&self.servers);
        if servers.get(&address).is_some_and(|server| server.name == name) {
            return;
        }
        servers.remove(&address);
        let state = Arc::new(State {
            requests: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            mood: Mutex::new(Mood::Well),
            check_mood: Mutex::new(Mood::Well),
        });
        let serve = {
            let (name, state) = (name.to_owned(), Arc::clone(&state));
            move |reader| answer(reader, &name, &state)
        };
        let place = SocketAddr::new(address, self.port.number());
        let listener =
            Listener::start(place, serve).unwrap_or_else(|error| panic!("cannot serve {name} on {place}: {error}"));
        servers.insert(address, Server { name: name.to_owned(), state, _listener: listener });
    }

    /// Ends the server of that name: its port is closed and its connections are cut.
    pub fn stop(&self, name: &str) {
        lock(&self.servers).retain(|_, server| server.name != name);
    }

    /// Changes how the server of that name answers requests and checks.
    pub fn set_mood(&self, name: &str, mood: Mood) {
        let state = self.state(name);
        *lock(&state.mood) = mood;
        *lock(&state.check_mood) = mood;
    }

    /// Changes how the server of that name answers its checks, and nothing else.
    pub fn set_check_mood(&self, name: &str, mood: Mood) {
        *lock(&self.state(name).check_mood) = mood;
    }

    /// How many requests each server got, by name. HAProxy's checks do not count.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let servers = lock(&self.servers);
        servers.values().map(|server| (server.name.clone(), server.state.requests.load(Ordering::SeqCst))).collect()
    }

    /// How many requests the server of that name got.
    pub fn requests_of(&self, name: &str) -> u64 {
        self.state(name).requests.load(Ordering::SeqCst)
    }

    /// How many checks by [`CHECK`] have come to the server of that name, the ones that wait for their answer too.
    pub fn checks_of(&self, name: &str) -> u64 {
        self.state(name).checks.load(Ordering::SeqCst)
    }

    fn state(&self, name: &str) -> Arc<State> {
        let servers = lock(&self.servers);
        let server = servers.values().find(|server| server.name == name);
        Arc::clone(&server.unwrap_or_else(|| panic!("no web server named {name}")).state)
    }
}

/// Serves one connection: one request, since a server that closes is simplest to count.
fn answer(mut reader: BufReader<TcpStream>, name: &str, state: &State) {
    let Ok(Some(request)) = read_request(&mut reader) else { return };
    let (count, mood) =
        if request.target == CHECK { (&state.checks, &state.check_mood) } else { (&state.requests, &state.mood) };
    count.fetch_add(1, Ordering::SeqCst);
    let mood = *lock(mood);
    let status = match mood {
        Mood::Well => 200,
        Mood::Status(status) => status,
        Mood::Close => return,
        Mood::Reason(phrase) => {
            let answer = [b"HTTP/1.1 503 ", phrase, b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"].concat();
            let _ = reader.get_mut().write_all(&answer);
            return;
        }
        Mood::Slow(span) => {
            std::thread::sleep(span);
            200
        }
    };
    let response = Response { status, headers: vec![("X-Server".into(), name.into())], body: name.into() };
    let _ = write_response(reader.get_mut(), &response, true);
}

//! Minimal web servers, one per instance, each on the instance's loopback address: they answer their name and count
//! requests.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Listener, Response, lock, read_request, write_response};
use super::port::Port;

/// How a server responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 and its name.
    Well,
    /// That status, and its name.
    Status(u16),
    /// 503 with that reason phrase, which need not be UTF-8.
    Reason(&'static [u8]),
    /// Closes the connection without a response.
    Close,
    /// Responds after that time.
    Slow(Duration),
}

/// The path of a health check (`option httpchk GET /check`), which has its own behaviour.
pub const CHECK: &str = "/check";

#[derive(Debug)]
struct State {
    requests: AtomicU64,
    checks: AtomicU64,
    behaviour: Mutex<Behaviour>,
    check_mood: Mutex<Behaviour>,
}

#[derive(Debug)]
struct Server {
    name: String,
    state: Arc<State>,
    _listener: Listener,
}

/// The web servers of a bed by address, all on one port.
#[derive(Debug)]
pub struct Web {
    port: Port,
    servers: Mutex<BTreeMap<IpAddr, Server>>,
}

impl Web {
    pub fn new(port: Port) -> Self {
        Web { port, servers: Mutex::default() }
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Starts a server on `address` that answers `name`. One with the same name stays as it is; another is replaced.
    pub fn serve(&self, name: &str, address: IpAddr) {
        let mut servers = lock(&self.servers);
        if servers.get(&address).is_some_and(|server| server.name == name) {
            return;
        }
        servers.remove(&address);
        let state = Arc::new(State {
            requests: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            behaviour: Mutex::new(Behaviour::Well),
            check_mood: Mutex::new(Behaviour::Well),
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

    /// Stops that server: its port and connections are closed.
    pub fn stop(&self, name: &str) {
        lock(&self.servers).retain(|_, server| server.name != name);
    }

    /// How it responds to requests and checks from now on.
    pub fn set_behaviour(&self, name: &str, behaviour: Behaviour) {
        let state = self.state(name);
        *lock(&state.behaviour) = behaviour;
        *lock(&state.check_mood) = behaviour;
    }

    /// How it responds to checks from now on.
    pub fn set_check_behaviour(&self, name: &str, behaviour: Behaviour) {
        *lock(&self.state(name).check_mood) = behaviour;
    }

    /// Requests per server name, without HAProxy's checks.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let servers = lock(&self.servers);
        servers.values().map(|server| (server.name.clone(), server.state.requests.load(Ordering::SeqCst))).collect()
    }

    pub fn requests_of(&self, name: &str) -> u64 {
        self.state(name).requests.load(Ordering::SeqCst)
    }

    /// Checks of [`CHECK`] received, including those still waiting for a response.
    pub fn checks_of(&self, name: &str) -> u64 {
        self.state(name).checks.load(Ordering::SeqCst)
    }

    fn state(&self, name: &str) -> Arc<State> {
        let servers = lock(&self.servers);
        let server = servers.values().find(|server| server.name == name);
        Arc::clone(&server.unwrap_or_else(|| panic!("no web server named {name}")).state)
    }
}

/// One request per connection, which keeps counting simple.
fn answer(mut reader: BufReader<TcpStream>, name: &str, state: &State) {
    let Ok(Some(request)) = read_request(&mut reader) else { return };
    let (count, behaviour) =
        if request.target == CHECK { (&state.checks, &state.check_mood) } else { (&state.requests, &state.behaviour) };
    count.fetch_add(1, Ordering::SeqCst);
    let behaviour = *lock(behaviour);
    let status = match behaviour {
        Behaviour::Well => 200,
        Behaviour::Status(status) => status,
        Behaviour::Close => return,
        Behaviour::Reason(phrase) => {
            let answer = [b"HTTP/1.1 503 ", phrase, b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"].concat();
            let _ = reader.get_mut().write_all(&answer);
            return;
        }
        Behaviour::Slow(span) => {
            std::thread::sleep(span);
            200
        }
    };
    let response = Response { status, headers: vec![("X-Server".into(), name.into())], body: name.into() };
    let _ = write_response(reader.get_mut(), &response, true);
}

//! Tiny web servers, one for each instance, on the instance's own loopback address; each answers its name and counts.

use std::collections::BTreeMap;
use std::io::BufReader;
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
    /// Closes the connection without an answer.
    Close,
    /// Answers after that time.
    Slow(Duration),
}

#[derive(Debug)]
struct Server {
    name: String,
    requests: Arc<AtomicU64>,
    mood: Arc<Mutex<Mood>>,
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
        let requests = Arc::new(AtomicU64::new(0));
        let mood = Arc::new(Mutex::new(Mood::Well));
        let serve = {
            let (name, requests, mood) = (name.to_owned(), Arc::clone(&requests), Arc::clone(&mood));
            move |reader| answer(reader, &name, &requests, &mood)
        };
        let place = SocketAddr::new(address, self.port.number());
        let listener =
            Listener::start(place, serve).unwrap_or_else(|error| panic!("cannot serve {name} on {place}: {error}"));
        servers.insert(address, Server { name: name.to_owned(), requests, mood, _listener: listener });
    }

    /// Ends the server of that name: its port is closed and its connections are cut.
    pub fn stop(&self, name: &str) {
        lock(&self.servers).retain(|_, server| server.name != name);
    }

    /// Changes how the server of that name answers.
    pub fn set_mood(&self, name: &str, mood: Mood) {
        let servers = lock(&self.servers);
        let server = servers.values().find(|server| server.name == name);
        *lock(&server.unwrap_or_else(|| panic!("no web server named {name}")).mood) = mood;
    }

    /// How many requests each server got, by name. HAProxy's TCP checks send none.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let servers = lock(&self.servers);
        servers.values().map(|server| (server.name.clone(), server.requests.load(Ordering::SeqCst))).collect()
    }
}

/// Serves one connection: one request, since a server that closes is simplest to count.
fn answer(mut reader: BufReader<TcpStream>, name: &str, requests: &AtomicU64, mood: &Mutex<Mood>) {
    let Ok(Some(_)) = read_request(&mut reader) else { return };
    requests.fetch_add(1, Ordering::SeqCst);
    let mood = *lock(mood);
    let status = match mood {
        Mood::Well => 200,
        Mood::Status(status) => status,
        Mood::Close => return,
        Mood::Slow(span) => {
            std::thread::sleep(span);
            200
        }
    };
    let response = Response { status, headers: vec![("X-Server".into(), name.into())], body: name.into() };
    let _ = write_response(reader.get_mut(), &response, true);
}

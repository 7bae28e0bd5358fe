//! An agent for HAProxy's `agent-check`, which sends its word to every connection.

use std::io::{BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::http::Listener;

#[derive(Debug)]
pub struct Agent {
    _listener: Listener,
}

impl Agent {
    /// `word` need not be UTF-8.
    pub fn start(address: IpAddr, port: u16, word: &'static [u8]) -> Self {
        let place = SocketAddr::new(address, port);
        let say = move |mut peer: BufReader<TcpStream>| drop(peer.get_mut().write_all(&[word, b"\n"].concat()));
        let listener = Listener::start(place, say).unwrap_or_else(|error| panic!("no agent on {place}: {error}"));
        Agent { _listener: listener }
    }
}

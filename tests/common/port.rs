//! TCP ports that no other test takes meanwhile, in this process or in another.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's range of ephemeral ports (32768 and up), so that no outgoing connection takes one by chance.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A free TCP port, reserved for as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Whoever holds the UDP port of the same number holds the TCP port: the claim goes with the process, whatever ends it.
    _claim: UdpSocket,
}

impl Port {
    /// Reserves a port that is free on every loopback address.
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let offset = u16::try_from(std::process::id() % u32::from(COUNT)).expect("smaller than COUNT, a u16");
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (offset + step % COUNT) % COUNT;
            let Ok(claim) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            if TcpListener::bind(("0.0.0.0", number)).is_ok() {
                return Port { number, _claim: claim };
            }
        }
        panic!("no free port from {FIRST} on: end what listens there");
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

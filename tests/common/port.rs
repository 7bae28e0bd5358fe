//! TCP ports that no other test takes meanwhile, in this process or another.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral ports (32768 and up), so that no outgoing connection takes one by chance.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A free TCP port, reserved while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Holding the UDP port of the same number claims the TCP port; the claim ends with the process, however it dies.
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

    pub fn number(&self) -> u16 {
        self.number
    }
}

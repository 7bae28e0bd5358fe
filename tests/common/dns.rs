//! A minimal name server on loopback: every name has the same IPv4 addresses.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The length of a message header.
const HEAD: usize = 12;
/// Record type A.
const A: [u8; 2] = [0, 1];

/// A name server that runs until it is dropped.
#[derive(Debug)]
pub struct Dns {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Answers every A query with these addresses.
    pub fn start(addresses: &[Ipv4Addr]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free UDP port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time is accepted");
        let port = socket.local_addr().expect("it is bound").port();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, addresses) = (Arc::clone(&stop), addresses.to_vec());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::SeqCst) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(reply) = answer(&buffer[..length], &addresses) {
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
        Dns { port, stop, thread: Some(thread) }
    }

    /// Its UDP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The response to a message's only question (RFC 1035, section 4.1).
fn answer(message: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name = message.get(HEAD..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = message.get(HEAD..HEAD + name + 4)?;
    let addresses = if question[name..].starts_with(&A) { addresses } else { &[] };
    // The query's id; an authoritative response; one question.
    let mut reply = [&message[..2], &[0x84, 0x00, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]].concat();
    reply.extend(question);
    for address in addresses {
        // A pointer to the question's name, type A, TTL 1.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

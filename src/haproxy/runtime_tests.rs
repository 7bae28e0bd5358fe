//! A fake HAProxy for what a real one cannot be made to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::super::socket::SocketLimits;
use super::*;
use crate::ports::Change;
use crate::settings::HaproxySocket;

/// The first line of the next connection, and the connection.
fn accept(listener: &UnixListener) -> (String, UnixStream) {
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    (line, stream)
}

/// A socket, and a runtime that has identified a HAProxy of this version on it.
fn identified(name: &str, version: &'static str, limits: SocketLimits) -> (PathBuf, UnixListener, Runtime) {
    let path = std::env::temp_dir().join(format!("hsdo-{name}-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let mut runtime = Runtime::new(Socket::new(HaproxySocket::Path(path.clone()), limits));
    let haproxy = std::thread::spawn(move || {
        for _ in 0..3 {
            let (line, mut stream) = accept(&listener);
            let reply = match line.trim() {
                "show proc" => "Unknown command.\n\n".to_owned(),
                "show info" => format!("Version: {version}\nUptime_sec: 5\nPid: 8\n\n"),
                _ => "admin\n\n".to_owned(),
            };
            stream.write_all(reply.as_bytes()).unwrap();
        }
        listener
    });
    runtime.identify().unwrap();
    (path, haproxy.join().unwrap(), runtime)
}

/// Steps that take almost a whole line each.
fn long_steps(count: u16) -> Vec<Vec<Command>> {
    let step = |slot| (0..200).map(|_| Command::new("back", &format!("web{slot}"), Change::Ready).unwrap()).collect();
    (1..=count).map(step).collect()
}

#[test]
fn the_next_line_is_in_flight_while_one_is_executed() {
    let (path, listener, mut runtime) = identified("under-way", "2.6.1", SocketLimits::default());
    let haproxy = std::thread::spawn(move || {
        let mut in_flight = VecDeque::from([accept(&listener)]);
        for _ in 2..=4 {
            in_flight.push_back(accept(&listener));
            in_flight.pop_front().unwrap().1.write_all(&[b'\n'; 200]).unwrap();
        }
        in_flight[0].1.write_all(&[b'\n'; 200]).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "a fifth line");
    });
    let mut done = Vec::new();
    let steps = long_steps(4);
    runtime.send(&steps, &mut |command, verdict| done.push((command.clone(), verdict))).unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(done.iter().map(|(command, _)| command).eq(steps.iter().flatten()), "not each, or not in order");
    assert!(done.iter().all(|(_, verdict)| *verdict == Verdict::Done));
    haproxy.join().unwrap();
}

#[test]
fn after_a_failed_line_nothing_is_sent_and_lines_in_flight_are_read() {
    let (path, listener, mut runtime) = identified("failed-line", "2.6.1", SocketLimits::default());
    let haproxy = std::thread::spawn(move || {
        let [(_, first), (_, mut second)] = [accept(&listener), accept(&listener)];
        drop(first);
        second.write_all(&[b'\n'; 200]).unwrap();
        listener
    });
    let mut done = 0;
    let steps = long_steps(4);
    let error = runtime.send(&steps, &mut |command, _| {
        assert_eq!(command.server(), "web2");
        done += 1;
    });
    std::fs::remove_file(path).unwrap();
    assert!(error.unwrap_err().to_string().contains("0 replies to 200 commands"));
    assert_eq!(done, 200);
    let listener = haproxy.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "a third line");
}

/// As 3.2 does with `tune.bufsize 4096`.
#[test]
fn a_line_that_is_too_long_is_split_and_resent() {
    let (path, listener, mut runtime) = identified("long-line", "3.2.1", SocketLimits::default());
    let haproxy = std::thread::spawn(move || {
        let mut done = 0;
        while done < 400 {
            let (line, mut stream) = accept(&listener);
            if line.len() > 4_096 {
                stream.write_all(b"The command line is too big for the buffer size.\n").unwrap();
            } else {
                let count = line.split(';').count();
                done += count;
                stream.write_all(&vec![b'\n'; count]).unwrap();
            }
        }
    });
    let steps: Vec<Vec<Command>> =
        (1..=400).map(|slot| vec![Command::new("back", &format!("web{slot}"), Change::Ready).unwrap()]).collect();
    let mut done = std::collections::BTreeSet::new();
    runtime.send(&steps, &mut |command, _| assert!(done.insert(command.server().to_owned()))).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(done.len(), 400);
    haproxy.join().unwrap();
}

#[test]
fn an_unusable_response_leaves_no_buffer_behind() {
    let limits = SocketLimits { bytes: 1_000_000, ..SocketLimits::default() };
    let (path, listener, mut runtime) = identified("endless", "3.2.1", limits);
    runtime.known.as_mut().unwrap().numbers.insert("back".to_owned(), "2".to_owned());
    let endless = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let error = runtime.unchanged(&["back"]).unwrap_err().to_string();
    std::fs::remove_file(path).unwrap();
    assert!(error.contains("longer than 1000000 bytes"), "{error}");
    assert_eq!(runtime.buffers, Vec::<Vec<u8>>::new());
    endless.join().unwrap();
}

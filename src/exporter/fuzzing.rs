//! Fuzz target for hsdo's output: the exporter's replies to any request, metrics with any names, log lines about anything.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::Pages;
use super::gate::read_head;
use super::http::{Connection, RequestLine};
use super::pages::page;
use crate::clock::Timestamp;
use crate::fuzzing::{assert_message, kind, text};
use crate::log::line;
use crate::metrics::{Metrics, ServerSeries};
use crate::status::{Facts, Status};
use crate::text::one_line;

/// `h`: an HTTP request; `n`: names in metrics, one per line; `l`: a log message.
pub fn output(data: &[u8]) {
    let (kind, rest) = kind(data);
    match kind {
        b'h' => {
            for pieces in [1, 7, 1024] {
                request(rest, pieces);
            }
        }
        b'n' => names(&text(rest)),
        b'l' => log_line(&text(rest)),
        _ => {}
    }
}

struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

fn request(data: &[u8], pieces: usize) {
    let mut input = Pieces(data, pieces);
    let Ok(head) = read_head(&mut input) else {
        assert!(input.0.is_empty(), "it stopped before the end");
        return;
    };
    assert!(data.len() - input.0.len() <= 10 * 1024, "it read on");
    let Some(request) = head.as_deref().and_then(RequestLine::parse) else { return };
    let RequestLine { method, target } = request;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    assert!(path.starts_with('/') && !path.contains(['?', ' ', '\n']), "{path:?}");
    // One reply, and the connection goes on: each request is answered by the same server.
    let reply = connection().lock().expect("whole").exchange(request).expect("a reply");
    let reply = String::from_utf8(reply).expect("text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    assert!(head.starts_with("HTTP/1.1 ") && [200, 404, 405, 503].contains(&status), "{head}");
    let known =
        ["/", "/status", "/metrics", "/healthz", "/readyz"].contains(&path) && ["GET", "HEAD"].contains(&method);
    assert_eq!(known, ![404, 405].contains(&status), "{method:?} {path:?}");
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert_eq!(method != "HEAD", format!("{head}\r\n").contains(&length), "{head}");
}

pub(super) fn facts(role: &'static str) -> Facts {
    Facts {
        role,
        host: "host".to_owned(),
        table: "hsdo".to_owned(),
        region: None,
        interval: Duration::from_secs(1),
        size: 10,
        socket: None,
        started: Timestamp::now(),
        start: Instant::now(),
    }
}

fn connection() -> &'static Mutex<Connection> {
    static CONNECTION: OnceLock<Mutex<Connection>> = OnceLock::new();
    CONNECTION.get_or_init(|| {
        let status = Status::new(facts("client"), Metrics::new("client"));
        let pages = move |method: &str, path: &str| page(&status, method, path);
        let pages: Arc<Pages> = Arc::new(pages);
        Mutex::new(Connection::open(&pages).expect("a connection"))
    })
}

fn names(text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    let metrics: Arc<Metrics> = Metrics::new("server");
    let series = |(index, name): (usize, &&str)| ServerSeries {
        id: index as u32 + 1,
        name: (*name).to_owned(),
        ip: [10, 0, 0, 1].into(),
        // With a newline, which no line contains.
        asg: (index % 3 != 0).then(|| format!("{name}\n")),
        zone: (index % 2 != 0).then(|| format!("z{name}\n")),
        enabled: true,
        weight: 7,
    };
    let servers: Vec<ServerSeries> = lines.iter().enumerate().map(series).collect();
    metrics.set_servers(servers.clone());
    for name in &lines {
        metrics.aws_request("dynamodb", "Scan", name);
        metrics.consumed("Scan", name.parse().unwrap_or(f64::NAN));
    }
    let shown = metrics.render();
    let mut found = Vec::new();
    for line in shown.split('\n').filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = sample(line).unwrap_or_else(|| panic!("no sample: {line:?}"));
        if name == "hsdo_server_weight" {
            found.push((labels[1].1.clone(), labels[3].1.clone()));
        }
        if name == "hsdo_aws_requests_total" {
            assert!(labels[2].1.len() <= 64 && labels[2].1.is_ascii(), "{line:?}");
        }
    }
    let expected: Vec<(String, String)> =
        (servers.into_iter()).map(|server| (server.name, server.asg.unwrap_or_else(|| "none".to_owned()))).collect();
    assert_eq!(found, expected);
    assert!(shown.len() <= 20_000 + 200 * lines.len() + 5 * text.len(), "{} bytes", shown.len());
}

/// The name and the labels of a sample, as Prometheus reads its text format.
fn sample(line: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name:?}");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next()? {
                    (index, '"') => break index,
                    (_, '\\') => value.push(match characters.next()?.1 {
                        'n' => '\n',
                        escaped @ ('\\' | '"') => escaped,
                        _ => return None,
                    }),
                    (_, other) => value.push(other),
                }
            };
            labels.push((label, value));
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break rest = rest.strip_prefix('}')?,
            }
        }
    }
    rest.strip_prefix(' ')?.parse::<f64>().ok().map(|_| (name, labels))
}

fn log_line(message: &str) {
    let shown = line(Timestamp::from_micros(0), log::Level::Warn, "hsdo::client", format_args!("{message}"));
    assert_message(&shown, message.len().min(4_096));
    let short = one_line(message, 64);
    assert_message(&short, message.len());
    assert!(short.len() <= 10 * 64 + 3, "{short:?}");
}

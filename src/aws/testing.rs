//! Test helpers: a fake AWS, and a temporary folder.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Aws, Observer, Regions};
use crate::environment::Environment;

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The operation: DynamoDB's target, or the Query API's action.
    pub(crate) fn operation(&self) -> String {
        let target = self.header("x-amz-target").rsplit('.').next().unwrap_or_default().to_string();
        if target.is_empty() { self.query("Action").unwrap_or_default() } else { target }
    }

    /// A Query API parameter, still encoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.body
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, v)| v.to_string())
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.body.split('&').filter(|pair| pair.starts_with(prefix)).count()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }
}

pub(crate) struct CannedResponse {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl CannedResponse {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        CannedResponse { status: 200, body: body.into() }
    }
}

/// An HTTP server that responds by a function and records requests.
pub(crate) struct Responder {
    pub(crate) url: String,
    server: Arc<tiny_http::Server>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Responder {
    pub(crate) fn new(mut answer: impl FnMut(&Seen) -> CannedResponse + Send + 'static) -> Self {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a port"));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let url = format!("http://{}", server.server_addr().to_ip().expect("an address"));
        let (thread_server, thread_seen) = (Arc::clone(&server), Arc::clone(&seen));
        std::thread::spawn(move || {
            while let Ok(mut request) = thread_server.recv() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).expect("a body");
                let headers = request.headers().iter().map(|h| (h.field.to_string(), h.value.to_string())).collect();
                let asked = Seen { headers, body };
                thread_seen.lock().expect("seen").push(asked.clone());
                let CannedResponse { status, body } = answer(&asked);
                let _ = request.respond(tiny_http::Response::from_string(body).with_status_code(status));
            }
        });
        Responder { url, server, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("seen").clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

/// A server that runs `serve` for each connection, numbered from 0, in its own thread.
pub(crate) fn raw_server(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(number, stream));
        }
    });
    url
}

/// Reads one request to its end; `false` if the caller hung up instead.
pub(crate) fn read_request(stream: &mut TcpStream) -> bool {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            _ => return false,
        }
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.and_then(|length| length.parse().ok()).expect("a content-length");
    stream.read_exact(&mut vec![0; length]).is_ok()
}

#[derive(Default)]
pub(crate) struct Results(Mutex<Vec<String>>);

impl Results {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("results").clone()
    }
}

impl Observer for Results {
    fn request(&self, service: &'static str, operation: &'static str, result: &str) {
        self.0.lock().expect("results").push(format!("{service} {operation} {result}"));
    }

    fn consumed(&self, operation: &'static str, units: f64) {
        self.0.lock().expect("results").push(format!("{operation} consumed {units}"));
    }
}

/// AWS at this URL, with fake credentials, and the recorded results.
pub(crate) fn aws(url: &str) -> (Arc<Aws>, Arc<Results>) {
    let environment = Environment::from([
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ACCESS_KEY_ID", "AKTEST"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let results = Arc::new(Results::default());
    let observer: Arc<dyn Observer> = Arc::clone(&results) as Arc<dyn Observer>;
    (
        Aws::new(Regions { named: Some("eu-west-1"), ..Regions::default() }, &environment, observer).expect("set up"),
        results,
    )
}

/// A temporary folder, removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("hsdo-test-{}-{:x}", std::process::id(), crate::aws::random::random()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub(crate) fn path(&self) -> String {
        self.0.to_str().expect("a UTF-8 path").to_string()
    }

    /// Writes a file, creating parent folders, and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder above it")).expect("a folder");
        std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
        path.to_str().expect("a UTF-8 path").to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

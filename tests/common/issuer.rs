//! Fakes of EC2's metadata service and the container credentials endpoint. Their keys last as long as a test wants, and
//! they can fail.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::{Listener, Request, Response, lock, read_request, write_response};

/// The secret of every key, which no log may show.
pub const SECRET: &str = "secret-of-the-issuer";
/// The session token of every key, which no log may show.
pub const TOKEN: &str = "token-of-the-issuer";
/// The authorization token that the container endpoint expects.
pub const AUTHORIZATION: &str = "authorization-of-the-pod";
const SESSION: &str = "session-of-the-metadata-service";

#[derive(Debug)]
struct State {
    life: Duration,
    given: BTreeMap<String, Instant>,
    broken: bool,
    /// The response to a session request, instead of a token.
    session: Option<(u16, String)>,
    /// The response to the role listing, instead of the role's name.
    roles: Option<(u16, String)>,
    asked: usize,
}

#[derive(Debug)]
pub struct Issuer {
    listener: Listener,
    state: Arc<Mutex<State>>,
}

impl Issuer {
    /// Issues keys that last this long.
    pub fn start(life: Duration) -> Self {
        Issuer::start_at(life, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same at an address.
    pub fn start_at(life: Duration, address: SocketAddr) -> Self {
        let (given, session) = (BTreeMap::new(), None);
        let state = Arc::new(Mutex::new(State { life, given, broken: false, session, roles: None, asked: 0 }));
        let for_thread = Arc::clone(&state);
        let listener = Listener::start(address, move |reader| serve(reader, &for_thread)).expect("some port is free");
        Issuer { listener, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// Whether to respond 503 from now on.
    pub fn set_broken(&self, broken: bool) {
        lock(&self.state).broken = broken;
    }

    /// The response to session requests from now on; `None`: a token.
    pub fn set_session(&self, answer: Option<(u16, &str)>) {
        lock(&self.state).session = answer.map(|(status, body)| (status, body.to_owned()));
    }

    /// The response to role listings from now on; `None`: a role's name.
    pub fn set_roles(&self, answer: Option<(u16, &str)>) {
        lock(&self.state).roles = answer.map(|(status, body)| (status, body.to_owned()));
    }

    /// The keys issued so far, and when each expires.
    pub fn issued(&self) -> BTreeMap<String, Instant> {
        lock(&self.state).given.clone()
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        lock(&self.state).asked
    }
}

fn serve(mut reader: BufReader<TcpStream>, state: &Mutex<State>) {
    while let Ok(Some(request)) = read_request(&mut reader) {
        let response = answer(&request, &mut lock(state));
        if write_response(reader.get_mut(), &response, false).is_err() {
            return;
        }
    }
}

fn answer(request: &Request, state: &mut State) -> Response {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let text = |status, body: &str| Response { status, headers: Vec::new(), body: body.into() };
    state.asked += 1;
    if state.broken {
        return text(503, "");
    }
    let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
    let target = request.target.as_str();
    if request.method == "PUT" && target == "/latest/api/token" {
        if let Some((status, body)) = &state.session {
            return text(*status, body);
        }
        let mut response = text(200, SESSION);
        response.headers.push(("x-aws-ec2-metadata-token-ttl-seconds".to_owned(), "21600".to_owned()));
        return response;
    }
    if target == "/container" {
        return if header("authorization") == AUTHORIZATION {
            text(200, &state.key())
        } else {
            text(401, "who are you")
        };
    }
    if target == "/task" {
        return text(200, r#"{"Cluster": "c", "AvailabilityZone": "eu-west-1a", "Containers": []}"#);
    }
    if header("x-aws-ec2-metadata-token") != SESSION {
        return text(401, "");
    }
    match target.strip_prefix(ROLES) {
        Some("") => state.roles.as_ref().map_or_else(|| text(200, "the-role"), |(status, body)| text(*status, body)),
        Some("the-role") => text(200, &state.key()),
        _ if target == "/latest/meta-data/placement/region" => text(200, super::bed::REGION),
        _ if target == "/latest/meta-data/placement/availability-zone" => text(200, "eu-west-1b"),
        _ => text(404, ""),
    }
}

impl State {
    fn key(&mut self) -> String {
        let key = format!("ASIAISSUED{:04}", self.given.len());
        self.given.insert(key.clone(), Instant::now() + self.life);
        let end = std::time::SystemTime::now() + self.life;
        let micros = end.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros();
        let end = hsdo::clock::Timestamp::from_micros(i64::try_from(micros).expect("before the year 290000"));
        let end = format!("{}Z", end.to_string().replace(' ', "T"));
        serde_json::json!({
            "Code": "Success", "AccessKeyId": key, "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": end,
        })
        .to_string()
    }
}

//! AWS misbehaving, and the network in between: throttling, errors, resets, truncated responses, wrong clocks, private
//! CAs and proxies.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::aws_proxy::Fault;
use common::bed::{Bed, tool};
use common::haproxy::{BackendConfig, Haproxy};
use common::hsdo::{Hsdo, value_of};
use common::http::{Listener, Response, lock, read_request, write_response};
use common::moto::{Item, text_of};
use common::port::Port;
use common::process::Process;
use common::wait::{SOON, wait_for};
use hsdo::clock::Timestamp;

fn bed(name: &str) -> Bed {
    let bed = Bed::new(name);
    bed.moto().create_table();
    bed.moto().create_group("web", 0, 2);
    bed
}

#[test]
fn what_passes_is_not_seen() {
    let bed = bed("passes");
    let throttled = |service: &str, code: &str| match service {
        "dynamodb" => Fault::dynamodb(400, code),
        "ec2" => Fault::ec2(503, code, "by the test"),
        _ => Fault::autoscaling(400, code),
    };
    for (operation, fault) in [
        ("Scan", throttled("dynamodb", "ProvisionedThroughputExceededException")),
        ("Scan", throttled("dynamodb", "ThrottlingException")),
        ("TransactWriteItems", throttled("dynamodb", "ThrottlingException")),
        ("TransactWriteItems", Fault::dynamodb(500, "InternalServerError")),
        ("TransactWriteItems", Fault::Lose),
        ("DescribeInstances", throttled("ec2", "RequestLimitExceeded")),
        ("DescribeAutoScalingGroups", throttled("autoscaling", "Throttling")),
        ("DescribeAutoScalingGroups", Fault::Reply(503, "<html>gateway</html>".to_owned())),
        ("DescribeInstances", Fault::Close),
        ("DescribeInstances", Fault::Cut),
        ("Scan", Fault::Cut),
        ("Scan", Fault::Reply(502, String::new())),
    ] {
        for id in bed.moto().items().into_keys() {
            bed.moto().delete_item(id);
        }
        let case = format!("{operation} {fault:?}");
        bed.aws().forget();
        bed.aws().inject_times(operation, fault, 2);
        let outcome = Hsdo::server(&bed).once();
        assert_eq!(outcome.status.code(), Some(0), "{case}: {outcome}");
        // A connection reset costs no attempt, once.
        assert!((3..=4).contains(&bed.aws().count(operation)), "{case}: {}", bed.aws().count(operation));
        assert_eq!(bed.moto().attribute(2, "BackendServerStatus").as_deref(), Some("enabled"), "{case}");
    }
}

#[test]
fn what_does_not_pass_is_asked_as_often_as_the_sdks_do_or_as_someone_says() {
    let bed = bed("attempts");
    let cases = [("Scan", "", 4), ("DescribeInstances", "", 3), ("Scan", "1", 1), ("DescribeInstances", "5", 5)];
    for (operation, attempts, calls) in cases {
        bed.aws().forget();
        bed.aws().inject(operation, Fault::Reply(500, String::new()));
        let outcome = Hsdo::server(&bed).env("AWS_MAX_ATTEMPTS", attempts).env("AWS_RETRY_MODE", "adaptive").once();
        bed.aws().heal();
        outcome.assert_code(1).assert_stderr(operation);
        assert_eq!(bed.aws().count(operation), calls, "{operation} {attempts:?}");
    }
    Hsdo::server(&bed).env("AWS_MAX_ATTEMPTS", "many").once().assert_code(2).assert_stderr("AWS_MAX_ATTEMPTS");
}

#[test]
fn an_outage_does_not_multiply_the_calls() {
    let bed = bed("quota");
    let mut server = Hsdo::server(&bed).env("INTERVAL", "0.05").spawn();
    server.wait_turn();
    bed.aws().inject("DescribeAutoScalingGroups", Fault::Reply(500, String::new()));
    bed.aws().forget();
    let failed = |metrics: &str| value_of(metrics, r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0);
    wait_for("many failed turns", Duration::from_secs(90), || {
        let count = failed(&server.metrics());
        if count >= 60.0 { Ok(()) } else { Err(count) }
    });
    let calls = bed.aws().count("DescribeAutoScalingGroups");
    // 500 tokens are 35 retries of 14.
    let turns = failed(&server.metrics()) as usize + 1;
    assert!(calls <= turns + 35, "{calls} calls in {turns} turns");
    assert!(calls >= 60 + 35 - 2, "it is tried again while there are tokens: {calls}");
    bed.aws().heal();
    server.wait_turn();
}

#[test]
fn a_steady_turn_asks_everything_once() {
    let bed = bed("steady");
    let mut server = Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10").spawn();
    wait_for("both to be seated", SOON, || {
        let seated = (1..=2).all(|id| bed.moto().attribute(id, "BackendServerStatus").as_deref() == Some("enabled"));
        if seated { Ok(()) } else { Err(format!("{:?}", bed.moto().rows())) }
    });
    wait_for("turns without a write", SOON, || {
        bed.aws().forget();
        server.wait_turn();
        let writes = bed.aws().count("TransactWriteItems");
        if writes == 0 { Ok(()) } else { Err(writes) }
    });
    bed.aws().forget();
    for _ in 0..5 {
        server.wait_turn();
    }
    let mut count = std::collections::BTreeMap::new();
    bed.aws().calls().into_iter().for_each(|call| *count.entry(call.operation).or_insert(0_usize) += 1);
    let turns = count["Scan"];
    assert!(turns >= 10, "{count:?}");
    for (operation, calls) in count {
        let expected = match operation.as_str() {
            // The heartbeat, once a second.
            "UpdateItem" => 0..=turns / 2,
            // The last turn may be in flight.
            "DescribeAutoScalingGroups" | "DescribeInstances" | "Scan" => turns - 1..=turns + 1,
            _ => 0..=0,
        };
        assert!(expected.contains(&calls), "{calls} of {operation} in {turns} turns");
    }
}

/// The turn's own deadline wins, whatever AWS asks for.
#[test]
fn a_client_repairs_haproxy_within_five_seconds_whatever_aws_asks_for() {
    let bed = bed("later");
    let haproxy = Haproxy::start(&bed, &[BackendConfig::new("http-back", "mywebapp", 10)]);
    Hsdo::server(&bed).env("SERVER_HAPROXY_BACKEND_SERVER_MIN_WEIGHT", "10").once().assert_code(0);
    let mut client = Hsdo::client(&bed).spawn();
    client.wait_turn();
    let throttled = Fault::dynamodb(400, "ThrottlingException");
    for fault in [Fault::Later(Duration::from_secs(60)), Fault::Later(Duration::from_secs(2)), throttled] {
        bed.aws().inject("*", fault.clone());
        let before = bed.aws().count("GetItem");
        wait_for("AWS to be asked", SOON, || if bed.aws().count("GetItem") > before { Ok(()) } else { Err(before) });
        let address = haproxy.server("http-back", "mywebapp1").addr;
        haproxy.command("set server http-back/mywebapp1 addr 127.9.9.9");
        wait_for(&format!("the address to be set back: {fault:?}"), Duration::from_secs(5), || {
            let now = haproxy.server("http-back", "mywebapp1").addr;
            if now == address { Ok(()) } else { Err(now) }
        });
        bed.aws().heal();
        client.wait_turn();
    }
}

/// A proxy in front of moto that rejects signatures more than five minutes off its clock, as AWS does.
struct SkewedAws {
    listener: Listener,
    refused: Arc<Mutex<usize>>,
    ahead: Arc<AtomicI64>,
    /// Offset of its `Date` header from its clock: a proxy on the way may stamp its own.
    wrong: Arc<AtomicI64>,
    /// A further offset in the next response to a `Scan`, and in no other one.
    once: Arc<AtomicI64>,
}

impl SkewedAws {
    fn start(upstream: &str, ahead: i64) -> Self {
        let (refused, ahead) = (Arc::new(Mutex::new(0)), Arc::new(AtomicI64::new(ahead)));
        let wrong = Arc::new(AtomicI64::new(0));
        let (counter, clock, upstream) = (Arc::clone(&refused), Arc::clone(&ahead), upstream.to_owned());
        let once = Arc::new(AtomicI64::new(0));
        let (dates, next) = (Arc::clone(&wrong), Arc::clone(&once));
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let agent = ureq::Agent::new_with_config(config);
        let serve = move |mut reader: BufReader<TcpStream>| {
            while let Ok(Some(request)) = read_request(&mut reader) {
                let now = now() + clock.load(Ordering::SeqCst);
                let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
                let is_scan = header("x-amz-target").ends_with(".Scan");
                let odd = dates.load(Ordering::SeqCst) + if is_scan { next.swap(0, Ordering::SeqCst) } else { 0 };
                let date = vec![("Date".to_owned(), http_date(now + odd))];
                let response = if now.abs_diff(signed_at(&header("x-amz-date"))) > 300 {
                    *lock(&counter) += 1;
                    let (status, body) = refusal(&header("authorization"));
                    Response { status, headers: date, body: body.into() }
                } else {
                    let mut ask = agent.post(&upstream);
                    for name in ["authorization", "content-type", "x-amz-target", "x-amz-date"] {
                        ask = ask.header(name, header(name));
                    }
                    let mut answer = ask.send(request.body.as_slice()).expect("moto answers");
                    let body = answer.body_mut().read_to_vec().expect("a body");
                    Response { status: answer.status().as_u16(), headers: date, body }
                };
                if write_response(reader.get_mut(), &response, false).is_err() {
                    return;
                }
            }
        };
        let listener = Listener::start(SocketAddr::from(([127, 0, 0, 1], 0)), serve).expect("some port is free");
        SkewedAws { listener, refused, ahead, wrong, once }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }
}

/// How each service reports a signature time that is off.
fn refusal(authorization: &str) -> (u16, &'static str) {
    if authorization.contains("/dynamodb/") {
        (
            400,
            r#"{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"Signature expired: by the test"}"#,
        )
    } else if authorization.contains("/ec2/") {
        (
            400,
            "<Response><Errors><Error><Code>RequestExpired</Code><Message>Request has expired.</Message></Error></Errors></Response>",
        )
    } else {
        (
            403,
            "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>Signature expired</Message></Error></ErrorResponse>",
        )
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the year 290000")
}

/// Epoch seconds of `20260101T000501Z`.
fn signed_at(text: &str) -> i64 {
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or("0");
    let date =
        format!("{}-{}-{} {}:{}:{}", part(0, 4), part(4, 6), part(6, 8), part(9, 11), part(11, 13), part(13, 15));
    Timestamp::parse(&date).map_or(0, |moment| moment.as_micros() / 1_000_000)
}

fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = Timestamp::from_micros(seconds * 1_000_000).to_string();
    let month: usize = text[5..7].parse().expect("a month");
    let day = usize::try_from(seconds / 86_400 % 7).expect("after 1970");
    format!("{}, {} {} {} {} GMT", DAYS[day], &text[8..10], MONTHS[month - 1], &text[..4], &text[11..19])
}

#[test]
fn a_clock_that_is_twenty_minutes_wrong_is_corrected() {
    let bed = bed("clock");
    for ahead in [1_200, -1_200] {
        let aws = SkewedAws::start(&bed.moto().url(), ahead);
        let mut server = Hsdo::server(&bed).env("AWS_ENDPOINT_URL", &aws.url()).spawn();
        server.wait_turn();
        server.wait_turn();
        assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", server.log());
        assert_eq!(*lock(&aws.refused), 1, "learnt from the first answer");
    }
    // The wording of each service is recognised too.
    let own = [("AWS_ENDPOINT_URL_EC2", "RequestExpired"), ("AWS_ENDPOINT_URL_AUTO_SCALING", "SignatureDoesNotMatch")];
    for (variable, code) in own {
        let aws = SkewedAws::start(&bed.moto().url(), 1_200);
        Hsdo::server(&bed).env(variable, &aws.url()).once().assert_code(0);
        assert_eq!(*lock(&aws.refused), 1, "{code}");
    }
}

/// From hsdo's side, AWS's clock jumps the opposite way.
#[test]
fn a_clock_that_jumps_costs_one_refused_call_each_time() {
    let bed = bed("jumps");
    let aws = SkewedAws::start(&bed.moto().url(), 0);
    let mut server = Hsdo::server(&bed).env("AWS_ENDPOINT_URL", &aws.url()).spawn();
    server.wait_turn();
    let before = bed.moto().rows();
    for (jump, ahead) in (1..).zip([3_600, -3_600, 86_400 * 365, 0]) {
        aws.ahead.store(ahead, Ordering::SeqCst);
        server.wait_turn();
        assert_eq!(*lock(&aws.refused), jump, "corrected by the first answer after each jump");
    }
    assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#), Some(0.0), "{}", server.log());
    for (id, row) in bed.moto().rows() {
        let seat =
            |row: &Item| [text_of(row, "ServerName"), text_of(row, "IPAddress"), text_of(row, "BackendServerStatus")];
        assert_eq!(seat(&row), seat(&before[&id]), "row {id}");
    }
}

#[test]
fn a_proxy_that_writes_a_wrong_date_on_every_answer_costs_one_refused_call() {
    let bed = bed("date");
    for wrong in [3_600, -3_600] {
        let aws = SkewedAws::start(&bed.moto().url(), 0);
        aws.wrong.store(wrong, Ordering::SeqCst);
        let mut server = Hsdo::server(&bed).env("AWS_ENDPOINT_URL", &aws.url()).spawn();
        server.wait_turn();
        server.wait_turn();
        assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", server.log());
        assert_eq!(*lock(&aws.refused), 1, "{}", server.log());
        assert_eq!(server.log().matches("signing with this machine's own clock").count(), 1, "{}", server.log());
        // The proxy is mended, and then the machine's clock goes wrong: dates are believed again.
        aws.wrong.store(0, Ordering::SeqCst);
        aws.ahead.store(1_200, Ordering::SeqCst);
        server.wait_turn();
        server.wait_turn();
        assert_eq!(server.metric(r#"hsdo_turns_total{result="failed"}"#).unwrap_or(0.0), 0.0, "{}", server.log());
        assert_eq!(*lock(&aws.refused), 2, "{}", server.log());
    }
}

/// What lapses is over for good, so one proxy of many with a wrong clock must not end it.
#[test]
fn a_date_that_is_wrong_once_ends_no_order() {
    let bed = bed("lapse");
    let aws = SkewedAws::start(&bed.moto().url(), 0);
    let mut server = Hsdo::server(&bed).env("AWS_ENDPOINT_URL", &aws.url()).spawn();
    server.wait_turn();
    let drain = Hsdo::with_aws(&bed, "drain").env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web");
    ["drain", "slot:1", "--for", "2h", "--yes"].into_iter().fold(drain, Hsdo::arg).run().assert_code(0);
    let status = || text_of(&bed.moto().rows()[&1], "BackendServerStatus").unwrap_or_default();
    let drains = || if status() == "draining" { Ok(()) } else { Err(status()) };
    wait_for("the order to be carried out", SOON, drains);
    for wrong in [86_400, -86_400, 86_400] {
        aws.once.store(wrong, Ordering::SeqCst);
        wait_for("a scan", SOON, || if aws.once.load(Ordering::SeqCst) == 0 { Ok(()) } else { Err("none yet") });
        server.wait_turn();
        server.wait_turn();
        assert_eq!(status(), "draining", "{}", server.log());
    }
    assert!(!server.log().contains("over: "), "{}", server.log());
}

/// When no correction helps, the number of requests per turn is bounded.
#[test]
fn a_wrong_secret_and_a_wrong_date_do_not_go_to_and_fro() {
    let bed = bed("both");
    let aws = SkewedAws::start(&bed.moto().url(), 86_400);
    aws.wrong.store(-3_600 - 86_400, Ordering::SeqCst);
    let outcome = Hsdo::server(&bed).env("AWS_ENDPOINT_URL", &aws.url()).once();
    outcome.assert_code(2).assert_stderr("InvalidSignatureException");
    assert_eq!(*lock(&aws.refused), 2, "{outcome}");
}

/// moto behind TLS, with a certificate for 127.0.0.1 from a private CA.
struct SecureMoto {
    port: Port,
    authority: PathBuf,
    _process: Process,
}

impl SecureMoto {
    fn start(bed: &Bed) -> Self {
        let openssl =
            tool("HSDO_TEST_OPENSSL", &[PathBuf::from("/usr/bin/openssl"), PathBuf::from("/usr/local/bin/openssl")]);
        let make = |arguments: &str| {
            let mut command = Command::new(&openssl);
            let output = command.args(arguments.split(' ')).current_dir(bed.dir()).output().expect("openssl runs");
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        bed.file("san", "subjectAltName=IP:127.0.0.1\n");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        make(&format!("req -x509 {key} -subj /CN=authority -days 2 -keyout authority.key -out authority.pem"));
        make(&format!("req -new {key} -subj /CN=moto -keyout moto.key -out moto.csr"));
        make(
            "x509 -req -in moto.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile san -out moto.pem",
        );
        let port = Port::reserve();
        let mut command = Command::new(common::moto::program());
        command.args(["-H", "127.0.0.1", "-c", "moto.pem", "-k", "moto.key", "-p"]).arg(port.number().to_string());
        command.current_dir(bed.dir()).env("PYTHONDONTWRITEBYTECODE", "1");
        let process = Process::spawn(bed.dir(), "moto-tls", &mut command);
        wait_for("moto to listen", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", port.number())));
        SecureMoto { port, authority: bed.dir().join("authority.pem"), _process: process }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.number())
    }

    /// `--create-table` needs DynamoDB only.
    fn create_table(&self, bed: &Bed, bundle: Option<&Path>) -> Hsdo {
        let hsdo = Hsdo::with_aws(bed, "create").arg("--create-table").env("AWS_ENDPOINT_URL", &self.url());
        match bundle {
            Some(bundle) => hsdo.env("AWS_CA_BUNDLE", &bundle.to_string_lossy()),
            None => hsdo,
        }
    }
}

/// A `CONNECT` proxy that records its targets. It speaks no TLS itself.
struct ConnectProxy {
    listener: Listener,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let serve = move |mut reader: BufReader<TcpStream>| {
            let Ok(Some(request)) = read_request(&mut reader) else { return };
            lock(&seen).push(format!("{} {}", request.method, request.target));
            let refusal: &[u8] = match request.headers.get("proxy-authorization").map(String::as_str) {
                Some("Basic dXM6aHVzaA==") => b"",
                Some("Basic YmFubmVkOmh1c2g=") => b"HTTP/1.1 403 Not you\r\n\r\n",
                _ => b"HTTP/1.1 407 Who are you\r\n\r\n",
            };
            if !refusal.is_empty() {
                let _ = reader.get_mut().write_all(refusal);
                return;
            }
            let Ok(mut to) = TcpStream::connect(&request.target) else { return };
            let Ok(mut back) = reader.get_ref().try_clone() else { return };
            let Ok(mut from) = to.try_clone() else { return };
            let _ = back.write_all(b"HTTP/1.1 200 Connected\r\n\r\n");
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        };
        let listener = Listener::start(SocketAddr::from(([127, 0, 0, 1], 0)), serve).expect("some port is free");
        ConnectProxy { listener, asked }
    }

    /// With user name and password.
    fn url(&self) -> String {
        format!("http://us:hush@{}", self.listener.address())
    }

    fn targets(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.asked))
    }
}

#[test]
fn a_private_authority_is_trusted_where_someone_says_so_and_a_proxy_is_used_and_left_out() {
    let bed = Bed::new("tls");
    let moto = SecureMoto::start(&bed);

    let refused = moto.create_table(&bed, None).run();
    refused.assert_code(1).assert_stderr("its certificate is not accepted").assert_stderr("AWS_CA_BUNDLE");
    moto.create_table(&bed, Some(&moto.authority)).run().assert_code(0).assert_stdout("created");
    let config = bed.file("config", &format!("[default]\nca_bundle = {}\n", moto.authority.display()));
    let of_profile = moto.create_table(&bed, None).env("AWS_CONFIG_FILE", &config.to_string_lossy());
    of_profile.run().assert_code(0).assert_stdout("already exists");
    let missing = moto.create_table(&bed, Some(Path::new("/nonexistent.pem"))).run();
    missing.assert_code(2).assert_stderr("/nonexistent.pem (AWS_CA_BUNDLE)");

    let proxy = ConnectProxy::start();
    let trusted = || moto.create_table(&bed, Some(&moto.authority)).arg("--debug");
    let through = trusted().env("HTTPS_PROXY", &proxy.url()).run();
    through.assert_code(0);
    assert!(!through.stderr.contains("hush"), "{through}");
    let asked = proxy.targets();
    assert!(!asked.is_empty() && asked.iter().all(|line| *line == format!("CONNECT 127.0.0.1:{}", moto.port.number())));
    trusted().env("HTTPS_PROXY", &proxy.url()).env("NO_PROXY", "example.test,127.0.0.0/8").run().assert_code(0);
    trusted().env("HTTP_PROXY", &proxy.url()).run().assert_code(0);
    assert_eq!(proxy.targets(), Vec::<String>::new());

    let address = proxy.listener.address();
    let turned_away = |variable: &str, url: &str, text: &str| {
        let outcome = trusted().env(variable, url).env("AWS_MAX_ATTEMPTS", "1").run();
        outcome.assert_code(1).assert_stderr(text);
        assert!(!outcome.stderr.contains("hush"), "{outcome}");
    };
    let wrong = proxy.url().replace("us:hush", "them:hush");
    turned_away(
        "HTTPS_PROXY",
        &wrong,
        &format!("the proxy {address} (HTTPS_PROXY) rejects the user and password in HTTPS_PROXY"),
    );
    let nobody = proxy.url().replace("us:hush@", "");
    turned_away("ALL_PROXY", &nobody, &format!("the proxy {address} (ALL_PROXY) requires authentication (status 407)"));
    let banned = proxy.url().replace("us:hush", "banned:hush");
    let refused = format!("the proxy {address} (https_proxy) refuses CONNECT to 127.0.0.1 (status 403)");
    turned_away("https_proxy", &banned, &refused);
    let gone = "cannot be reached: the proxy 127.0.0.1:1 (HTTPS_PROXY): connection refused";
    turned_away("HTTPS_PROXY", "http://us:hush@127.0.0.1:1", gone);
}

/// A proxy's page in place of a response is quoted; secrets of the request that it echoes are masked.
#[test]
fn a_page_of_a_proxy_is_quoted_without_secrets() {
    const TOKEN: &str = "the-token-that-nobody-may-see";
    let bed = bed("page");
    for (status, said) in [(403, "HTTP 403: "), (503, "HTTP 503: "), (200, "unreadable response: it is an HTML page: ")]
    {
        let page = format!(
            "<html><head><title>Blocked</title><style>p {{ color: red }}</style></head><body><p>By order of the \
             <b>security team</b>: you sent x-amz-security-token: {TOKEN}</p><p>{}</p></body></html>",
            "and so on ".repeat(100)
        );
        bed.aws().inject("Scan", Fault::Reply(status, page));
        let outcome = Hsdo::server(&bed).env("AWS_SESSION_TOKEN", TOKEN).arg("--debug").once();
        bed.aws().heal();
        outcome.assert_code(1).assert_stderr(&format!("{said}\"Blocked By order of the security team : you"));
        assert!(!outcome.stderr.contains(TOKEN), "{outcome}");
        let quoted = outcome.stderr.lines().last().and_then(|line| line.split('"').rev().nth(1)).unwrap_or_default();
        assert_eq!(quoted.trim_end_matches("...").chars().count(), 200, "{outcome}");
    }
}

#[test]
fn plain_calls_go_through_their_own_proxy() {
    let bed = bed("http-proxy");
    let proxy = ConnectProxy::start();
    Hsdo::server(&bed).env("http_proxy", &proxy.url()).once().assert_code(0);
    assert!(!proxy.targets().is_empty());
    Hsdo::server(&bed).env("http_proxy", &proxy.url()).env("no_proxy", "127.0.0.1").once().assert_code(0);
    assert_eq!(proxy.targets(), Vec::<String>::new());
}

#[test]
fn connections_are_kept_from_turn_to_turn() {
    let bed = bed("kept");
    let mut server = Hsdo::server(&bed).spawn();
    server.wait_turn();
    let before = bed.aws().connections();
    wait_for("twenty turns", SOON, || {
        let count = server.metric(r#"hsdo_turns_total{result="ok"}"#).unwrap_or(0.0);
        if count >= 20.0 { Ok(()) } else { Err(count) }
    });
    assert_eq!(bed.aws().connections(), before);
}

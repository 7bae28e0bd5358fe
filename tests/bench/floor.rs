//! The least that a client's steady turn can cost: the same two calls, with the responses thrown away. No signing,
//! parsing, decisions or metrics.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// `floor URL SOCKET BACKEND INTERVAL`: turns until it is killed.
pub fn run(arguments: &[String]) {
    let [url, socket, backend, interval] = arguments else { panic!("floor URL SOCKET BACKEND INTERVAL") };
    let interval = Duration::from_secs_f64(interval.parse().expect("seconds"));
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(4))).proxy(None);
    let agent = ureq::Agent::new_with_config(config.build());
    let ask = r#"{"TableName":"hsdo","Key":{"BackendServerID":{"N":"1"}},"ConsistentRead":false,"ReturnConsumedCapacity":"TOTAL","ProjectionExpression":"BackendServerID, HsdoVersion, HsdoHeartbeat, HsdoLeader, HsdoBlind"}"#;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let begun = Instant::now();
        let answer = agent.post(url).header("x-amz-target", "DynamoDB_20120810.GetItem").send(ask);
        // After a pause, its connection may be closed or its call interrupted.
        let Ok(answer) = answer else { continue };
        let mut body = answer.into_body().into_reader();
        while body.read(&mut buffer).is_ok_and(|length| length > 0) {}
        let mut stream = UnixStream::connect(socket).expect("HAProxy's socket");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        stream.write_all(format!("show info;show stat {backend} 4 -1\n").as_bytes()).expect("asked");
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        std::thread::sleep(interval.saturating_sub(begun.elapsed()));
    }
}

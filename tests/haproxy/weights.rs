//! Algorithms that take only the configured weight.

use super::fixture::{BACK, Config, bed_with_table, client};
use crate::common::traffic;

/// 100 % of nothing: no server of such a backend can ever serve.
#[test]
fn a_configured_weight_of_zero_with_a_static_algorithm_is_told() {
    let bed = bed_with_table("weight-zero", 2, 2);
    let config = "backend http-back\n    server-template web 1-2 127.0.0.2:80 check inter 100ms disabled\n\n\
                  backend hashed\n    balance source\n    \
                  server-template web 1-2 127.0.0.2:80 weight 0 check inter 100ms disabled\n";
    let haproxy = Config::of(config).start(&bed, &[BACK, "hashed"]);
    let mut running = client(&bed, 2, "hashed:web:$WEB,http-back:web:$WEB").spawn();
    haproxy.wait_weights(BACK, &[("web1", 10), ("web2", 10)]);
    let told = "hashed/web[1-2]: their configured weight is 0, and the static algorithm accepts no other; \
                give the `server-template` a weight, or the backend `hash-type consistent`";
    running.wait_log(told);
    assert_eq!(running.log().matches(told).count(), 1, "{}", running.log());
    bed.moto().put_free(1);
    haproxy.wait_weights(BACK, &[("web2", 10)]);
}

/// The remedy works.
#[test]
fn a_consistent_hash_takes_any_weight() {
    let bed = bed_with_table("weight-consistent", 2, 2);
    let config = "backend hashed\n    balance source\n    hash-type consistent\n    \
                  server-template web 1-2 127.0.0.2:80 weight 0 check inter 100ms disabled\n";
    let haproxy = Config::of(config).start(&bed, &["hashed"]);
    let _client = client(&bed, 2, "hashed:web:$WEB").spawn();
    haproxy.wait_weights("hashed", &[("web1", 10), ("web2", 10)]);
    assert_eq!(traffic::send(haproxy.frontend("hashed"), 5).failures, Vec::<String>::new());
}

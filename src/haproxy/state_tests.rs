//! Valid and malformed tables. `recorded` tests what each version printed.

use super::*;

const HEAD: &str = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
                    srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
                    srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord";

/// A table with one server: its address, op state, admin state, weights, check state, name, port and record.
fn table(fields: [&str; 9]) -> String {
    let [address, op, admin, weight, configured, check, fqdn, port, record] = fields;
    format!(
        "1\n{HEAD}\n3 http-back 1 web1 {address} {op} {admin} {weight} {configured} 8 6 3 4 {check} 0 0 0 {fqdn} {port} {record}"
    )
}

fn server(fields: [&str; 9]) -> Running {
    parse(&table(fields)).expect("a table").servers.remove("web1").expect("web1")
}

#[test]
fn the_states_of_a_server() {
    let plain = ["10.0.0.1", "2", "4", "7", "1", "6", "-", "80", "-"];
    let with = |place: usize, value: &'static str| {
        let mut fields = plain;
        fields[place] = value;
        server(fields)
    };
    let ready = server(plain);
    let expected = Running {
        admin: Admin::Ready,
        inherited: false,
        up: true,
        address: Some("10.0.0.1:80".parse().unwrap()),
        weight: 7,
        configured: 1,
        checked: true,
        checking: false,
        busy: false,
        named: false,
    };
    assert_eq!(ready, expected, "`disabled` in the configuration leaves bit 4 for ever");
    for (admin, expected, inherited, why) in [
        ("0", Admin::Ready, false, "enabled in the configuration"),
        ("5", Admin::Maintenance, false, "in maintenance"),
        ("1", Admin::Maintenance, false, "in maintenance, enabled in the configuration"),
        ("12", Admin::Drain, false, "drained"),
        ("13", Admin::Maintenance, false, "drained, then in maintenance"),
        ("2", Admin::Ready, true, "tracks one in maintenance"),
        ("7", Admin::Maintenance, true, "tracks one in maintenance, and is in it itself"),
        ("16", Admin::Ready, true, "tracks one that is drained"),
        ("36", Admin::Ready, true, "its name does not resolve"),
    ] {
        let server = with(2, admin);
        assert_eq!((server.admin, server.inherited), (expected, inherited), "{why}");
    }
    for (op, up) in [("0", false), ("1", true), ("2", true), ("3", false)] {
        assert_eq!(with(1, op).up, up, "{op}");
    }
    for (check, checked, checking) in [
        ("0", false, false),
        ("8", false, false),
        ("14", true, false),
        ("15", true, true),
        ("6", true, false),
        ("7", true, true),
        ("2", false, false),
    ] {
        let server = with(5, check);
        assert_eq!((server.checked, server.checking), (checked, checking), "{check}");
    }
    assert_eq!(with(0, "2001:db8::1").address, Some("[2001:db8::1]:80".parse().unwrap()));
    assert_eq!(with(0, "-").address, None);
    assert_eq!(with(7, "0").address, Some("10.0.0.1:0".parse().unwrap()));
}

#[test]
fn names_that_a_resolver_may_look_up() {
    let plain = parse(&table(["10.0.0.1", "2", "4", "7", "1", "6", "-", "80", "-"])).unwrap();
    assert_eq!((plain.number.as_deref(), plain.hosts.len(), plain.servers["web1"].named), (Some("3"), 0, false));
    let named = parse(&table(["10.0.0.1", "2", "4", "7", "1", "6", "web.test", "80", "-"])).unwrap();
    assert_eq!((named.hosts.first().map(String::as_str), named.servers["web1"].named), (Some("web1"), false));
    let record = parse(&table(["-", "0", "36", "7", "1", "6", "-", "0", "_web._tcp.test"])).unwrap();
    assert_eq!((record.hosts.len(), record.servers["web1"].named), (0, true));
}

#[test]
fn only_a_configured_resolver_counts() {
    let section = |name: &str, sent: u32| {
        format!("Resolvers section {name}\n nameserver 127.0.0.53:\n  sent:        {sent}\n  snd_error:   0\n")
    };
    for (reply, expected) in [
        (String::new(), false),
        (section("default", 0), false),
        (section("default", 3), true),
        (section("consul", 0), true),
        (section("default", 0) + &section("consul", 0), true),
        ("Can't find resolvers section".to_owned(), false),
    ] {
        assert_eq!(has_resolver(&reply), expected, "{reply}");
    }
}

#[test]
fn missing_and_disabled_backends() {
    let known = vec!["http-back".to_owned(), "old".to_owned()];
    assert_eq!(missing_backend("# name\nhttp-back\nold\nMASTER"), BackendFault::Missing(known));
    let enabled = table(["10.0.0.1", "0", "5", "1", "1", "8", "-", "80", "-"]);
    assert!(!parse(&enabled).unwrap().disabled);
    assert!(parse(&enabled.replace(" 1 web1 ", " 0 web1 ")).unwrap().disabled);
}

#[test]
fn malformed_tables() {
    for (reply, fault) in [
        ("", "it is empty"),
        ("No such proxy.", "it begins with \"No such proxy.\""),
        ("1", "it begins with \"1\""),
        ("1\n# be_id srv_id srv_name", "`show servers state` has no column srv_addr"),
    ] {
        assert_eq!(parse(reply).unwrap_err(), fault);
    }
    let good = table(["10.0.0.1", "2", "4", "7", "1", "6", "-", "80", "-"]);
    assert!(parse(&format!("{good} more fields than the head")).is_ok());
    assert!(parse(&good.replace(" - 80 -", "")).unwrap_err().contains("only 17 fields"));
    for (from, to) in [(" 7 1 ", " 257 1 "), (" 7 1 ", " 7 x "), (" 2 4 ", " 2 x ")] {
        let fault = parse(&good.replace(from, to)).unwrap_err();
        assert!(fault.contains("it shows a"), "{fault}");
    }
    for bad in ["", "-1", "3;shutdown"] {
        assert_eq!(parse(&good.replace("\n3 ", &format!("\n{bad} "))).unwrap().number, None, "{bad}");
    }
}

//! The tables as HAProxy 2.2 to 2.8 print them, and tables that it never printed.

use super::*;

/// As HAProxy of that version prints it, but for the number of rows.
fn recorded(version: &str) -> Servers {
    let text = match version {
        "2.6" => include_str!("../../tests/data/show-stat-2.6.csv"),
        "2.8" => include_str!("../../tests/data/show-stat-2.8.csv"),
        _ => unreachable!(),
    };
    parse_stat(text.trim_end()).unwrap()
}

#[test]
fn recorded_tables_read_alike() {
    for version in ["2.6", "2.8"] {
        let servers = recorded(version);
        let ready = &servers["s1"];
        assert_eq!(ready.admin, Admin::Ready, "{version}");
        assert_eq!(ready.health, Health::Passed, "{version}");
        assert_eq!(ready.address, Some("127.0.0.1:18901".parse().unwrap()), "{version}");
        assert_eq!(ready.weight, Some(7), "{version}");
        assert_eq!(servers["s2"].admin, Admin::Maintenance, "{version}");
        assert_eq!(servers["s2"].address, Some("127.0.0.2:18900".parse().unwrap()), "{version}");
        assert_eq!(servers["s3"].admin, Admin::Drain, "{version}");
        assert_eq!((servers["s4"].admin, servers["s4"].health), (Admin::Ready, Health::Down), "{version}");
        assert_eq!(servers["s5"].address, Some("[2001:db8::1]:80".parse().unwrap()), "{version}");
    }
}

/// 2.2 prints the first 99 of these columns, at the same places, and not `uweight`.
#[test]
fn the_table_of_2_2_has_no_weight() {
    let newer = include_str!("../../tests/data/show-stat-2.6.csv");
    let older: Vec<String> =
        newer.trim_end().lines().map(|line| line.split(',').take(99).collect::<Vec<_>>().join(",") + ",").collect();
    let servers = parse_stat(&older.join("\n")).unwrap();
    assert_eq!(servers["s1"].weight, None);
    assert_eq!(servers["s1"].health, Health::Passed);
    let state = include_str!("../../tests/data/show-servers-state-2.6.txt");
    assert_eq!(parse_weights(state.trim_end()).unwrap()["s1"], 7);
}

#[test]
fn the_number_of_a_backend_carries_no_command() {
    let numbers = |number: &str| parse_numbers(&format!("# pxname,svname,iid,\nhttp-back,BACKEND,{number},"));
    assert_eq!(numbers("3"), Ok(BTreeMap::from([("http-back".to_owned(), "3".to_owned())])));
    for bad in ["", "3;shutdown sessions server b/s", "-1", "3 4"] {
        assert!(numbers(bad).is_err(), "{bad}");
    }
}

#[test]
fn rows_with_and_without_quotes_read_alike() {
    for text in [include_str!("../../tests/data/show-stat-2.6.csv"), include_str!("../../tests/data/show-stat-2.8.csv")]
    {
        let text = text.trim_end();
        let quoted = text.split_once('\n').map(|(head, rows)| {
            let row = |row: &str| row.split_once(',').map(|(name, rest)| format!("\"{name}\",{rest}"));
            format!("{head}\n{}", rows.lines().filter_map(row).collect::<Vec<_>>().join("\n"))
        });
        assert_eq!(parse_stat(&quoted.unwrap()), parse_stat(text));
        assert!(!parse_stat(text).unwrap().is_empty());
    }
}

#[test]
fn every_status() {
    use Admin::{Drain, Inherited, Maintenance, Ready};
    use Health::{Down, Passed, Shaky, Unchecked};
    for (status, check, expected) in [
        ("UP", "L4OK", (Ready, Passed)),
        ("UP", "* L7OK", (Ready, Passed)),
        ("UP", "L6OK", (Ready, Passed)),
        ("UP", "PROCOK", (Ready, Passed)),
        ("UP", "", (Ready, Passed)),
        ("UP", "INI", (Ready, Shaky)),
        ("UP 1/3", "INI", (Ready, Shaky)),
        ("UP 2/3", "L4TOUT", (Ready, Shaky)),
        ("no check", "", (Ready, Unchecked)),
        ("DOWN", "L4CON", (Ready, Down)),
        ("DOWN 1/2", "L4OK", (Ready, Down)),
        ("DOWN (agent)", "L4OK", (Ready, Down)),
        ("NOLB", "L7OKC", (Ready, Down)),
        ("NOLB 1/2", "L7OKC", (Ready, Down)),
        ("DRAIN", "L4OK", (Drain, Down)),
        ("DRAIN 1/3", "INI", (Drain, Down)),
        ("DRAIN (agent)", "", (Drain, Down)),
        ("MAINT", "", (Maintenance, Down)),
        ("MAINT (via b/s1)", "", (Inherited, Down)),
        ("MAINT (resolution)", "", (Inherited, Down)),
    ] {
        assert_eq!(parse_status(status, check), expected, "{status} {check}");
    }
}

#[test]
fn quoted_fields() {
    for (line, expected) in [
        ("a,b,", Ok(vec!["a", "b", ""])),
        (r#"a,"b,c",d"#, Ok(vec!["a", "b,c", "d"])),
        (r#""a ""quoted"" word",b"#, Ok(vec![r#"a "quoted" word"#, "b"])),
        (r#"a,"""#, Ok(vec!["a", ""])),
        (r#"a,"b"#, Err(())),
        (r#""a"b,c"#, Err(())),
    ] {
        let mut fields = Vec::new();
        let read = split_csv(line, &mut fields).map(|()| fields.iter().map(AsRef::as_ref).collect());
        assert_eq!(read.map_err(|_| ()), expected, "{line}");
    }
}

#[test]
fn what_is_no_table_is_an_error() {
    let head = "# pxname,svname,status,type,check_status,addr,uweight,";
    for (name, reply) in [
        ("empty", String::new()),
        ("permission", "Permission denied".to_owned()),
        ("a column less", "# pxname,svname,status,type,addr,uweight,\n".to_owned()),
        ("a short row", format!("{head}\nb,s1,UP,2,")),
        ("a long row", format!("{head}\nb,s1,UP,2,L4OK,1.2.3.4:80,1,,")),
        ("a strange weight", format!("{head}\nb,s1,UP,2,L4OK,1.2.3.4:80,257,")),
    ] {
        assert!(parse_stat(&reply).is_err(), "{name}");
    }
    assert_eq!(parse_stat(head).unwrap(), Servers::new(), "a backend without servers");
}

#[test]
fn weights_of_servers_state() {
    let reply = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
                 3 b 1 s1 127.0.0.1 2 4 7\n3 b 2 s2 127.0.0.2 0 5 1";
    let weights = parse_weights(reply).unwrap();
    assert_eq!(weights, BTreeMap::from([("s1".to_owned(), 7), ("s2".to_owned(), 1)]));
    for bad in
        ["", "Can't find backend.", "2\n# srv_name srv_uweight", "1\n# srv_name\ns1", "1\n# srv_name srv_uweight\ns1"]
    {
        assert!(parse_weights(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn numbered_names() {
    for (name, base, expected) in [
        ("web1", "web", Some(1)),
        ("web-10", "web-", Some(10)),
        ("web11", "web1", Some(1)),
        ("web11", "web", Some(11)),
        ("web01", "web", None),
        ("web0", "web", None),
        ("web", "web", None),
        ("web+1", "web", None),
        ("api1", "web", None),
        ("web99999999999", "web", None),
    ] {
        assert_eq!(number_of(name, base), expected, "{name}");
    }
}

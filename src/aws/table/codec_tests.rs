//! Reading and writing items, and rejecting malformed ones.

use proptest::prelude::*;

use super::*;

fn s(text: &str) -> Attribute {
    Attribute::S(text.to_string())
}

fn n(text: &str) -> Attribute {
    Attribute::N(text.to_string())
}

/// An item as the original writes it.
fn original() -> Item {
    let pairs = [
        (KEY, n("4")),
        (ADDRESS, s("10.1.2.3")),
        (NAME, s("i-0123456789abcdef0")),
        (GROUP, s("web")),
        (WEIGHT, n("7")),
        (STATUS, s("enabled")),
        (LAST_STEP, s("2024-02-29 12:34:56.123456")),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn with(attribute: &str, value: Option<Attribute>) -> Item {
    let mut item = original();
    match value {
        Some(value) => drop(item.insert(attribute.to_string(), value)),
        None => drop(item.remove(attribute)),
    }
    item
}

fn occupant(item: &Item) -> Occupant {
    match row(4, item) {
        Row::Readable(slot) => slot.occupant.clone().expect("an occupant"),
        other @ Row::Unreadable { .. } => panic!("an occupant expected: {other:?}"),
    }
}

#[test]
fn an_item_of_the_original_is_read() {
    let expected = Occupant {
        address: "10.1.2.3".parse().expect("an address"),
        name: "i-0123456789abcdef0".to_string(),
        group: Some("web".to_string()),
        zone: None,
        port: None,
        weight: 7,
        status: Status::Enabled,
        last_step: Timestamp::parse("2024-02-29 12:34:56.123456"),
        drain_since: None,
    };
    assert_eq!(id(&original()), Ok(4));
    assert_eq!(row(4, &original()), Row::Readable(Slot { occupant: Some(expected), ..Slot::empty(4) }.into()));
}

#[test]
fn a_free_item_of_the_original_is_read_and_written_alike() {
    let mut free = encode(&Slot::empty(4)).into_iter();
    let expected = [s("none"), s("none"), s("none"), n("0"), s("disabled"), s("0-0-0 00:00:00.000000")];
    for (attribute, value) in ROW_ATTRIBUTES.iter().zip(expected) {
        assert_eq!(free.next().flatten(), Some(value), "{attribute}");
    }
    assert!(free.all(|value| value.is_none()), "nothing of ours on a slot that never had a group");
    let mut item = original();
    for (attribute, value) in ROW_ATTRIBUTES.iter().zip(encode(&Slot::empty(4))) {
        item.remove(*attribute);
        item.extend(value.map(|value| ((*attribute).to_string(), value)));
    }
    assert_eq!(row(4, &item), Row::Readable(Slot::empty(4).into()));
}

#[test]
fn an_occupied_slot_is_encoded_as_by_the_original() {
    let drain_since = Timestamp::parse("2024-02-29 12:00:00");
    let zone = Some("eu-west-1a".to_string());
    let occupant = Occupant { zone, port: Some(8081), drain_since, ..occupant(&original()) };
    let (last_group, last_zone) = (Some("old".to_string()), Some("eu-west-1b".to_string()));
    let slot = Slot { id: 4, occupant: Some(occupant), last_group, last_zone };
    let written = encode(&slot);
    for (attribute, value) in ROW_ATTRIBUTES.iter().zip(&written).take(6) {
        assert_eq!(value.as_ref(), original().get(*attribute), "{attribute}");
    }
    assert_eq!(
        written[6..],
        [
            Some(s("old")),
            Some(s("eu-west-1a")),
            Some(s("eu-west-1b")),
            Some(n("8081")),
            Some(s("2024-02-29 12:00:00.000000"))
        ]
    );
}

#[test]
fn optional_attributes_may_be_missing_or_malformed() {
    for (value, expected) in [(None, None), (Some(s("none")), None), (Some(s("")), None), (Some(s("a b")), Some("a b"))]
    {
        assert_eq!(occupant(&with(GROUP, value)).group.as_deref(), expected);
    }
    assert_eq!(occupant(&with(LAST_STEP, Some(s("yesterday")))).last_step, None);
    assert!(occupant(&with(LAST_STEP, Some(s("2024-02-29T12:34:56")))).last_step.is_some());
    assert_eq!(occupant(&with(WEIGHT, Some(n("256")))).weight, 256);
    assert_eq!(occupant(&with(PORT, Some(n("65535")))).port, Some(65_535));
    assert_eq!(occupant(&with(PORT, None)).port, None);
    assert_eq!(occupant(&with(STATUS, Some(s("draining")))).status, Status::Draining);
    assert_eq!(occupant(&with(STATUS, Some(s("disabled")))).status, Status::Disabled);
    assert_eq!(occupant(&with(ADDRESS, Some(s("127.0.0.1")))).address.to_string(), "127.0.0.1");
    assert_eq!(occupant(&with(ADDRESS, Some(s("fd00::1")))).address.to_string(), "fd00::1");
    for (value, expected) in [(s("web"), Some("web")), (s("none"), None), (n("1"), None), (s("a\nb"), None)] {
        let read = |attribute: &str| match row(4, &with(attribute, Some(value.clone()))) {
            Row::Readable(slot) => slot.as_ref().clone(),
            other @ Row::Unreadable { .. } => panic!("a readable row expected: {other:?}"),
        };
        assert_eq!(read(LAST_GROUP).last_group.as_deref(), expected);
        assert_eq!(read(LAST_ZONE).last_zone.as_deref(), expected);
        assert_eq!(read(ZONE).occupant.expect("an occupant").zone.as_deref(), expected);
    }
}

#[test]
fn an_unreadable_row_says_why() {
    let cases = [
        (ADDRESS, None, "IPAddress is missing"),
        (ADDRESS, Some(n("1")), "IPAddress is not a string"),
        (ADDRESS, Some(s("")), "IPAddress \"\" is not an IP address"),
        (ADDRESS, Some(s("None")), "IPAddress \"None\" is not an IP address"),
        (ADDRESS, Some(s("10.0.0.1 ")), "IPAddress \"10.0.0.1 \" is not an IP address"),
        (ADDRESS, Some(s("10.0.0.1; shutdown frontend fe")), "is not an IP address"),
        (ADDRESS, Some(s("10.0.0.1\nset")), "IPAddress \"10.0.0.1\\nset\" is not an IP address"),
        (ADDRESS, Some(s("0.0.0.0")), "IPAddress \"0.0.0.0\" is not an address that a server can have"),
        (ADDRESS, Some(s("255.255.255.255")), "that a server can have"),
        (ADDRESS, Some(s("224.0.0.1")), "that a server can have"),
        (ADDRESS, Some(s("::")), "that a server can have"),
        (ADDRESS, Some(s("ff02::1")), "that a server can have"),
        (NAME, None, "ServerName is missing"),
        (NAME, Some(s("a\u{7}b")), "ServerName \"a\\u{7}b\" holds a control character"),
        (GROUP, Some(n("1")), "ASG is not a string"),
        (GROUP, Some(s("a\nb")), "ASG \"a\\nb\" holds a control character"),
        (WEIGHT, None, "Weight is missing"),
        (WEIGHT, Some(s("1")), "Weight is not a number"),
        (WEIGHT, Some(n("257")), "Weight \"257\" is not a whole number from 0 to 256"),
        (WEIGHT, Some(n("-1")), "Weight \"-1\" is not"),
        (WEIGHT, Some(n("1.5")), "Weight \"1.5\" is not"),
        (PORT, Some(n("0")), "HsdoPort \"0\" is not a port from 1 to 65535"),
        (PORT, Some(n("65536")), "HsdoPort \"65536\" is not a port"),
        (PORT, Some(s("80; shutdown")), "HsdoPort is not a number"),
        (STATUS, None, "BackendServerStatus is missing"),
        (STATUS, Some(s("on")), "BackendServerStatus \"on\" is not one of"),
        (LAST_STEP, None, "LastWeightUpdate is missing"),
        (LAST_STEP, Some(Attribute::Null(true)), "LastWeightUpdate is not a string"),
    ];
    for (attribute, value, expected) in cases {
        match row(4, &with(attribute, value.clone())) {
            Row::Unreadable { reason, .. } => assert!(reason.contains(expected), "{reason} <> {expected}"),
            Row::Readable(slot) => panic!("{attribute} {value:?} was read as {slot:?}"),
        }
    }
    let long = with(NAME, Some(s(&"x".repeat(256))));
    assert!(matches!(row(4, &long), Row::Unreadable { reason, .. } if reason.len() < 100));
    assert!(matches!(row(4, &with(NAME, Some(s(&"é".repeat(255))))), Row::Readable(_)));
}

#[test]
fn an_item_without_a_valid_number_is_a_stray() {
    for good in ["4", "4.0", "0.4E1", "40e-1", "+4", "004"] {
        assert_eq!(id(&with(KEY, Some(n(good)))), Ok(4), "{good}");
    }
    for bad in ["0", "-1", "10001", "1.5", "", "x", "NaN", "1E99", "1E-99", "99999999999999999999999999999999999999"] {
        let stray = id(&with(KEY, Some(n(bad)))).expect_err(bad);
        assert!(stray.contains(KEY) && stray.contains(bad), "{stray}");
    }
    assert!(id(&with(KEY, Some(s("4")))).expect_err("a text").contains("not a number"));
    assert!(id(&with(KEY, None)).expect_err("no key").contains("missing"));
}

#[test]
fn an_update_sets_the_wanted_row_if_the_item_is_as_read() {
    let wanted = encode(&Slot::empty(4));
    let before = row_attributes(original());
    let made = row_update(4, &wanted, Some(&before));
    assert_eq!(
        made.update,
        "SET #a0 = :w0, #a1 = :w1, #a2 = :w2, #a3 = :w3, #a4 = :w4, #a5 = :w5 REMOVE #a6, #a7, #a8, #a9, #a10"
    );
    assert_eq!(
        made.condition,
        "#a0 = :b0 AND #a1 = :b1 AND #a2 = :b2 AND #a3 = :b3 AND #a4 = :b4 AND #a5 = :b5 AND attribute_not_exists(#a6) \
         AND attribute_not_exists(#a7) AND attribute_not_exists(#a8) AND attribute_not_exists(#a9) AND \
         attribute_not_exists(#a10)"
    );
    assert_eq!(made.names.get("#a0").map(String::as_str), Some("IPAddress"));
    assert_eq!((made.values.get(":w0"), made.values.get(":b0")), (Some(&s("none")), Some(&s("10.1.2.3"))));
    assert_eq!(made.key, key(4));
    let new = row_update(4, &wanted, None);
    assert_eq!(new.condition, "attribute_not_exists(#key)");
    assert_eq!(new.names.get("#key").map(String::as_str), Some(KEY));
    assert!(!new.values.keys().any(|value| value.starts_with(":b")));
}

#[test]
fn every_name_and_value_of_an_update_is_used() {
    // DynamoDB refuses a request that defines one that no expression uses.
    let last = Slot { last_group: Some("web".to_string()), ..Slot::empty(4) };
    for wanted in [encode(&last), encode(&Slot::empty(4))] {
        for before in [None, Some(row_attributes(original())), Some(row_attributes(with(GROUP, None)))] {
            assert_placeholders_used(&row_update(4, &wanted, before.as_ref()));
            assert_placeholders_used(&marker_update(&stamp(Some(1)), Some((&wanted, before.as_ref()))));
        }
    }
    for update in [
        marker_update(&stamp(Some(1)), None),
        claim_update(&claim(), None, &encode(&Slot::empty(1)), None),
        claim_update(&claim(), None, &encode(&Slot::empty(1)), Some(&n("1"))),
        claim_update(&claim(), Some(&[None, None, None]), &encode(&Slot::empty(1)), Some(&n("1"))),
        release_update("me"),
    ] {
        assert_placeholders_used(&update);
    }
}

fn assert_placeholders_used(made: &Update) {
    let words: Vec<&str> =
        made.update.split([' ', ',', '(', ')']).chain(made.condition.split([' ', ',', '(', ')'])).collect();
    for word in made.names.keys().chain(made.values.keys()) {
        assert!(words.contains(&word.as_str()), "{word} in {made:?}");
    }
}

fn stamp(version: Option<u64>) -> Stamp {
    Stamp { version, heartbeat: 9, leader: "me".to_string(), blind: false }
}

fn claim() -> Claim {
    Claim { version: 8, heartbeat: 9, leader: "me".to_string() }
}

fn marked(version: u64, heartbeat: u64, leader: &str) -> Marker {
    Marker { version: Some(version), heartbeat: Some(heartbeat), leader: Some(leader.to_string()), blind: false }
}

#[test]
fn unreadable_marker_attributes_count_as_missing() {
    assert_eq!(marker(&original()), Marker::default());
    let whole = [("HsdoVersion", n("7")), ("HsdoHeartbeat", n("1700000000000")), ("HsdoLeader", s("host/1/ab/1"))];
    let item: Item = whole.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
    assert_eq!(marker(&item), marked(7, 1_700_000_000_000, "host/1/ab/1"));
    for (name, bad) in [
        ("HsdoVersion", s("7")),
        ("HsdoVersion", n("-7")),
        ("HsdoVersion", n("7.5")),
        ("HsdoVersion", n("1000000000000001")),
        ("HsdoHeartbeat", Attribute::Null(true)),
        ("HsdoLeader", n("1")),
    ] {
        let mut item = item.clone();
        item.insert(name.to_string(), bad);
        let read = marker(&item);
        let missing = [read.version.is_none(), read.heartbeat.is_none(), read.leader.is_none()];
        assert_eq!(missing.iter().filter(|missing| **missing).count(), 1, "{name}: {read:?}");
    }
    for value in [s("1"), s(""), n("0"), Attribute::Bool(false), Attribute::Null(true)] {
        let mut item = item.clone();
        item.insert("HsdoBlind".to_string(), value);
        let read = marker(&item);
        assert_eq!(read, Marker { blind: true, ..marked(7, 1_700_000_000_000, "host/1/ab/1") });
    }
}

#[test]
fn the_lease_is_claimed_kept_and_released_under_conditions() {
    let seen: Item = [("HsdoVersion", n("7")), ("HsdoLeader", n("1"))].map(|(k, v)| (k.to_string(), v)).into();
    let taken = claim_update(&claim(), Some(&marker_attributes(&seen)), &encode(&Slot::empty(1)), Some(&n("1")));
    assert_eq!(taken.update, "SET #version = :version, #heartbeat = :heartbeat, #leader = :leader REMOVE #blind");
    assert_eq!(taken.condition, "#version = :seen0 AND attribute_not_exists(#heartbeat) AND #leader = :seen2");
    assert_eq!((taken.values.get(":seen2"), taken.values.get(":leader")), (Some(&n("1")), Some(&s("me"))));

    let made = claim_update(&claim(), None, &encode(&Slot::empty(1)), Some(&n("5")));
    assert_eq!(made.values.get(":orders"), Some(&n("5")), "orders come back with a lost row");
    assert_eq!(made.condition, "attribute_not_exists(#key)");
    assert_eq!(made.values.get(":w0"), Some(&s("none")), "a whole free slot, for the original's sake");

    let beat = marker_update(&stamp(None), None);
    assert_eq!(
        (beat.update.as_str(), beat.condition.as_str()),
        ("SET #heartbeat = :heartbeat REMOVE #blind", "#leader = :leader")
    );
    let blind = marker_update(&Stamp { blind: true, ..stamp(None) }, None);
    assert_eq!(blind.update, "SET #heartbeat = :heartbeat, #blind = :blind");
    assert_eq!((blind.condition.as_str(), blind.names["#blind"].as_str()), ("#leader = :leader", "HsdoBlind"));
    let back = release_update("me");
    assert_eq!((back.update.as_str(), back.condition.as_str()), ("REMOVE #blind, #leader", "#leader = :leader"));

    let both = marker_update(&stamp(Some(8)), Some((&encode(&Slot::empty(1)), Some(&row_attributes(original())))));
    assert!(
        both.update.starts_with("SET #a0 = :w0,")
            && both.update.ends_with("#heartbeat = :heartbeat REMOVE #a6, #a7, #a8, #a9, #a10, #blind"),
        "{both:?}"
    );
    assert!(
        both.condition.starts_with("#a0 = :b0 AND") && both.condition.ends_with("AND #leader = :leader"),
        "{both:?}"
    );
    let row = marker_slot_update("me", &encode(&Slot::empty(1)), Some(&row_attributes(original())));
    assert!(!row.update.contains("#heartbeat") && row.condition.ends_with("AND #leader = :leader"), "{row:?}");
    assert!([taken, made, beat, blind, back, both, row].iter().all(|update| update.key == key(1)));
}

pub(crate) fn an_occupant() -> impl Strategy<Value = Occupant> {
    let address = prop_oneof![
        (1_u32..0xE000_0000).prop_map(|bits| IpAddr::V4(bits.into())),
        (1_u128..(0xFE00_u128 << 112)).prop_map(|bits| IpAddr::V6(bits.into())),
    ];
    let status = prop_oneof![Just(Status::Enabled), Just(Status::Draining), Just(Status::Disabled)];
    let time = proptest::option::of((0_i64..4_102_444_800_000_000).prop_map(Timestamp::from_micros));
    let place = || proptest::option::of("[a-z][ -~]{4,40}");
    (address, "[ -~é]{0,40}", place(), place(), proptest::option::of(1_u16..), 0_u16..=256, status, time).prop_map(
        |(address, name, group, zone, port, weight, status, last_step)| Occupant {
            address,
            name,
            group,
            zone,
            port,
            weight,
            status,
            last_step,
            drain_since: last_step.filter(|_| status == Status::Draining),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        id in 1_u32..=10_000,
        occupant in proptest::option::of(an_occupant()),
        last_group in proptest::option::of("[a-z][ -~]{4,40}"),
        last_zone in proptest::option::of("[a-z][ -~]{4,40}"),
    ) {
        let slot = Slot { id, occupant, last_group, last_zone };
        let mut item = key(id);
        for (attribute, value) in ROW_ATTRIBUTES.iter().zip(encode(&slot)) {
            item.extend(value.map(|value| ((*attribute).to_string(), value)));
        }
        prop_assert_eq!(super::id(&item), Ok(id));
        prop_assert_eq!(row(id, &item), Row::Readable(slot.clone().into()));
        prop_assert_eq!(row_attributes(item), encode(&slot));
    }

    #[test]
    fn no_attribute_breaks_the_reader_or_a_log_line(attribute in 0_usize..ROW_ATTRIBUTES.len(), text in any::<String>()) {
        for value in [Attribute::S(text.clone()), Attribute::N(text.clone())] {
            if let Row::Unreadable { reason, .. } = row(4, &with(ROW_ATTRIBUTES[attribute], Some(value.clone()))) {
                prop_assert!(!reason.chars().any(char::is_control), "{}", reason);
                prop_assert!(reason.len() < 900);
            }
            if let Err(stray) = id(&with(KEY, Some(value))) {
                prop_assert!(!stray.chars().any(char::is_control), "{}", stray);
            }
        }
    }
}

use super::*;

fn s(text: &str) -> Attribute {
    Attribute::S(text.to_string())
}

fn n(text: &str) -> Attribute {
    Attribute::N(text.to_string())
}

fn map(entries: &[(&str, Attribute)]) -> Attribute {
    Attribute::M(entries.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect())
}

fn an_order(target: &str) -> Order {
    let moment = |seconds: i64| Some(Timestamp::from_micros(seconds * 1_000_000));
    Order {
        target: Target::parse(target).expect(target),
        until: moment(1_800_000_000),
        since: moment(1_700_000_000),
        by: Some("arn:aws:iam::1:user/x".to_string()),
        note: Some("patch".to_string()),
    }
}

#[test]
fn an_order_survives_writing_and_reading() {
    for target in ["slot:3", "i-0a", "10.0.0.7", "2001:db8::7", "zone:eu-west-1a", "group:web a"] {
        let whole = an_order(target);
        let bare = Order { until: None, since: None, by: None, note: None, ..whole.clone() };
        for order in [whole, bare] {
            let attribute = map(&[(target, entry(&order))]);
            assert_eq!(read(Some(&attribute)), Orders { all: vec![order], unreadable: vec![] });
        }
    }
    assert_eq!(read(None), Orders::default());
}

#[test]
fn an_entry_that_cannot_be_read_is_named_and_costs_the_others_nothing() {
    for (target, bad, expected) in [
        ("slot:0", map(&[]), "\"slot:0\": not a slot number"),
        ("slot:2", s("drain"), "\"slot:2\": it is not a map"),
        ("slot:2", map(&[("Until", s("tomorrow"))]), "\"slot:2\": Until is not a number"),
        ("slot:2", map(&[("Until", n("-5"))]), "\"slot:2\": Until \"-5\" is not in whole seconds since 1970"),
        ("slot:2", map(&[("Until", n("1.5"))]), "is not in whole seconds"),
        ("slot:2", map(&[("Until", n("1700000000000000"))]), "is not in whole seconds"),
        ("slot:2", map(&[("Note", n("1"))]), "\"slot:2\": Note is not a string"),
        ("\u{1b}[2J", map(&[]), "\"\\u{1b}[2J\": it has a control character"),
    ] {
        let good = an_order("slot:9");
        let orders = read(Some(&map(&[(target, bad), ("slot:9", entry(&good))])));
        assert_eq!(orders.all, [good], "{target}");
        let [UnreadableOrder { target: found, reason }] = orders.unreadable.as_slice() else { panic!("{orders:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(found.is_some(), target == "slot:2");
    }
    let orders = read(Some(&s("x")));
    assert_eq!(orders.unreadable[0].reason, "HsdoOrders is not a map");
    // A number in DynamoDB's other notations, and a note that steers a terminal.
    let odd = map(&[("slot:2", map(&[("Until", n("1.8E+9")), ("Note", s("a\nb"))]))]);
    let found = read(Some(&odd)).all.remove(0);
    assert_eq!((found.until, found.note.as_deref()), (an_order("slot:2").until, Some("a\\nb")));
}

#[test]
fn orders_are_removed_on_condition_that_nobody_changed_them() {
    let (one, two) = (an_order("slot:1"), an_order("zone:a"));
    let changed = Order { until: None, ..two.clone() };
    let before = map(&[("slot:1", entry(&one)), ("zone:a", entry(&changed)), ("odd", s("kept"))]);
    let made = removal(&before, &[one.clone(), two], "me");
    assert_eq!(made.condition, "attribute_exists(#key) AND #leader = :leader AND #orders = :before");
    assert_eq!(made.update, "SET #orders = :orders");
    let left = map(&[("zone:a", entry(&changed)), ("odd", s("kept"))]);
    assert_eq!((made.values.get(":orders"), made.values.get(":before")), (Some(&left), Some(&before)));
    let made = removal(&map(&[("slot:1", entry(&one))]), &[one], "me");
    assert_eq!(made.update, "REMOVE #orders");
    let first = update(None, Item::from([("slot:1".to_string(), map(&[]))]), None);
    assert_eq!(first.condition, "attribute_exists(#key) AND attribute_not_exists(#orders)");
}

#[test]
fn a_value_is_at_least_as_large_as_dynamodb_counts_it() {
    for (value, bytes) in [
        (s("é"), 2),
        (n("1700000000"), 6),
        (Attribute::Bool(true), 1),
        (map(&[("ab", s("cd"))]), 3 + 1 + 4),
        (Attribute::L(vec![s("a"), s("b")]), 3 + 2 + 2),
        (Attribute::Strings(vec!["a".to_string()]), 1),
    ] {
        assert!(size(&value) >= bytes, "{value:?}");
    }
}

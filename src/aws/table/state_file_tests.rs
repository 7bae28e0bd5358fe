//! What a state file holds, and which files are not used.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::aws::table::codec::tests::an_occupant;
use crate::slot::Slot;

const DAY: Duration = Duration::from_secs(86_400);
/// 2025-11-26 09:40:00 UTC.
const READ_AT: Timestamp = Timestamp::from_micros(1_764_150_000_000_000);

fn snapshot(slots: Vec<Slot>) -> Snapshot {
    let rows = slots.into_iter().map(|slot| (slot.id, Row::Readable(Arc::new(slot)))).collect();
    let table = Table { rows, strays: vec![] };
    Snapshot {
        table,
        name: "web".to_owned(),
        region: "eu-west-1".to_owned(),
        read_at: READ_AT,
        zone: Some("eu-west-1a".to_owned()),
    }
}

fn usual(text: &str) -> Result<Kept, String> {
    let region = Some("eu-west-1");
    let remembered = content(text, "web", region).map(|content| content.zone);
    assert!(remembered.is_err() || remembered == Ok(Some("eu-west-1a".to_owned())), "{remembered:?}");
    decode(text, "web", region, DAY, READ_AT.plus(Duration::from_secs(60)))
}

/// A file whose checksum is right, whatever it holds.
fn signed(json: &str) -> String {
    format!("{}\n{json}\n", checksum(json))
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let text = encode(&snapshot(vec![Slot::empty(1)]));
    let json = text.split_once('\n').expect("two lines").1.trim_end();
    let later = |seconds| READ_AT.plus(Duration::from_secs(seconds));
    let other = |from: &str, to: &str| signed(&json.replace(from, to));
    let cases = [
        (String::new(), "it is not whole"),
        ("x".to_owned(), "it is not whole"),
        (text[..text.len() - 2].to_owned(), "its checksum is wrong"),
        (text.replace("eu-west-1", "eu-west-2"), "its checksum is wrong"),
        (signed("{}"), "another version of hsdo wrote it: missing field"),
        (other("\"format\":1", "\"format\":2"), "another version of hsdo wrote it, in format 2 instead of 1"),
        (other("\"web\"", "\"api\""), "it is of table \"api\", not \"web\""),
        (other("eu-west-1", "eu\\u001b[1m"), "it is of region \"eu\\u{1b}[1m\", not \"eu-west-1\""),
        (other("2025-", "x-"), "its time cannot be read"),
        (other(r#""BackendServerID":{"N":"1"}"#, r#""BackendServerID":{"N":"1;2"}"#), "not a slot number"),
        (other("\"Weight\":{\"N\":\"0\"}", "\"Weight\":{\"N\":\"0;1\"}"), "slot 1: Weight"),
        (encode(&snapshot(vec![])), "it holds no row"),
    ];
    for (text, expected) in cases {
        let why = usual(&text).expect_err(expected);
        assert!(why.contains(expected), "{why}, expected {expected}");
    }
    for (now, expected) in [
        (later(86_400), Ok(86_400)),
        (later(86_401), Err("86401 s ago, and CLIENT_STATE_MAX_AGE allows 86400 s")),
        (Timestamp::from_micros(READ_AT.as_micros() - 86_400_000_000), Ok(0)),
        (Timestamp::from_micros(READ_AT.as_micros() - 86_400_000_001), Err("ahead of this machine's clock")),
    ] {
        match (decode(&text, "web", None, DAY, now), expected) {
            (Ok(kept), Ok(age)) => assert_eq!(kept.age, Duration::from_secs(age)),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (read, expected) => panic!("{read:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn a_row_that_was_unreadable_stays_so() {
    let mut snapshot = snapshot(vec![Slot::empty(1)]);
    snapshot.table.rows.insert(7, Row::Unreadable { reason: "x".to_owned(), address: None });
    let kept = usual(&encode(&snapshot)).expect("a table");
    assert!(matches!(kept.table.rows[&7], Row::Unreadable { .. }));
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let folder = std::env::temp_dir().join(format!("hsdo-state-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("table.json");
    replace(&path, "one").expect("written");
    replace(&path, "two").expect("written");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "two");
    let leftover = folder.join("table.json.new-1");
    fs::write(&leftover, "half").expect("written");
    fs::write(folder.join("table.json.bak"), "an operator's").expect("written");
    remove_leftovers(&path);
    let mut names: Vec<_> =
        fs::read_dir(&folder).expect("a folder").map(|one| one.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["table.json", "table.json.bak"]);
    fs::remove_dir_all(&folder).expect("removed");
    let error = replace(&path, "three").expect_err("no folder");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

proptest! {
    #[test]
    fn what_is_kept_is_what_was_read(occupants in prop::collection::vec(prop::option::of(an_occupant()), 1..6)) {
        let slot = |(id, occupant)| Slot { occupant, ..Slot::empty(id) };
        let slots = (1..).zip(occupants).map(slot).collect();
        let snapshot = snapshot(slots);
        let kept = usual(&encode(&snapshot)).expect("a table");
        prop_assert_eq!(kept.table, snapshot.table);
    }

    #[test]
    fn a_changed_or_cut_file_is_never_used(at in 0usize..10_000, bits in 1u8..128, cut in any::<bool>()) {
        let mut bytes = encode(&snapshot((1..5).map(Slot::empty).collect())).into_bytes();
        let at = at % (bytes.len() - 1);
        if cut { bytes.truncate(at) } else { bytes[at] ^= bits }
        if let Ok(text) = text_file::decode(bytes) {
            prop_assert!(usual(&text).is_err());
        }
    }
}

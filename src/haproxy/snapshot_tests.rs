use super::super::fuzzing::picked;
use super::*;

#[test]
fn commas_are_counted_in_blocks() {
    for block in [*b",,,,,,,,", *b"abcdefgh", *b"a,b,c,d,", *b"\x2c\xac\x00\xff\x2d\x2b\x80\x7f", [0; 8], [0xff; 8]] {
        assert_eq!(commas_in(block), block.iter().filter(|byte| **byte == b',').count(), "{block:?}");
    }
}

const HEAD: &str = "# pxname,svname,status,type,addr,uweight,other,";

/// The whole answer to one `show stat`.
fn answer(table: &str) -> String {
    format!("{table}\n\n")
}

fn of(answer: &str) -> Option<StatSnapshot> {
    StatSnapshot::of(&[answer.as_bytes()], answer.matches("# ").count())
}

fn unchanged(before: &str, now: &str) -> bool {
    of(before).expect("a table").matches(&[now.as_bytes()])
}

fn recorded() -> [&'static str; 2] {
    [include_str!("../../tests/data/show-stat-2.6.csv"), include_str!("../../tests/data/show-stat-2.8.csv")]
        .map(str::trim_end)
}

#[test]
fn only_the_columns_that_matter_make_a_difference() {
    for text in recorded() {
        let before = answer(text);
        assert!(unchanged(&before, &before));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        for column in 0..rows[0].len() - 1 {
            let name = rows[0][column].trim_start_matches("# ");
            for place in 1..rows.len() {
                let mut rows = rows.clone();
                rows[place][column] = "other";
                let other = rows.iter().map(|row| row.join(",")).collect::<Vec<_>>().join("\n");
                assert_eq!(unchanged(&before, &answer(&other)), !COLUMNS.contains(&name), "{name} in row {place}");
            }
        }
        let lines: Vec<&str> = text.lines().collect();
        for place in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(place);
            assert!(!unchanged(&before, &answer(&fewer.join("\n"))), "without line {place}");
            let mut more = lines.clone();
            more.insert(place, lines[place]);
            assert!(!unchanged(&before, &answer(&more.join("\n"))), "line {place} twice");
        }
        for end in 0..before.len() {
            assert!(!unchanged(&before, &before[..end]), "cut at {end}");
        }
    }
}

#[test]
fn several_backends_may_be_in_several_answers() {
    let row = |server: &str| format!("{HEAD}\nb,{server},UP,2,1.2.3.4:80,1,,\n\n");
    let (one, two, three) = (row("s1"), row("s2"), row("s3"));
    let first = format!("{one}{two}");
    let snapshot = StatSnapshot::of(&[first.as_bytes(), three.as_bytes()], 3).unwrap();
    assert!(snapshot.matches(&[first.as_bytes(), three.as_bytes()]));
    assert!(!snapshot.matches(&[]));
    assert!(!snapshot.matches(&[first.as_bytes()]));
    assert!(!snapshot.matches(&[first.as_bytes(), two.as_bytes()]));
    assert!(!snapshot.matches(&[first.as_bytes(), three.as_bytes(), three.as_bytes()]));
    assert!(!snapshot.matches(&[first.as_bytes(), three.as_bytes(), b"\n"]));
    assert!(StatSnapshot::of(&[first.as_bytes(), three.as_bytes()], 2).is_none(), "one more than was asked for");
    assert!(StatSnapshot::of(&[first.as_bytes()], 3).is_none(), "one less");
}

#[test]
fn what_is_not_a_plain_table_has_no_snapshot() {
    for table in [
        "",
        "No such proxy.",
        "# pxname,svname,\nb,s1,",
        &format!("{HEAD}\nb,s1,UP,2,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,,,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,,x"),
        // Ends with a wanted column, without a comma.
        "# pxname,svname,status,type,addr,uweight\nb,s1,UP,2,1.2.3.4:80,1,",
        &format!("{HEAD}\nb,\"s1\",UP,2,1.2.3.4:80,1,,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,\"a\","),
    ] {
        assert!(StatSnapshot::of(&[answer(table).as_bytes()], 1).is_none(), "{table}");
    }
}

proptest::proptest! {
    #[test]
    fn equal_snapshots_have_equal_fields(
        place in 0_usize..4_000,
        byte in proptest::sample::select(b",\n\"\r* aUs1.:#".to_vec()),
        cut in 0_usize..3,
    ) {
        for text in recorded() {
            let mut bytes = text.as_bytes().to_vec();
            let place = place % bytes.len();
            bytes.splice(place..(place + cut).min(text.len()), [byte]);
            let Ok(other) = String::from_utf8(bytes) else { continue };
            if unchanged(&answer(text), &answer(&other)) {
                proptest::prop_assert_eq!(picked(other.as_bytes()), picked(text.as_bytes()), "{} at {}", byte, place);
            }
        }
    }

    #[test]
    fn counting_by_blocks_finds_the_same_comma(text in "[,a-c\u{ac}-\u{ae}]{0,200}", count in 0_usize..120) {
        let mut ends = text.match_indices(',').map(|(place, _)| place + 1);
        let plain = if count == 0 { Some(0) } else { ends.nth(count - 1) };
        proptest::prop_assert_eq!(after_commas(text.as_bytes(), count), plain);
    }

    #[test]
    fn the_fields_are_those_of_a_plain_split(rows in proptest::collection::vec(proptest::collection::vec("[a-z]{0,12}", 7), 0..5)) {
        let table = rows.iter().fold(HEAD.to_owned(), |table, row| format!("{table}\n{},", row.join(",")));
        let fields = rows.iter().map(|row| [1, 2, 4, 5].map(|place| format!("{},", row[place])).concat());
        let expected = format!("{HEAD}\n{}\n", fields.collect::<String>());
        proptest::prop_assert_eq!(String::from_utf8(of(&answer(&table)).expect("a table").0).expect("ASCII"), expected);
    }
}

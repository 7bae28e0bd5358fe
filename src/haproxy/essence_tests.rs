use super::super::fuzzing::picked;
use super::*;

const HEAD: &str = "# pxname,svname,status,type,addr,uweight,other,";
const INFO: &str = "Name: HAProxy\nVersion: 2.6.12\nPid: 8\nUptime_sec: 3\nStart_time_sec: 1700\n\n";

/// The whole answer to `show info` and one `show stat`.
fn answer(table: &str) -> String {
    format!("{INFO}{table}\n\n")
}

fn of(answer: &str) -> Option<Essence> {
    Essence::of(&[answer.as_bytes()], answer.matches("# ").count())
}

fn alike(known: &str, now: &str) -> bool {
    of(known).expect("a table").is_that_of(&[now.as_bytes()])
}

fn recorded() -> [&'static str; 2] {
    [include_str!("../../tests/data/show-stat-2.6.csv"), include_str!("../../tests/data/show-stat-2.8.csv")]
        .map(str::trim_end)
}

#[test]
fn what_is_read_makes_a_difference_and_nothing_else() {
    for text in recorded() {
        let known = answer(text);
        assert!(alike(&known, &known));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        for column in 0..rows[0].len() - 1 {
            let name = rows[0][column].trim_start_matches("# ");
            for place in 1..rows.len() {
                let mut rows = rows.clone();
                rows[place][column] = "other";
                let other = rows.iter().map(|row| row.join(",")).collect::<Vec<_>>().join("\n");
                assert_eq!(alike(&known, &answer(&other)), !READ.contains(&name), "{name} in row {place}");
            }
        }
        let lines: Vec<&str> = text.lines().collect();
        for place in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(place);
            assert!(!alike(&known, &answer(&fewer.join("\n"))), "without line {place}");
            let mut more = lines.clone();
            more.insert(place, lines[place]);
            assert!(!alike(&known, &answer(&more.join("\n"))), "line {place} twice");
        }
        for end in 0..known.len() {
            assert!(!of(&known).unwrap().is_that_of(&[&known.as_bytes()[..end]]), "cut at {end}");
        }
    }
}

#[test]
fn who_answered_makes_a_difference() {
    let known = answer(HEAD);
    for (from, to, expected) in [
        ("Pid: 8", "Pid: 9", false),
        ("Pid: 8", "Pid: 88", false),
        ("Pid: 8\n", "", false),
        ("Pid: 8\n", "Pid: 8\nPid: 8\n", false),
        ("Version: 2.6.12", "Version: 2.6.13", false),
        ("Uptime_sec: 3", "Uptime_sec: 4", true),
        ("Start_time_sec: 1700", "Start_time_sec: 1701", false),
        ("Name: HAProxy\n", "", true),
    ] {
        assert_eq!(alike(&known, &known.replacen(from, to, 1)), expected, "{to:?} for {from:?}");
    }
    assert!(!of(&known).unwrap().is_that_of(&[]));
    assert!(!alike(&known, &format!("{known}\n")));
}

#[test]
fn several_backends_may_be_in_several_answers() {
    let row = |server: &str| format!("{HEAD}\nb,{server},UP,2,1.2.3.4:80,1,,\n\n");
    let (one, two, three) = (row("s1"), row("s2"), row("s3"));
    let first = format!("{INFO}{one}{two}");
    let known = Essence::of(&[first.as_bytes(), three.as_bytes()], 3).unwrap();
    assert!(known.is_that_of(&[first.as_bytes(), three.as_bytes()]));
    assert!(!known.is_that_of(&[first.as_bytes()]));
    assert!(!known.is_that_of(&[first.as_bytes(), two.as_bytes()]));
    assert!(!known.is_that_of(&[first.as_bytes(), three.as_bytes(), three.as_bytes()]));
    assert!(Essence::of(&[first.as_bytes(), three.as_bytes()], 2).is_none(), "one more than was asked for");
    assert!(Essence::of(&[first.as_bytes()], 3).is_none(), "one less");
}

#[test]
fn what_is_no_plain_table_cannot_be_told() {
    for table in [
        "",
        "No such proxy.",
        "# pxname,svname,\nb,s1,",
        &format!("{HEAD}\nb,s1,UP,2,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,,,"),
        &format!("{HEAD}\nb,\"s1\",UP,2,1.2.3.4:80,1,,"),
        &format!("{HEAD}\nb,s1,UP,2,1.2.3.4:80,1,\"a\","),
        &format!("{HEAD}\nb,{},UP,2,1.2.3.4:80,1,,", "s".repeat(70_000)),
    ] {
        assert!(Essence::of(&[answer(table).as_bytes()], 1).is_none(), "{table:.100}");
    }
}

proptest::proptest! {
    #[test]
    fn what_is_alike_reads_alike(
        place in 0_usize..4_000,
        byte in proptest::sample::select(b",\n\"\r* aUs1.:#".to_vec()),
        cut in 0_usize..3,
    ) {
        for text in recorded() {
            let mut bytes = text.as_bytes().to_vec();
            let place = place % bytes.len();
            bytes.splice(place..(place + cut).min(text.len()), [byte]);
            let Ok(other) = String::from_utf8(bytes) else { continue };
            if alike(&answer(text), &answer(&other)) {
                proptest::prop_assert_eq!(picked(other.as_bytes()), picked(text.as_bytes()), "{} at {}", byte, place);
            }
        }
    }

    #[test]
    fn a_start_is_told_alike_by_eights_and_one_by_one(text in "[ab]{0,30}", start in "[ab]{0,20}", own in 0_usize..30) {
        let own = &text.as_bytes()[..own.min(text.len())];
        proptest::prop_assert_eq!(after(text.as_bytes(), own), text.as_bytes().strip_prefix(own));
        proptest::prop_assert_eq!(after(text.as_bytes(), start.as_bytes()), text.as_bytes().strip_prefix(start.as_bytes()));
    }
}

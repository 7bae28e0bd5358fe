use super::super::fixtures::{at, limits, orders, secs, seen, show_plan, table, weighted};
use super::*;
use crate::selection::NamePattern;
use crate::settings::Weighting;
use crate::slot::MAX_SLOT;
use crate::weight::Factor;

/// Checks the table after a turn at 100 s in which no ramp step is due.
fn check(name: &str, size: SlotId, before: &str, observed: &str, after: &str) {
    let limits = SlotLimits { interval: secs(1_000), ..limits(size) };
    let plan = decide(&table(before), &[], &seen(observed), at(100), &limits);
    assert_eq!(show_plan(&plan), after, "{name}");
}

/// The same under orders.
fn check_ordered(name: &str, size: SlotId, under: &str, before: &str, observed: &str, after: &str) {
    let limits = SlotLimits { interval: secs(1_000), ..limits(size) };
    let plan = decide(&table(before), &orders(under), &seen(observed), at(100), &limits);
    assert_eq!(show_plan(&plan), after, "{name}");
}

#[test]
fn who_is_ordered_out_drains_and_no_newcomer_takes_its_place() {
    let (two, ready) = ("1 .1 i1 a/z1 enabled 7; 2 .2 i2 b/z2 enabled 7", ".1 i1 a/z1 ready; .2 i2 b/z2 ready");
    let first_out = "1 .1 i1 a/z1 draining 0@100; 2 .2 i2 b/z2 enabled 7";
    for target in ["slot:1", "i1", ".1", "zone:z1", "group:a", "slot:1; zone:z1"] {
        check_ordered(target, 2, target, two, ready, first_out);
        check_ordered(target, 2, target, first_out, ready, first_out);
    }
    #[rustfmt::skip]
    let cases = [
        ("none is there", "zone:z3; slot:2; i9", "1 .1 i1 a/z1 enabled 7", ".1 i1 a/z1 ready", "1 .1 i1 a/z1 enabled 7; 2 free"),
        ("lifted: from MIN", "", first_out, ready, "1 .1 i1 a/z1 enabled 1@100; 2 .2 i2 b/z2 enabled 7"),
        ("disabled by hand: stays so", "slot:1", "1 .1 i1 a disabled 7; 2 .2 i2 b enabled 7", ready,
         "1 .1 i1 a/z1 disabled 7; 2 .2 i2 b/z2 enabled 7"),
        ("it leaves: as it would without", "i1", two, ".1 i1 a/z1 draining; .2 i2 b/z2 ready", first_out),
        ("it is gone: freed", "i1; slot:1", two, ".2 i2 b/z2 ready", "1 free was=a/z1; 2 .2 i2 b/z2 enabled 7"),
        ("EC2 is silent about it: drains all the same", "i1", two, "unseen i1; .2 i2 b/z2 ready", first_out),
        ("its group is missing: drains all the same", "zone:z1", two, "missing a; .2 i2 b/z2 ready", first_out),
        ("a newcomer of its zone gets no slot", "zone:z1", "1 free; 2 .2 i2 b/z2 enabled 7", ready,
         "1 free; 2 .2 i2 b/z2 enabled 7; kept out i1"),
        ("a newcomer gets another slot than the ordered one", "slot:1", "1 free; 2 free; 3 .2 i2 b/z2 enabled 7", ready,
         "1 free; 2 .1 i1 a/z1 enabled 1@100; 3 .2 i2 b/z2 enabled 7"),
        ("only the ordered slot is free", "slot:1", "1 free; 2 .2 i2 b/z2 enabled 7", ready,
         "1 free; 2 .2 i2 b/z2 enabled 7; unplaced i1"),
        ("another one at the address is ordered out: freed", ".1", "1 .1 i9 a enabled 7; 2 .2 i2 b/z2 enabled 7", ready,
         "1 free was=a; 2 .2 i2 b/z2 enabled 7; kept out i1"),
        ("all: the last resort", "group:a; group:b", two, ready,
         "1 .1 i1 a/z1 draining 7; 2 .2 i2 b/z2 draining 7; last resort 1 2"),
        ("the last resort is over: from MIN", "", "1 .1 i1 a/z1 draining 7; 2 .2 i2 b/z2 draining 7", ready,
         "1 .1 i1 a/z1 enabled 1@100; 2 .2 i2 b/z2 enabled 1@100"),
        ("an ordered one serves before a newcomer that is ordered too", "zone:z1", "1 .1 i1 a/z1 draining 0; 2 free",
         ".1 i1 a/z1 ready; .3 i3 a/z1 ready", "1 .1 i1 a/z1 draining 1@100; 2 free; kept out i3; last resort 1"),
        ("all but one that has no weight yet", "slot:1", "1 .1 i1 a/z1 enabled 7; 2 .2 i2 b/z2 draining 0",
         ".1 i1 a/z1 ready; .2 i2 b/z2 draining", "1 .1 i1 a/z1 draining 7; 2 .2 i2 b/z2 draining 0; last resort 1"),
        ("the others leave: the ordered ones are back, at MIN", "zone:z1", "1 .1 i1 a/z1 draining 0; 2 .2 i2 b/z2 enabled 7",
         ".1 i1 a/z1 ready; .2 i2 b/z2 draining", "1 .1 i1 a/z1 draining 1@100; 2 .2 i2 b/z2 draining 7; last resort 1 2"),
        ("nobody serves: newcomers are the last resort", "zone:z1", "1 free; 2 free", ".1 i1 a/z1 ready",
         "1 .1 i1 a/z1 draining 1@100; 2 free; last resort 1"),
        ("only leaving ones serve: newcomers too", "zone:z1", "1 free; 2 .2 i2 b/z2 enabled 7", ".1 i1 a/z1 ready; .2 i2 b/z2 draining",
         "1 .1 i1 a/z1 draining 1@100; 2 .2 i2 b/z2 draining 7; last resort 1 2"),
        ("nobody serves: even the ordered slot", "slot:1; slot:2", "1 free; 2 free", ".1 i1 a/z1 ready",
         "1 .1 i1 a/z1 draining 1@100; 2 free; last resort 1"),
        ("somebody serves: the last resort is over", "zone:z1", "1 .1 i1 a/z1 draining 1; 2 free", ready,
         "1 .1 i1 a/z1 draining 0@100; 2 .2 i2 b/z2 enabled 1@100"),
    ];
    for (name, under, before, observed, after) in cases {
        check_ordered(name, 2 + u32::from(before.contains("3 .")), under, before, observed, after);
    }
    let zero = SlotLimits { min: 0, ..limits(2) };
    let plan = decide(
        &table("1 .1 i1 a draining 7; 2 .2 i2 a draining 0"),
        &[],
        &seen(".1 i1 a ready; .2 i2 a ready"),
        at(100),
        &zero,
    );
    assert_eq!(
        show_plan(&plan),
        "1 .1 i1 a enabled 1@100; 2 .2 i2 a enabled 0@100",
        "who serves serves on, with MIN 0 too"
    );
    let none = SlotLimits { min: 0, max: 0, ..limits(2) };
    let plan = decide(&table("1 free; 2 free"), &orders("zone:z1"), &seen(".1 i1 a/z1 ready"), at(100), &none);
    assert_eq!(show_plan(&plan), "1 free; 2 free; kept out i1", "no traffic is wanted");
}

#[test]
fn an_occupant_is_judged_by_its_report() {
    #[rustfmt::skip]
    let cases = [
        ("ready: stays", "1 .1 i1 a enabled 7", ".1 i1 a ready",
         "1 .1 i1 a enabled 7"),
        ("ready: its group is refreshed", "1 .1 i1 a enabled 7 was=c", ".1 i1 b ready",
         "1 .1 i1 b enabled 7 was=c"),
        ("ready: a row without a group gets one", "1 .1 i1 - enabled 7", ".1 i1 b ready",
         "1 .1 i1 b enabled 7"),
        ("its zone is learnt", "1 .1 i1 a enabled 7", ".1 i1 a/z1 ready",
         "1 .1 i1 a/z1 enabled 7"),
        ("its zone stays while the source does not tell", "1 .1 i1 a/z1 enabled 7", ".1 i1 a draining",
         "1 .1 i1 a/z1 draining 7; last resort 1"),
        ("freed, its zone remembered", "1 .1 i1 a/z1 enabled 7 was=b/z2", "",
         "1 free was=a/z1"),
        ("freed, of no known zone", "1 .1 i1 a enabled 7 was=b/z2", "",
         "1 free was=a"),
        ("an address reused by a new instance restarts its ramp, in its own group", "1 .1 i1 a enabled 7 was=c", ".1 i2 b ready",
         "1 .1 i2 b enabled 1@100 was=c"),
        ("a draining one is replaced by a ready one at its address", "1 .1 i1 a draining 0", ".1 i2 a ready",
         "1 .1 i2 a enabled 1@100"),
        ("a disabled one is replaced by a ready one at its address", "1 .1 i1 a disabled 5", ".1 i2 a ready",
         "1 .1 i2 a enabled 1@100"),
        ("another one at its address only drains: freed", "1 .1 i1 a enabled 7", ".1 i2 a draining",
         "1 free was=a"),
        ("draining while another serves", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7", ".1 i1 a draining; .2 i2 a ready",
         "1 .1 i1 a draining 0@100; 2 .2 i2 a enabled 7"),
        ("draining while a newcomer of this turn serves", "1 .1 i1 a enabled 7; 2 free", ".1 i1 a draining; .2 i2 a ready",
         "1 .1 i1 a draining 0@100; 2 .2 i2 a enabled 1@100"),
        ("draining, last resort: keeps its weight", "1 .1 i1 a enabled 7", ".1 i1 a draining",
         "1 .1 i1 a draining 7; last resort 1"),
        ("back from draining: from MIN", "1 .1 i1 a draining 0", ".1 i1 a ready",
         "1 .1 i1 a enabled 1@100"),
        ("back from the last resort: from MIN too", "1 .1 i1 a draining 7", ".1 i1 a ready",
         "1 .1 i1 a enabled 1@100"),
        ("disabled and ready: stays disabled", "1 .1 i1 a disabled 5", ".1 i1 a ready",
         "1 .1 i1 a disabled 5"),
        ("disabled and draining: stays disabled", "1 .1 i1 a disabled 5", ".1 i1 a draining",
         "1 .1 i1 a disabled 5"),
        ("disabled and absent: freed", "1 .1 i1 a disabled 5", "",
         "1 free was=a"),
        ("absent: freed, its group remembered", "1 .1 i1 a enabled 7 was=c", "",
         "1 free was=a"),
        ("absent without a group: the older group stays", "1 .1 i1 - enabled 7 was=c", "",
         "1 free was=c"),
        ("draining and absent: freed", "1 .1 i1 a draining 0", "",
         "1 free was=a"),
        ("a group that is no longer configured, reported: stays", "1 .1 i1 z enabled 7", ".1 i1 z ready",
         "1 .1 i1 z enabled 7"),
        ("a group that is no longer configured, not reported: freed", "1 .1 i1 z enabled 7", "",
         "1 free was=z"),
        ("the same name at another address is a new server", "1 .1 i1 a enabled 7", ".2 i1 a ready",
         "1 .2 i1 a enabled 1@100 was=a"),
    ];
    for (name, before, observed, after) in cases {
        check(name, SlotId::try_from(before.matches(';').count() + 1).expect("few"), before, observed, after);
    }
}

#[test]
fn a_server_goes_by_any_of_its_names() {
    #[rustfmt::skip]
    let cases = [
        ("its row has another of its names: stays, and keeps it", "1 .1 n1 a enabled 7", ".1 n1/x a ready alias=n1",
         "1 .1 n1 a enabled 7"),
        ("its row is that of a sibling: replaced", "1 .1 n1/y a enabled 7", ".1 n1/x a ready alias=n1",
         "1 .1 n1/x a enabled 1@100"),
        ("a sibling at another address is a newcomer", "1 .1 n1 a enabled 7; 2 free",
         ".1 n1/x a ready alias=n1; .2 n1/y a ready alias=n1",
         "1 .1 n1 a enabled 7; 2 .2 n1/y a enabled 1@100"),
        ("of two reports the occupant's counts, by any name", "1 .1 n2 b enabled 7",
         ".1 n1 a ready; .1 n2/x b ready alias=n2",
         "1 .1 n2 b enabled 7; ignored n1"),
    ];
    for (name, before, observed, after) in cases {
        check(name, SlotId::try_from(before.matches(';').count() + 1).expect("few"), before, observed, after);
    }
}

#[test]
fn a_factor_multiplies_the_weights() {
    #[rustfmt::skip]
    let cases = [
        ("ramps beyond MAX", "1 .1 i1 a enabled 12@70", ".1 i1 a ready factor=3", "1 .1 i1 a enabled 15@100"),
        ("full at three times MAX", "1 .1 i1 a enabled 30@70", ".1 i1 a ready factor=3", "1 .1 i1 a enabled 30@70"),
        ("the factor was lowered: by steps", "1 .1 i1 a enabled 30@70", ".1 i1 a ready factor=2", "1 .1 i1 a enabled 24@100"),
        ("by steps, not yet due", "1 .1 i1 a enabled 24@80", ".1 i1 a ready factor=2", "1 .1 i1 a enabled 24@80"),
        ("the factor is gone: by steps", "1 .1 i1 a enabled 30@70", ".1 i1 a ready", "1 .1 i1 a enabled 24@100"),
        ("the factor was raised: by steps", "1 .1 i1 a enabled 10@70", ".1 i1 a ready factor=3", "1 .1 i1 a enabled 13@100"),
        ("capped at 256", "1 .1 i1 a enabled 256@70", ".1 i1 a ready factor=65535", "1 .1 i1 a enabled 256@70"),
        ("unknown this turn: untouched", "1 .1 i1 a enabled 30@70", "missing a", "1 .1 i1 a enabled 30@70"),
        ("a new server starts at MIN times its factor", "1 free", ".1 i1 a ready factor=3", "1 .1 i1 a enabled 3@100"),
        ("never at 0", "1 free", ".1 i1 a ready factor=0.1", "1 .1 i1 a enabled 1@100"),
        ("it is back from draining", "1 .1 i1 a draining 0", ".1 i1 a ready factor=3", "1 .1 i1 a enabled 3@100"),
        ("another server at its address", "1 .1 i0 a enabled 30", ".1 i1 a ready factor=3", "1 .1 i1 a enabled 3@100"),
    ];
    for (name, before, observed, after) in cases {
        let plan = decide(&table(before), &[], &seen(observed), at(100), &weighted(1));
        assert_eq!(show_plan(&plan), after, "{name}");
    }
    let plan =
        decide(&table("1 free; 2 free"), &[], &seen(".1 i1 a ready factor=3; .2 i2 a ready"), at(0), &weighted(2));
    assert_eq!((plan.full_weight(1, &weighted(2)), plan.full_weight(2, &weighted(2))), (30, 10));
    let lowered = decide(&table("1 .1 i1 a enabled 30@70"), &[], &seen(".1 i1 a ready"), at(100), &limits(1));
    assert_eq!(show_plan(&lowered), "1 .1 i1 a enabled 10@100", "without factors, MAX was lowered");
}

#[test]
fn the_factor_of_a_group_multiplies_that_of_the_size() {
    let factor = |text: &str| Factor::parse(text).expect("a factor");
    let groups = vec![(NamePattern::new("b*"), factor("0.5")), (NamePattern::new("*"), factor("2"))];
    let limits = SlotLimits { weighting: Weighting { unit: Factor::ONE, groups }, ..weighted(3) };
    let before = "1 .1 i1 a enabled 60; 2 .2 i2 b enabled 15; 3 .3 i3 c enabled 20";
    let observed = ".1 i1 a ready factor=3; .2 i2 b ready factor=3; .3 i3 c ready";
    let plan = decide(&table(before), &[], &seen(observed), at(100), &limits);
    assert_eq!(show_plan(&plan), before);
    assert_eq!(
        super::super::factor(2, &plan, &limits),
        Some((factor("1.5"), "tag hsdo:weight 3, group b x 0.5".to_owned()))
    );
}

#[test]
fn a_factor_of_zero_takes_the_weight_unless_nothing_else_serves() {
    #[rustfmt::skip]
    let cases = [
        ("seated at weight 0", "1 .1 i1 a enabled 10; 2 free", ".1 i1 a ready; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 0@100"),
        ("it became 0: by steps", "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 7@70", ".1 i1 a ready; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 5@100"),
        ("by steps, not yet due", "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 7@80", ".1 i1 a ready; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 7@80"),
        ("it rests at 0", "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 0", ".1 i1 a ready; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 0"),
        ("all are 0: each serves", "1 .1 i1 a enabled 0; 2 .2 i2 b enabled 0", ".1 i1 a ready factor=0; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 1@100; 2 .2 i2 b enabled 1@100; last resort 1 2"),
        ("all are 0 and serve: nothing changes", "1 .1 i1 a enabled 7; 2 .2 i2 b enabled 1", ".1 i1 a ready factor=0; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 7; 2 .2 i2 b enabled 1; last resort 1 2"),
        ("one serves: the others help", "1 .1 i1 a enabled 7; 2 .2 i2 b enabled 0", ".1 i1 a ready factor=0; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 7; 2 .2 i2 b enabled 1@100; last resort 1 2"),
        ("the other one leaves: it takes over at once", "1 .1 i1 a enabled 10; 2 .2 i2 b enabled 0", ".1 i1 a draining; .2 i2 b ready factor=0",
         "1 .1 i1 a draining 0@100; 2 .2 i2 b enabled 1@100; last resort 2"),
        ("another comes: it goes back by steps", "1 free; 2 .2 i2 b enabled 1@0", ".1 i1 a ready; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 1@100; 2 .2 i2 b enabled 0@100"),
        ("kept ones are left alone", "1 .1 i1 a enabled 5; 2 .2 i2 b enabled 0", "missing a; .2 i2 b ready factor=0",
         "1 .1 i1 a enabled 5; 2 .2 i2 b enabled 0"),
    ];
    for (name, before, observed, after) in cases {
        let plan = decide(&table(before), &[], &seen(observed), at(100), &weighted(2));
        assert_eq!(show_plan(&plan), after, "{name}");
        let again = plan.slots.values().map(|slot| (slot.id, Row::Readable(slot.clone().into()))).collect();
        let again = decide(&Table { rows: again, strays: vec![] }, &[], &seen(observed), at(100), &weighted(2));
        assert_eq!(again.changes, [], "{name}: twice");
    }
    let table_of = table("1 .1 i1 a enabled 5; 2 .2 i2 b enabled 0; 3 .3 i3 c draining 4");
    let observed = ".1 i1 a ready factor=0; .2 i2 b ready factor=0; .3 i3 c draining";
    let plan = decide(&table_of, &orders("group:a"), &seen(observed), at(100), &weighted(3));
    let after = "1 .1 i1 a draining 0@100; 2 .2 i2 b enabled 1@100; 3 .3 i3 c draining 0@100; last resort 2";
    assert_eq!(show_plan(&plan), after, "an order takes those that are not the last");
    let off = SlotLimits { min: 0, max: 0, ..weighted(1) };
    let plan = decide(&table("1 .1 i1 a enabled 0"), &[], &seen(".1 i1 a ready factor=0"), at(100), &off);
    assert_eq!(show_plan(&plan), "1 .1 i1 a enabled 0", "MAX 0 wants no traffic");
    for off in [off, SlotLimits { min: 0, max: 0, ..limits(1) }] {
        for observed in [".1 i1 a ready", ".1 i1 a ready factor=0.5"] {
            let plan = decide(&table("1 .1 i1 a enabled 10"), &[], &seen(observed), at(100), &off);
            assert_eq!(show_plan(&plan), "1 .1 i1 a enabled 0@100", "MAX was lowered to 0");
        }
    }
}

#[test]
fn the_port_of_an_instance_is_in_its_row() {
    for (name, before, observed, after) in [
        ("a new one", "1 free", ".1 i1 a ready port=81", "1 .1 i1 a enabled 1@100 port=81"),
        ("it got its tag later", "1 .1 i1 a enabled 10", ".1 i1 a ready port=81", "1 .1 i1 a enabled 10 port=81"),
    ] {
        let plan = decide(&table(before), &[], &seen(observed), at(100), &limits(1));
        assert_eq!(show_plan(&plan), after, "{name}");
    }
}

#[test]
fn unknown_is_not_empty() {
    #[rustfmt::skip]
    let cases = [
        ("a misspelt group keeps its servers", "1 .1 i1 a enabled 7", "missing a",
         "1 .1 i1 a enabled 7"),
        ("a missing group's drained server keeps weight 0", "1 .1 i1 a draining 0; 2 .2 i2 a enabled 3", "missing a",
         "1 .1 i1 a draining 0; 2 .2 i2 a enabled 3"),
        ("a missing group's servers count as serving", "1 .1 i1 a enabled 7; 2 .2 i2 b enabled 7", "missing a; .2 i2 b draining",
         "1 .1 i1 a enabled 7; 2 .2 i2 b draining 0@100"),
        ("another group is judged as usual", "1 .1 i1 a enabled 7; 2 .2 i2 b enabled 7", "missing a",
         "1 .1 i1 a enabled 7; 2 free was=b"),
        ("moved to a group that exists: judged there", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7", "missing a; .1 i1 b ready; .2 i2 b draining",
         "1 .1 i1 b enabled 7; 2 .2 i2 b draining 0@100"),
        ("its address is held by a ready one: replaced", "1 .1 i1 a enabled 7", "missing a; .1 i2 b ready",
         "1 .1 i2 b enabled 1@100"),
        ("its address is held by a draining one: kept", "1 .1 i1 a enabled 7", "missing a; .1 i2 b draining",
         "1 .1 i1 a enabled 7"),
        ("while a group is missing, a row without a group is kept: it may be of that one", "1 .1 i1 - enabled 7", "missing a",
         "1 .1 i1 - enabled 7"),
        ("a group that was misspelt today is kept under its right name", "1 .1 i1 z enabled 7; 2 .2 i2 b enabled 7", "missing a",
         "1 .1 i1 z enabled 7; 2 free was=b"),
        ("EC2 does not report it: kept", "1 .1 i1 a enabled 7; 2 .2 i2 a draining 0", "unseen i1; unseen i2",
         "1 .1 i1 a enabled 7; 2 .2 i2 a draining 0"),
        ("EC2 does not report it, but another has its address", "1 .1 i1 a enabled 7", "unseen i1; .1 i2 a ready",
         "1 .1 i2 a enabled 1@100"),
        ("an empty group is a true zero", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7", "",
         "1 free was=a; 2 free was=a"),
        ("an address in an unreadable row gets no second slot", "1 unreadable .1; 2 free; 3 free", ".1 i1 a ready; .2 i2 a ready",
         "2 .2 i2 a enabled 1@100; 3 free; ignored i1"),
        ("an unreadable row is no free slot", "1 unreadable; 2 free", ".1 i1 a ready; .2 i2 a ready",
         "2 .1 i1 a enabled 1@100; unplaced i2"),
    ];
    for (name, before, observed, after) in cases {
        check(name, SlotId::try_from(before.matches(';').count() + 1).expect("few"), before, observed, after);
    }
}

/// A pattern that still matches a group has lost one; another one that matches none may hold anybody that it could match.
#[test]
fn a_group_gone_from_a_pattern_is_not_missing_because_another_entry_is() {
    let limits = SlotLimits { entries: ["web-*", "api-*"].map(NamePattern::new).to_vec(), ..limits(4) };
    let unlisted = "i1 unconfirmed; i2 unconfirmed; i3 unconfirmed; i4 unconfirmed; missing api-*";
    let seen = Observation { groups: vec!["web-1".to_owned()], ..seen(unlisted) };
    let before = "1 .1 i1 web-2 enabled 7; 2 .2 i2 api-1 enabled 7; 3 .3 i3 other enabled 7; 4 .4 i4 - enabled 7";
    let after = "1 free was=web-2; 2 .2 i2 api-1 enabled 7; 3 .3 i3 other enabled 7; 4 .4 i4 - enabled 7";
    assert_eq!(show_plan(&decide(&table(before), &[], &seen, at(100), &limits)), after);
    let none = Observation { missing_groups: vec!["api-*".to_owned(), "web-*".to_owned()], groups: vec![], ..seen };
    assert_eq!(show_plan(&decide(&table(before), &[], &none, at(100), &limits)), before);
}

#[test]
fn an_unknown_state_keeps_the_slot_and_seats_nobody() {
    #[rustfmt::skip]
    let cases = [
        ("it keeps weight, time, group and status", "1 .1 i1 a enabled 7; 2 .2 i2 a draining 3", ".1 i1 b unknown; .2 i2 a unknown",
         "1 .1 i1 a enabled 7; 2 .2 i2 a draining 3"),
        ("it counts as serving", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7", ".1 i1 a unknown; .2 i2 a draining",
         "1 .1 i1 a enabled 7; 2 .2 i2 a draining 0@100"),
        ("no newcomer is seated", "1 free", ".1 i1 a unknown",
         "1 free"),
        ("a ready one has its address: replaced", "1 .1 i1 a enabled 7", ".1 i1 a unknown; .1 i2 a ready",
         "1 .1 i2 a enabled 1@100; ignored i1"),
        ("another one that drains has its address: kept", "1 .1 i1 a enabled 7", ".1 i1 a unknown; .1 i0 a draining",
         "1 .1 i1 a enabled 7; ignored i0"),
        ("draining, and another one is in an unknown state at its address: drains", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 1", ".1 i1 a draining; .1 i0 a unknown; .2 i2 a ready",
         "1 .1 i1 a draining 0@100; 2 .2 i2 a enabled 1; ignored i0"),
        ("known again: continues", "1 .1 i1 a enabled 7", ".1 i1 a ready",
         "1 .1 i1 a enabled 7"),
    ];
    for (name, before, observed, after) in cases {
        check(name, SlotId::try_from(before.matches(';').count() + 1).expect("few"), before, observed, after);
    }
    let later = decide(&table("1 .1 i1 a enabled 3"), &[], &seen(".1 i1 a unknown"), at(30), &limits(1));
    assert_eq!(show_plan(&later), "1 .1 i1 a enabled 3", "its ramp waits");
}

#[test]
fn an_instance_without_an_address_keeps_its_slot_by_name() {
    #[rustfmt::skip]
    let cases = [
        ("its root volume is replaced: drains", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7", "hidden i1 draining; .2 i2 a ready",
         "1 .1 i1 a draining 0@100; 2 .2 i2 a enabled 7"),
        ("all at once: the last resort", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7", "hidden i1 draining; hidden i2 draining",
         "1 .1 i1 a draining 7; 2 .2 i2 a draining 7; last resort 1 2"),
        ("also where its group is not its row's", "1 .1 i1 a draining 0; 2 .2 i2 b enabled 7", "missing a; hidden i1 draining; .2 i2 b ready",
         "1 .1 i1 a draining 0; 2 .2 i2 b enabled 7"),
        ("disabled: stays so", "1 .1 i1 a disabled 7", "hidden i1 draining",
         "1 .1 i1 a disabled 7"),
        ("in an unknown state: as it is", "1 .1 i1 a enabled 7", "hidden i1 unknown",
         "1 .1 i1 a enabled 7"),
        ("a lost row does not belong to an instance out of service", "2 .2 i2 a enabled 3", ".2 i2 a ready; hidden i1 draining",
         "1 free; 2 .2 i2 a enabled 3"),
    ];
    for (name, before, observed, after) in cases {
        let size = before.split("; ").last().and_then(|row| row.split(' ').next()).and_then(|id| id.parse().ok());
        check(name, size.expect("a number"), before, observed, after);
    }
}

/// Several that are absent together may return in any order.
#[test]
fn returning_servers_keep_their_slots() {
    let mut before = table("1 .1 i1 a enabled 10; 2 .2 i2 a enabled 10; 3 .3 i3 a enabled 10; 4 free; 5 free");
    for (now, observed) in [
        (0, ".1 i1 a draining; hidden i2 draining; .3 i3 a ready; .4 i4 a ready"),
        (10, "hidden i1 draining; hidden i2 draining; .3 i3 a unknown; .4 i4 a ready"),
        (20, ".3 i3 a draining; .2 i2 a ready; .1 i1 a draining; .4 i4 a ready; .5 i5 a ready"),
        (30, ".3 i3 a ready; .1 i1 a ready; .2 i2 a ready; .4 i4 a ready; .5 i5 a ready"),
    ] {
        let plan = decide(&before, &[], &seen(observed), at(now), &limits(5));
        let names = |id: SlotId| plan.slots[&id].occupant.as_ref().map(|occupant| occupant.name.clone());
        assert_eq!([1, 2, 3].map(names), ["i1", "i2", "i3"].map(|name| Some(name.to_owned())), "at {now}");
        before = Table {
            rows: plan.slots.into_iter().map(|(id, slot)| (id, Row::Readable(slot.into()))).collect(),
            strays: vec![],
        };
    }
}

#[test]
fn an_unlisted_occupant_is_judged_by_its_fate() {
    #[rustfmt::skip]
    let cases = [
        ("ended", "1 .1 i1 a enabled 7", "i1 gone",
         "1 free was=a"),
        ("EC2 does not know it", "1 .1 i1 a enabled 7", "i1 notfound",
         "1 free was=a"),
        ("detached, or unconfirmed", "1 .1 i1 a enabled 7", "i1 unconfirmed",
         "1 free was=a"),
        ("of a missing group: ended", "1 .1 i1 a enabled 7", "missing a; i1 gone",
         "1 free was=a"),
        ("of a missing group: EC2 does not know it", "1 .1 i1 a enabled 7", "missing a; i1 notfound",
         "1 free was=a"),
        ("of a missing group: unconfirmed", "1 .1 i1 a enabled 7", "missing a; i1 unconfirmed",
         "1 .1 i1 a enabled 7"),
        ("at another address by now", "1 .1 i1 a enabled 7; 2 free", "i9 gone; .2 i1 a ready",
         "1 .2 i1 a enabled 1@100 was=a; 2 free"),
        ("its address is held by a ready one: replaced", "1 .1 i1 a enabled 7", "i1 unconfirmed; .1 i2 a ready",
         "1 .1 i2 a enabled 1@100"),
        ("ended, all of them: a scale-in is not delayed", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7", "i1 gone; i2 gone; i3 notfound",
         "1 free was=a; 2 free was=a; 3 free was=a"),
        ("too many at once: kept as they are", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 n3 a enabled 7; 4 .4 i4 a draining 0; 5 .5 i5 b enabled 7", "i1 unconfirmed; i2 unconfirmed; n3 unconfirmed; i4 unconfirmed; .5 i5 b ready",
         "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 n3 a enabled 7; 4 .4 i4 a draining 0; 5 .5 i5 b enabled 7; guarded 1 2 3 4"),
        ("too many at once, except the one that has ended", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7; 4 .4 i4 a enabled 7", "i1 unconfirmed; i2 unconfirmed; i3 unconfirmed; i4 gone",
         "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7; 4 free was=a; guarded 1 2 3"),
        ("too many of those that the response covers; a missing group's are kept anyway",
         "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7; 4 .4 i4 b enabled 7; 5 .5 i5 b enabled 7; 6 .6 i6 b enabled 7; 7 .7 i7 b enabled 7; 8 .8 i8 b enabled 7",
         "missing a; i1 unconfirmed; i2 unconfirmed; i3 unconfirmed; i4 unconfirmed; i5 unconfirmed; i6 unconfirmed; .7 i7 b ready; .8 i8 b ready",
         "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7; 4 .4 i4 b enabled 7; 5 .5 i5 b enabled 7; 6 .6 i6 b enabled 7; 7 .7 i7 b enabled 7; 8 .8 i8 b enabled 7; guarded 4 5 6"),
        ("half of them is not too many", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7; 4 .4 i4 b enabled 7; 5 .5 i5 b enabled 7; 6 .6 i6 b enabled 7", "i1 unconfirmed; i2 unconfirmed; i3 unconfirmed; .4 i4 b ready; .5 i5 b ready; .6 i6 b ready",
         "1 free was=a; 2 free was=a; 3 free was=a; 4 .4 i4 b enabled 7; 5 .5 i5 b enabled 7; 6 .6 i6 b enabled 7"),
        ("another account: neither groups nor instances exist", "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7", "missing a; i1 notfound; i2 notfound; i3 notfound",
         "1 .1 i1 a enabled 7; 2 .2 i2 a enabled 7; 3 .3 i3 a enabled 7; guarded 1 2 3"),
    ];
    for (name, before, observed, after) in cases {
        check(name, SlotId::try_from(before.matches(';').count() + 1).expect("few"), before, observed, after);
    }
}

#[test]
fn newcomers_are_seated_in_order() {
    #[rustfmt::skip]
    let cases = [
        ("the lowest slot first, by the address as a number", 3, "", ".10 i1 a ready; .9 i2 a ready; .100 i3 a ready",
         "1 .9 i2 a enabled 1@100; 2 .10 i1 a enabled 1@100; 3 .100 i3 a enabled 1@100"),
        ("by the order of the configured groups", 3, "", ".1 i1 z ready; .2 i2 b ready; .3 i3 a ready",
         "1 .3 i3 a enabled 1@100; 2 .2 i2 b enabled 1@100; 3 .1 i1 z enabled 1@100"),
        ("IPv4 before IPv6", 2, "", "2001:db8::1 i1 a ready; .200 i2 a ready",
         "1 .200 i2 a enabled 1@100; 2 2001:db8::1 i1 a enabled 1@100"),
        ("draining ones take no slot", 1, "", ".1 i1 a draining",
         "1 free"),
        ("the slot of its own group before a lower one", 3, "1 free; 2 free was=b; 3 free was=a", ".1 i1 a ready",
         "1 free; 2 free was=b; 3 .1 i1 a enabled 1@100 was=a"),
        ("of its group's slots the one of its zone", 3, "1 free was=a/z1; 2 free was=a/z2; 3 free was=b/z2", ".1 i1 a/z2 ready",
         "1 free was=a/z1; 2 .1 i1 a/z2 enabled 1@100 was=a/z2; 3 free was=b/z2"),
        ("else the lowest of its group", 3, "1 free was=b/z3; 2 free was=a/z2; 3 free was=a/z1", ".1 i1 a/z3 ready",
         "1 free was=b/z3; 2 .1 i1 a/z3 enabled 1@100 was=a/z2; 3 free was=a/z1"),
        ("zones that churn together inherit their own slots", 2, "1 .1 i1 a/z1 enabled 7; 2 .2 i2 a/z2 enabled 7",
         ".3 i3 a/z2 ready; .4 i4 a/z1 ready",
         "1 .4 i4 a/z1 enabled 1@100 was=a/z1; 2 .3 i3 a/z2 enabled 1@100 was=a/z2"),
        ("else the lowest that never had a group", 3, "1 free was=b; 2 free; 3 free", ".1 i1 a ready",
         "1 free was=b; 2 .1 i1 a enabled 1@100; 3 free"),
        ("else the lowest", 3, "1 .9 i9 c enabled 3; 2 free was=c; 3 free was=b", ".9 i9 c ready; .1 i1 a ready",
         "1 .9 i9 c enabled 3; 2 .1 i1 a enabled 1@100 was=c; 3 free was=b"),
        ("a slot freed this turn goes to its successor", 2, "1 .1 i1 a enabled 7; 2 free", ".2 i2 a ready",
         "1 .2 i2 a enabled 1@100 was=a; 2 free"),
        ("groups that churn together inherit their own slots", 2, "1 .1 i1 b enabled 7; 2 .2 i2 a enabled 7", ".3 i3 a ready; .4 i4 b ready",
         "1 .4 i4 b enabled 1@100 was=b; 2 .3 i3 a enabled 1@100 was=a"),
        ("a newcomer too many does not take the slot of another group's newcomer", 2, "1 free was=b; 2 free was=a",
         ".1 i1 a ready; .2 i2 a ready; .3 i3 b ready",
         "1 .3 i3 b enabled 1@100 was=b; 2 .1 i1 a enabled 1@100 was=a; unplaced i2"),
        ("more instances than slots wait, in order", 1, "", ".4 i4 b ready; .3 i3 a ready; .2 i2 a ready; .1 i1 b ready",
         "1 .2 i2 a enabled 1@100; unplaced i3 i1 i4"),
        ("waiting instances move nobody", 1, "1 .9 i9 b enabled 7", ".1 i1 a ready; .9 i9 b ready",
         "1 .9 i9 b enabled 7; unplaced i1"),
    ];
    for (name, size, before, observed, after) in cases {
        check(name, size, before, observed, after);
    }
}

#[test]
fn one_address_has_one_slot() {
    #[rustfmt::skip]
    let cases = [
        ("of two rows the lowest stays", 2, "1 .1 i1 a enabled 3; 2 .1 i1 b enabled 7", ".1 i1 a ready",
         "1 .1 i1 a enabled 3; 2 free was=b"),
        ("the lowest stays, even with the old name", 2, "1 .1 i1 a enabled 3; 2 .1 i2 a enabled 7", ".1 i2 a ready",
         "1 .1 i2 a enabled 1@100; 2 free was=a"),
        ("a missing group keeps only the lowest", 2, "1 .1 i1 a enabled 3; 2 .1 i1 a enabled 7", "missing a",
         "1 .1 i1 a enabled 3; 2 free was=a"),
        ("the freed one is free in the same turn", 2, "1 .1 i1 a enabled 3; 2 .1 i1 a enabled 7", ".1 i1 a ready; .2 i2 a ready",
         "1 .1 i1 a enabled 3; 2 .2 i2 a enabled 1@100 was=a"),
        ("of two reports a ready one counts", 1, "1 .1 i1 a enabled 3", ".1 i1 a draining; .1 i2 b ready",
         "1 .1 i2 b enabled 1@100; ignored i1"),
        ("of two ready ones the occupant counts", 1, "1 .1 i9 b enabled 3", ".1 i1 a ready; .1 i9 b ready",
         "1 .1 i9 b enabled 3; ignored i1"),
        ("of two draining ones the occupant counts", 1, "1 .1 i9 b disabled 3", ".1 i1 a draining; .1 i9 b draining",
         "1 .1 i9 b disabled 3; ignored i1"),
        ("of two strangers the first group's", 1, "", ".1 i1 b ready; .1 i2 a ready",
         "1 .1 i2 a enabled 1@100; ignored i1"),
        ("of two strangers of one group the first name", 1, "", ".1 i2 a ready; .1 i1 a ready",
         "1 .1 i1 a enabled 1@100; ignored i2"),
        ("one instance in two groups stands once", 2, "", ".1 i1 b ready; .1 i1 a ready",
         "1 .1 i1 a enabled 1@100; 2 free; ignored i1"),
    ];
    for (name, size, before, observed, after) in cases {
        check(name, size, before, observed, after);
    }
}

#[test]
fn the_number_of_slots_may_change() {
    #[rustfmt::skip]
    let cases = [
        ("N grown: the missing rows are created", 3, "1 .1 i1 a enabled 3", ".1 i1 a ready",
         "1 .1 i1 a enabled 3; 2 free; 3 free"),
        ("a lost row is recreated under its own number", 3, "2 .2 i2 a enabled 3; 3 .3 i3 a enabled 3", ".2 i2 a ready; .3 i3 a ready",
         "1 free; 2 .2 i2 a enabled 3; 3 .3 i3 a enabled 3"),
        ("a lost row may belong to a missing group", 3, "2 .2 i2 a enabled 3; 3 free", "missing b; .2 i2 a ready",
         "2 .2 i2 a enabled 3; 3 free"),
        ("and a newcomer takes another", 3, "2 .2 i2 a enabled 3; 3 free", "missing b; .2 i2 a ready; .4 i4 a ready",
         "2 .2 i2 a enabled 3; 3 .4 i4 a enabled 1@100"),
        ("or that one, if no other is free", 2, "2 .2 i2 a enabled 3", "missing b; .2 i2 a ready; .4 i4 a ready",
         "1 .4 i4 a enabled 1@100; 2 .2 i2 a enabled 3"),
        ("a lost row may belong to an instance that EC2 does not report", 2, "2 .2 i2 a enabled 3", ".2 i2 a ready; unseen i1",
         "2 .2 i2 a enabled 3"),
        ("or to one in an unknown state", 2, "2 .2 i2 a enabled 3", ".2 i2 a ready; unknown i1",
         "2 .2 i2 a enabled 3"),
        ("one in an unknown state, but with its row, hides no row", 2, "2 .2 i2 a enabled 3", ".2 i2 a unknown; unknown i2",
         "1 free; 2 .2 i2 a enabled 3"),
        ("one that EC2 does not report, but has its row, hides no row", 2, "2 .2 i2 a enabled 3", "unseen i2",
         "1 free; 2 .2 i2 a enabled 3"),
        ("a lost row is recreated for a newcomer", 2, "2 .2 i2 a enabled 3", ".2 i2 a ready; .1 i1 a ready",
         "1 .1 i1 a enabled 1@100; 2 .2 i2 a enabled 3"),
        ("N shrunk: rows above keep their servers", 1, "1 free; 2 .2 i2 a enabled 3; 3 free", ".2 i2 a ready",
         "1 free; 2 .2 i2 a enabled 3; 3 free; above size 2"),
        ("N shrunk: rows above get no newcomers", 1, "1 .1 i1 a enabled 3; 2 free was=a; 3 free", ".1 i1 a ready; .2 i2 a ready",
         "1 .1 i1 a enabled 3; 2 free was=a; 3 free; unplaced i2"),
        ("N shrunk: an absent server is freed, the row stays", 1, "1 .1 i1 a enabled 3; 3 .3 i3 a enabled 3", ".1 i1 a ready",
         "1 .1 i1 a enabled 3; 3 free was=a"),
        ("N shrunk: a draining server drains", 1, "1 .1 i1 a enabled 3; 3 .3 i3 a enabled 3", ".1 i1 a ready; .3 i3 a draining",
         "1 .1 i1 a enabled 3; 3 .3 i3 a draining 0@100; above size 3"),
        ("N shrunk: a server may be replaced at its address", 1, "1 free; 3 .3 i3 a enabled 3", ".3 i4 a ready",
         "1 free; 3 .3 i4 a enabled 1@100; above size 3"),
    ];
    for (name, size, before, observed, after) in cases {
        check(name, size, before, observed, after);
    }
}

#[test]
fn the_last_resort_ends_with_the_first_weight_of_a_ready_server() {
    let limits = SlotLimits { min: 0, ..limits(2) };
    let observed = seen(".1 i1 a draining; .2 i2 a ready");
    let mut now = 100;
    let mut text = "1 .1 i1 a enabled 7; 2 free".to_owned();
    for expected in [
        "1 .1 i1 a draining 7; 2 .2 i2 a enabled 0@100; last resort 1",
        "1 .1 i1 a draining 7; 2 .2 i2 a enabled 0@100; last resort 1",
        "1 .1 i1 a draining 0@130; 2 .2 i2 a enabled 1@130",
    ] {
        let plan = decide(&table(&text), &[], &observed, at(now), &limits);
        assert_eq!(show_plan(&plan), expected, "at {now}");
        text = super::super::fixtures::show(&plan.slots);
        now += 15;
    }
}

#[test]
fn a_kept_server_does_not_ramp_and_the_others_do() {
    let before = table("1 .1 i1 a enabled 3; 2 .2 i2 b enabled 3; 3 .3 i3 b enabled 3; 4 .4 i4 b disabled 3");
    let observed = seen("missing a; .2 i2 b ready; unseen i3; .4 i4 b ready");
    let plan = decide(&before, &[], &observed, at(30), &limits(4));
    assert_eq!(
        show_plan(&plan),
        "1 .1 i1 a enabled 3; 2 .2 i2 b enabled 4@30; 3 .3 i3 b enabled 3; 4 .4 i4 b disabled 3"
    );
}

#[test]
fn only_differing_rows_are_changes() {
    let ids = |before: &str, observed: &str| -> Vec<SlotId> {
        decide(&table(before), &[], &seen(observed), at(10), &limits(4)).changes.iter().map(|slot| slot.id).collect()
    };
    let steady = "1 .1 i1 a enabled 3; 2 unreadable; 3 free; 4 free was=b; 9 free";
    assert_eq!(ids(steady, ".1 i1 a ready"), [0; 0], "a steady turn writes nothing");
    assert_eq!(ids(steady, ".1 i1 b ready"), [1], "a new group is a change");
    assert_eq!(ids(steady, ".1 i1 a ready; .2 i2 a ready"), [3]);
    assert_eq!(ids("2 unreadable", ""), [1, 3, 4], "an unreadable row is not overwritten");
}

/// The original hsdo aligned rows by count: with row 1 deleted, the last row flapped forever.
#[test]
fn nothing_flaps_after_a_row_is_deleted() {
    let observed = seen(".1 i1 a ready; .2 i2 a ready; .3 i3 a ready");
    let before = table("2 .2 i2 a enabled 10; 3 .3 i3 a enabled 10");
    let plan = decide(&before, &[], &observed, at(10), &limits(3));
    assert_eq!(plan.changes.iter().map(|slot| slot.id).collect::<Vec<_>>(), [1]);
    let rows = plan.slots.into_iter().map(|(id, slot)| (id, Row::Readable(slot.into()))).collect();
    assert_eq!(decide(&Table { rows, strays: vec![] }, &[], &observed, at(11), &limits(3)).changes, []);
}

/// The original hsdo gave every new server weight 1, and never raised it if MIN was above 1.
#[test]
fn a_new_server_starts_at_min_and_reaches_max_whatever_min_is() {
    for min in [0, 1, 5, 10] {
        let limits = SlotLimits { min, ..limits(1) };
        let observed = seen(".1 i1 a ready");
        let mut rows = BTreeMap::new();
        for turn in 0..=i64::from(10 - min) {
            let table = Table { rows, strays: vec![] };
            let plan = decide(&table, &[], &observed, at(30 * turn), &limits);
            let weight = plan.slots[&1].occupant.as_ref().map(|occupant| i64::from(occupant.weight));
            assert_eq!(weight, Some(i64::from(min) + turn), "MIN {min}, turn {turn}");
            rows = plan.slots.into_iter().map(|(id, slot)| (id, Row::Readable(slot.into()))).collect();
        }
    }
}

#[test]
fn the_largest_table_is_filled_in_one_turn() {
    let instances = (0..MAX_SLOT + 5).map(|n| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into();
        let group = ["a", "b", "c"][n as usize % 3].to_owned();
        Instance::new(address, format!("i{n}"), group, crate::slot::Readiness::Ready)
    });
    let observed = Observation { instances: instances.collect(), ..Observation::default() };
    let plan = decide(&Table::default(), &[], &observed, at(0), &limits(MAX_SLOT));
    assert_eq!(plan.changes.len(), MAX_SLOT as usize);
    assert!(plan.slots.values().all(|slot| slot.occupant.is_some()));
    assert_eq!(plan.unplaced.len(), 5);
}

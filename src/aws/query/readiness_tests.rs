use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::selection::GroupSelection;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ONE: &str = "i-00000000000000001";

fn member(id: &str, lifecycle: &str, health: &str) -> Member {
    Member { id: id.to_string(), lifecycle: lifecycle.to_string(), health: health.to_string(), ..Member::default() }
}

fn group(name: &str, members: &[(&str, &str, &str)]) -> Group {
    let members = members.iter().map(|(id, lifecycle, health)| member(id, lifecycle, health));
    Group { name: name.to_string(), members: members.collect::<Vec<_>>().into(), ..Group::default() }
}

fn record(id: &str, state: &str, address: Option<Ipv4Addr>) -> Record {
    Record { id: id.to_string(), state: state.to_string(), address, ..Record::default() }
}

fn answer<'a>(records: Vec<Record>) -> DescribedInstances<'a> {
    DescribedInstances { batches: vec![Arc::new(records)], ..DescribedInstances::default() }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// What is observed of the groups with these names.
fn observe(
    configured: &[String],
    groups: &[Group],
    occupants: &[&str],
    described: &DescribedInstances<'_>,
) -> Observation {
    let configured: Vec<&str> = configured.iter().map(String::as_str).collect();
    let selected = GroupSelection::named(&configured).select(groups.iter().map(|group| group.name.as_str()));
    super::observe(selected, groups, occupants, described, &InstanceReading::default())
}

fn instance(id: &str, group: &str, readiness: Readiness) -> Instance {
    Instance::new(IpAddr::V4(ADDRESS), id.to_string(), group.to_string(), readiness)
}

fn fates(told: &[(&str, Fate)]) -> Unlisted {
    Unlisted::Fates(told.iter().map(|(name, fate)| (name.to_string(), *fate)).collect())
}

#[test]
fn every_lifecycle_state_is_classified() {
    use Membership::{Absent, Draining, Ready, Replacing, Unknown};
    let cases = [
        ("InService", "Healthy", Ready),
        ("InService", "HEALTHY", Ready),
        ("InService", "Unhealthy", Draining),
        ("InService", "UNHEALTHY", Draining),
        ("InService", "Pondering", Unknown),
        ("Terminating", "Healthy", Draining),
        ("Terminating:Wait", "Unhealthy", Draining),
        ("Terminating:Proceed", "Healthy", Draining),
        ("Detaching", "Healthy", Draining),
        ("EnteringStandby", "Healthy", Draining),
        ("Pending", "Healthy", Draining),
        ("Pending:Wait", "Healthy", Draining),
        ("Pending:Proceed", "Pondering", Draining),
        ("ReplacingRootVolume", "Healthy", Replacing),
        ("ReplacingRootVolume:Wait", "Unhealthy", Replacing),
        ("ReplacingRootVolume:Proceed", "Healthy", Replacing),
        ("RootVolumeReplaced", "Healthy", Replacing),
        ("Terminating:Retained", "Healthy", Absent),
        ("Standby", "Healthy", Absent),
        ("Detached", "Healthy", Absent),
        ("Terminated", "Healthy", Absent),
        ("Warmed:Pending", "Healthy", Absent),
        ("Warmed:Pending:Retained", "Healthy", Absent),
        ("Warmed:Running", "Healthy", Absent),
        ("Warmed:Terminating:Wait", "Healthy", Absent),
        ("Quarantined", "Healthy", Unknown),
        ("Terminating:Something", "Healthy", Unknown),
        ("Pending:Something", "Healthy", Unknown),
        ("inservice", "Healthy", Unknown),
        ("Dreaming", "Healthy", Unknown),
        ("", "Healthy", Unknown),
    ];
    for (lifecycle, health, expected) in cases {
        assert_eq!(membership(&member(ONE, lifecycle, health)), expected, "{lifecycle} {health}");
    }
}

/// What becomes of an occupant, by the states in its group and in EC2.
#[test]
fn the_group_and_ec2_together_decide() {
    let running = || Some(record(ONE, "running", Some(ADDRESS)));
    let in_state = |state: &str| Some(record(ONE, state, Some(ADDRESS)));
    let (ready, drains, kept) = ("ready", "draining", "unknown");
    let (hidden, hidden_drains, hidden_kept) = ("hidden ready", "hidden draining", "hidden unknown");
    let cases = [
        ("InService", running(), ready),
        ("InService", Some(record(ONE, "running", None)), hidden),
        ("InService", Some(record(ONE, "running", Some(Ipv4Addr::UNSPECIFIED))), hidden),
        ("InService", in_state("pending"), hidden),
        ("InService", in_state("rebooting"), hidden),
        ("InService", in_state("stopping"), "gone"),
        ("InService", in_state("stopped"), "gone"),
        ("InService", in_state("shutting-down"), "gone"),
        ("InService", Some(record(ONE, "terminated", None)), "gone"),
        ("InService", None, hidden),
        ("InService", Some(record("i-00000000000000002", "running", Some(ADDRESS))), hidden),
        ("Terminating:Wait", running(), drains),
        ("Terminating:Wait", Some(record(ONE, "running", None)), hidden_drains),
        ("Terminating", None, hidden_drains),
        ("Terminating:Wait", in_state("shutting-down"), "gone"),
        ("Detaching", None, hidden_drains),
        ("EnteringStandby", in_state("stopped"), "gone"),
        ("Pending", running(), drains),
        ("Pending:Wait", in_state("pending"), hidden_drains),
        ("Pending", in_state("stopped"), "gone"),
        ("Pending", in_state("terminated"), "gone"),
        ("ReplacingRootVolume", running(), drains),
        ("ReplacingRootVolume", None, hidden_drains),
        ("ReplacingRootVolume:Wait", in_state("stopping"), hidden_drains),
        ("ReplacingRootVolume:Proceed", in_state("stopped"), hidden_drains),
        ("RootVolumeReplaced", in_state("terminated"), hidden_drains),
        ("RootVolumeReplaced", in_state("pending"), hidden_drains),
        ("Standby", running(), "gone"),
        ("Terminating:Retained", running(), "gone"),
        ("Warmed:Running", running(), "gone"),
        ("Dreaming", running(), kept),
        ("Dreaming", None, hidden_kept),
        ("Dreaming", in_state("stopped"), "gone"),
    ];
    for (lifecycle, found, expected) in cases {
        let groups = [group("web", &[(ONE, lifecycle, "Healthy")])];
        let text = format!("{lifecycle} {found:?}");
        let observed = observe(&names(&["web"]), &groups, &[ONE], &answer(found.into_iter().collect()));
        let readiness = |readiness: Readiness| format!("{readiness:?}").to_lowercase();
        let mut outcomes: Vec<String> = observed.instances.iter().map(|one| readiness(one.readiness)).collect();
        outcomes.extend(observed.hidden.iter().map(|one| format!("hidden {}", readiness(one.readiness))));
        if observed.unlisted == fates(&[(ONE, Fate::Gone)]) {
            outcomes.push("gone".to_owned());
        }
        assert_eq!(outcomes, [expected], "{text}");
        let unseen = expected.starts_with("hidden") && lifecycle == "InService";
        assert_eq!(observed.unseen().count(), usize::from(unseen), "{text}");
    }
}

/// An instance without a slot gets one only when it is ready, so nothing else matters.
#[test]
fn of_members_without_a_slot_only_those_in_service_are_queried() {
    let members = [
        ("i-00000000000000001", "InService", "Healthy"),
        ("i-00000000000000002", "InService", "Unhealthy"),
        ("i-00000000000000003", "Pending", "Healthy"),
        ("i-00000000000000004", "Terminating", "Healthy"),
        ("i-00000000000000005", "Dreaming", "Healthy"),
        ("i-00000000000000006", "Standby", "Healthy"),
    ];
    let groups = [group("web", &members)];
    let all = members.map(|(id, ..)| id);
    assert_eq!(instance_query(&groups, &[]), InstanceQuery { listed: all[..2].to_vec(), unlisted: vec![] });
    assert_eq!(instance_query(&groups, &all), InstanceQuery { listed: all[..5].to_vec(), unlisted: vec![] });
    let observed = observe(&names(&["web"]), &groups, &[], &answer(vec![]));
    assert_eq!(observed.unseen().collect::<Vec<_>>(), all[..2]);
    assert_eq!((observed.hidden.len(), observed.unlisted), (2, fates(&[])));
    assert_eq!(observed.unknown_states.len(), 1, "but an unknown state is reported: {:?}", observed.unknown_states);
}

#[test]
fn an_unknown_state_is_reported_with_instance_and_group() {
    let members = [(ONE, "Dreaming", "Healthy"), ("i-2", "InService", "So\nso"), ("i-3", "Pending", "So so")];
    let observed = observe(&names(&["web"]), &[group("web", &members)], &[], &answer(vec![]));
    let told: Vec<String> =
        observed.unknown_states.iter().map(|one| format!("{} of {}: {}", one.name, one.group, one.state)).collect();
    let expected = [format!("{ONE} of web: lifecycle state \"Dreaming\""), "i-2 of web: health \"So\\nso\"".to_owned()];
    assert_eq!(told, expected);
}

#[test]
fn ec2_decides_the_fate_of_unlisted_occupants() {
    const OLD: &str = "i-0000000a";
    /// Name, EC2 state (or "denied": EC2 does not know it), and fate.
    type Case<'a> = (&'a str, Option<&'a str>, Fate);
    let cases: [Case<'_>; 10] = [
        (ONE, Some("running"), Fate::Unconfirmed),
        (OLD, Some("pending"), Fate::Unconfirmed),
        (ONE, Some("rebooting"), Fate::Unconfirmed),
        (ONE, Some("stopping"), Fate::Gone),
        (ONE, Some("stopped"), Fate::Gone),
        (ONE, Some("shutting-down"), Fate::Gone),
        (OLD, Some("terminated"), Fate::Gone),
        (ONE, Some("denied"), Fate::NotFound),
        (ONE, None, Fate::Unconfirmed),
        ("node-1", None, Fate::Unconfirmed),
    ];
    for (name, state, expected) in cases {
        let groups = [group("web", &[("i-00000000000000009", "InService", "Healthy")])];
        let denied = HashSet::from_iter((state == Some("denied")).then_some(name));
        let records = state.filter(|state| *state != "denied").map(|state| record(name, state, None));
        let described = DescribedInstances { not_found: denied, ..answer(records.into_iter().collect()) };
        let observed = observe(&names(&["web", "missing"]), &groups, &[name], &described);
        assert_eq!(observed.unlisted, fates(&[(name, expected)]), "{name} {state:?}");
    }
}

/// EC2 rejects a whole call for a name that is not an id.
#[test]
fn only_well_formed_ids_are_queried() {
    let malformed =
        ["", "node-1", "i-", "i-by-hand", "i-0000000A", "i-000000001", "i-0000000000000000g", "i-00000000000000001 "];
    assert_eq!(instance_query(&[], &malformed), InstanceQuery::default());
    assert_eq!(instance_query(&[], &["i-0123abcd", ONE]).unlisted, ["i-0123abcd", ONE]);
}

#[test]
fn no_id_is_queried_twice() {
    let groups = [group("a", &[(ONE, "InService", "Healthy")]), group("b", &[(ONE, "InService", "Healthy")])];
    let other = "i-00000000000000002";
    assert_eq!(
        instance_query(&groups, &[ONE, other, other]),
        InstanceQuery { listed: vec![ONE], unlisted: vec![other] }
    );
}

#[test]
fn an_omitted_group_is_missing_and_an_empty_one_is_not() {
    let groups = [group("web", &[]), group("Api", &[(ONE, "InService", "Healthy")])];
    let observed = observe(&names(&["web", "api", "gone"]), &groups, &[], &answer(vec![]));
    let missing_groups = names(&["api", "gone"]);
    assert_eq!(
        observed,
        Observation { groups: names(&["web"]), missing_groups, unlisted: fates(&[]), ..Observation::default() }
    );
}

#[test]
fn the_first_configured_group_without_it_absent_wins() {
    let member = [(ONE, "InService", "Healthy")];
    let groups = [group("a", &member), group("b", &member), group("c", &[(ONE, "Detached", "Healthy")])];
    for (order, expected) in [(["a", "b", "c"], "a"), (["b", "a", "c"], "b"), (["c", "b", "a"], "b")] {
        let running = answer(vec![record(ONE, "running", Some(ADDRESS))]);
        let observed = observe(&names(&order), &groups, &[ONE], &running);
        assert_eq!(observed.instances, [instance(ONE, expected, Readiness::Ready)], "{order:?}");
        assert_eq!(observed.unlisted, fates(&[]));
    }
    assert_eq!(instance_query(&groups, &[]).listed, [ONE]);
}

#[test]
fn the_address_size_and_tags_are_those_that_are_asked_for() {
    let in_service = Member { capacity: Some(3), ..member(ONE, "InService", "Healthy") };
    let groups = [Group { name: "web".to_owned(), members: vec![in_service].into(), ..Group::default() }];
    let v6 = "fd00::1".parse().expect("an address");
    let public = "203.0.113.7".parse().expect("an address");
    let both = Record { ipv6: Some(v6), public: Some(public), vcpus: Some(8), ..record(ONE, "running", Some(ADDRESS)) };
    let only_v6 = Record { ipv6: Some(v6), ..record(ONE, "running", None) };
    let seen = |record: &Record, address: AddressKind, weight_by: WeightBy| {
        let reading = InstanceReading { address, weight_by, ..InstanceReading::default() };
        let selected = GroupSelection::named(&["web"]).select(["web"].into_iter());
        super::observe(selected, &groups, &[], &answer(vec![record.clone()]), &reading)
    };
    for (record, kind, expected) in [
        (&both, AddressKind::Private, Some("10.0.0.1")),
        (&both, AddressKind::Ipv6, Some("fd00::1")),
        (&both, AddressKind::Public, Some("203.0.113.7")),
        (&only_v6, AddressKind::Private, Some("fd00::1")),
        (&only_v6, AddressKind::Public, None),
    ] {
        let found = seen(record, kind, WeightBy::None);
        let address = found.instances.first().map(|instance| instance.address.to_string());
        assert_eq!(address.as_deref(), expected, "{kind:?}");
        // Without one, its slot is kept, and it is named.
        assert_eq!(found.unseen().count(), usize::from(expected.is_none()));
        if expected.is_none() {
            assert_eq!(found.said[ONE], "EC2 shows no usable public IPv4 address");
        }
    }
    for (by, expected) in
        [(WeightBy::None, Size::Unit), (WeightBy::Capacity, Size::Capacity(3)), (WeightBy::Vcpu, Size::Vcpus(8))]
    {
        assert_eq!(seen(&both, AddressKind::Private, by).instances[0].size, expected);
    }
    assert_eq!(seen(&only_v6, AddressKind::Private, WeightBy::Vcpu).instances[0].size, Size::Unit, "EC2 does not tell");
}

#[test]
fn tags_count_only_where_they_are_asked_for() {
    let groups = [group("web", &[(ONE, "InService", "Healthy")])];
    let tags =
        [("exclude", "true"), ("port", "81"), ("weight", "x")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let tagged = Record { tags: tags.to_vec(), ..record(ONE, "running", Some(ADDRESS)) };
    for (asked, readiness, port, faulty) in
        [(false, Readiness::Ready, None, 0), (true, Readiness::Draining, Some(81), 1)]
    {
        let reading = InstanceReading { tags: asked, ..InstanceReading::default() };
        let selected = GroupSelection::named(&["web"]).select(["web"].into_iter());
        let found = super::observe(selected, &groups, &[ONE], &answer(vec![tagged.clone()]), &reading);
        let instance = &found.instances[0];
        assert_eq!((instance.readiness, instance.port, found.faulty_tags.len()), (readiness, port, faulty));
        assert_eq!(found.said.get(ONE).map(String::as_str), asked.then_some("tag hsdo:exclude"));
    }
}

/// A mark drains a ready member that runs, and means nothing for any other.
#[test]
fn an_announced_interruption_drains_a_ready_instance_that_runs() {
    const CODE: &str = "instance-terminated-no-capacity";
    let notice = format!("Spot interruption notice ({CODE})");
    let (unhealthy, dreaming) = ("health \"Unhealthy\"", "lifecycle state \"Dreaming\"");
    let (draining, hidden) = (Some(Readiness::Draining), None);
    for (lifecycle, health, ec2, marked, expected, said) in [
        ("InService", "Healthy", "running", false, Some(Readiness::Ready), None),
        ("InService", "Healthy", "running", true, draining, Some(notice.as_str())),
        ("InService", "Healthy", "pending", true, hidden, Some("EC2 state \"pending\"")),
        ("InService", "Healthy", "shutting-down", true, None, None),
        ("InService", "Unhealthy", "running", true, draining, Some(unhealthy)),
        ("Dreaming", "Healthy", "running", true, Some(Readiness::Unknown), Some(dreaming)),
        ("Standby", "Healthy", "running", true, None, None),
    ] {
        let text = format!("{lifecycle} {health} {ec2} {marked}");
        let groups = [group("web", &[(ONE, lifecycle, health)])];
        let mut described = answer(vec![record(ONE, ec2, Some(ADDRESS))]);
        // The mark of an instance in no group changes nothing.
        let other = [("i-00000000000000009", CODE)];
        let marks = other.into_iter().chain(marked.then_some((ONE, CODE)));
        described.marks = Arc::new(marks.map(|(id, code)| (id.to_owned(), code)).collect());
        let found = observe(&names(&["web"]), &groups, &[ONE], &described);
        assert_eq!(found.instances.first().map(|one| one.readiness), expected, "{text}");
        assert_eq!(found.said.get(ONE).map(String::as_str), said, "{text}");
        let unmarked = DescribedInstances { marks: Arc::default(), ..described };
        let without = observe(&names(&["web"]), &groups, &[ONE], &unmarked);
        assert_eq!((found.unlisted, found.hidden), (without.unlisted, without.hidden), "{text}");
    }
}

/// An instance that somebody excludes says so, notice or not.
#[test]
fn an_excluded_instance_keeps_its_reason_when_it_is_announced() {
    let tags = vec![("exclude".to_owned(), "true".to_owned())];
    let mut described = answer(vec![Record { tags, ..record(ONE, "running", Some(ADDRESS)) }]);
    described.marks = Arc::new([(ONE.to_owned(), "marked-for-stop")].into());
    let reading = InstanceReading { tags: true, ..InstanceReading::default() };
    let selected = GroupSelection::named(&["web"]).select(["web"].into_iter());
    let groups = [group("web", &[(ONE, "InService", "Healthy")])];
    let found = super::observe(selected, &groups, &[ONE], &described, &reading);
    assert_eq!((found.instances[0].readiness, found.said[ONE].as_str()), (Readiness::Draining, "tag hsdo:exclude"));
}

//! The tags of an instance that hsdo reads, if `SERVER_INSTANCE_TAGS` is true. Pure.

use super::ec2::Record;
use crate::slot::{FaultyTag, row_name};
use crate::weight::Factor;

/// What the tags of an instance say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InstanceTags {
    /// `hsdo:weight`.
    pub(super) weight: Option<Factor>,
    /// `hsdo:port`, not 0.
    pub(super) port: Option<u16>,
    /// `hsdo:exclude`.
    pub(super) excluded: bool,
}

impl InstanceTags {
    /// Those of `record`. A tag that cannot be read counts as absent, and is added to `faulty`.
    pub(super) fn of(record: &Record, group: &str, faulty: &mut Vec<FaultyTag>) -> Self {
        let mut tags = InstanceTags::default();
        for (key, value) in &record.tags {
            let text = value.trim();
            let expected = match key.as_str() {
                "weight" => {
                    tags.weight = Factor::parse_given(text);
                    tags.weight.is_none().then_some("a factor from 0 to 16, decimals allowed")
                }
                "port" => {
                    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                    tags.port = text.parse().ok().filter(|port| digits && *port > 0);
                    tags.port.is_none().then_some("a port from 1 to 65535")
                }
                "exclude" => {
                    tags.excluded = text.eq_ignore_ascii_case("true");
                    let known = tags.excluded || text.eq_ignore_ascii_case("false");
                    (!known).then_some("true or false")
                }
                _ => Some("one of hsdo:weight, hsdo:port and hsdo:exclude"),
            };
            faulty.extend(expected.map(|expected| FaultyTag {
                name: row_name(record.id.clone()),
                group: group.to_owned(),
                tag: format!("hsdo:{key}={value:?}"),
                expected,
            }));
        }
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_faulty_ones_are_named() {
        let factor = |text| Factor::parse(text).expect("a factor");
        let none = InstanceTags::default();
        for (key, value, expected, faulty) in [
            ("weight", "2", InstanceTags { weight: Some(factor("2")), ..none }, false),
            ("weight", " 0.5 ", InstanceTags { weight: Some(factor("0.5")), ..none }, false),
            ("weight", "0", InstanceTags { weight: Some(Factor::ZERO), ..none }, false),
            ("weight", "-1", none, true),
            ("weight", "heavy", none, true),
            ("weight", "300", none, true),
            ("weight", "", none, true),
            ("port", "8081", InstanceTags { port: Some(8081), ..none }, false),
            ("port", "0", none, true),
            ("port", "65536", none, true),
            ("port", "+80", none, true),
            ("port", "http", none, true),
            ("exclude", "true", InstanceTags { excluded: true, ..none }, false),
            ("exclude", "True", InstanceTags { excluded: true, ..none }, false),
            ("exclude", "false", none, false),
            ("exclude", "", none, true),
            ("exclude", "yes please", none, true),
            ("wieght", "2", none, true),
        ] {
            let tags = vec![(key.to_owned(), value.to_owned())];
            let record = Record { id: "i-1".to_owned(), tags, ..Record::default() };
            let mut found = Vec::new();
            assert_eq!(InstanceTags::of(&record, "web", &mut found), expected, "{key}={value}");
            assert_eq!(found.len(), usize::from(faulty), "{key}={value}");
        }
    }
}

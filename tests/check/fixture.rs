//! Shared by the tests of `hsdo check`: a bed whose table and HAProxy are as they should be, and what a case expects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::bed::{Bed, TABLE};
use crate::common::haproxy::{BackendConfig, Haproxy};
use crate::common::hsdo::{Hsdo, Outcome};
use crate::common::moto::Item;

pub(crate) const SLOTS: u32 = 4;

/// A table of four slots, two of them taken, and a group of two instances.
pub(crate) struct Site {
    // Fields drop in this order.
    pub(crate) haproxy: Option<Haproxy>,
    pub(crate) bed: Bed,
    before: BTreeMap<u32, Item>,
}

impl Site {
    /// Without HAProxy.
    pub(crate) fn of_server(name: &str) -> Self {
        let bed = Bed::new(name);
        bed.moto().create_group("web", 0, 2);
        bed.moto().create_table();
        for (id, instance) in (1..).zip(bed.moto().instances("web")) {
            bed.moto().put_server(id, &instance.address.to_string(), &instance.id, Some("web"), 10);
        }
        (3..=SLOTS).for_each(|id| bed.moto().put_free(id));
        let before = bed.moto().items();
        Site { haproxy: None, bed, before }
    }

    /// With HAProxy.
    pub(crate) fn set(name: &str) -> Self {
        let mut site = Self::of_server(name);
        let backend = BackendConfig::new("http-back", "mywebapp", SLOTS as usize);
        site.haproxy = Some(Haproxy::start(&site.bed, &[backend]));
        site
    }

    /// `hsdo check` with the settings of a role.
    pub(crate) fn check(&self, role: &str) -> Hsdo {
        let check = Hsdo::with_aws(&self.bed, "check").arg("check").arg("--json");
        let check = check.env("HAPROXY_BACKEND_SERVERS_LIST_SIZE", &SLOTS.to_string());
        if role == "server" {
            return check.arg("--server").env("SERVER_MODE", "aws").env("SERVER_ASG_NAMES", "web");
        }
        check
            .arg("--client")
            .env("CLIENT_HAPROXY_SOCKET_PATH", &self.bed.socket().to_string_lossy())
            .env("CLIENT_HAPROXY_BACKEND_LIST", "http-back:mywebapp:80")
    }

    /// Creates another table.
    pub(crate) fn make_table(&self, name: &str, key: &str, kind: &str, billing: &Value) {
        let mut body = json!({
            "TableName": name,
            "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind}],
        });
        let billing = billing.as_object().expect("an object");
        body.as_object_mut().expect("an object").extend(billing.clone());
        self.bed.moto().dynamodb("CreateTable", &body);
    }

    /// Panics if the table, or an item that is no slot, has changed.
    #[track_caller]
    pub(crate) fn assert_unchanged(&self) {
        assert_eq!(self.bed.moto().items(), self.before, "check changes nothing in {TABLE}");
    }
}

/// What `check` says.
pub(crate) struct Report {
    outcome: Outcome,
    document: Value,
}

impl Report {
    /// Runs it; its exit code must agree with its lines.
    #[track_caller]
    pub(crate) fn of(check: Hsdo) -> Self {
        let outcome = check.run();
        let document: Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
        let report = Report { outcome, document };
        let mends = report.at("mend").count();
        report.outcome.assert_code(i32::from(mends > 0));
        assert!(report.outcome.stderr.is_empty(), "{}", report.outcome);
        for line in report.at("mend").chain(report.at("warn")) {
            assert!(line["remedy"].as_str().is_some_and(|remedy| remedy.len() > 3), "no remedy: {line}");
        }
        report
    }

    pub(crate) fn at<'a>(&'a self, level: &'a str) -> impl Iterator<Item = &'a Value> {
        let lines = self.document["lines"].as_array().expect("lines");
        lines.iter().filter(move |line| line["level"] == level)
    }

    /// Panics unless a line of that level is about that subject, and its text and remedy contain these words.
    #[track_caller]
    pub(crate) fn assert_says(&self, level: &str, subject: &str, text: &str, remedy: &str) {
        let says = |line: &Value, field: &str, wanted: &str| line[field].as_str().unwrap_or_default().contains(wanted);
        let found = self.at(level).any(|line| {
            line["subject"] == subject
                && says(line, "text", text)
                && (remedy.is_empty() || says(line, "remedy", remedy))
        });
        assert!(found, "no {level} of {subject:?} with {text:?} and {remedy:?} in {}", self.outcome);
    }

    /// Panics if a line is not `ok`.
    #[track_caller]
    pub(crate) fn assert_good(&self) {
        assert_eq!((self.at("mend").count(), self.at("warn").count()), (0, 0), "{}", self.outcome);
    }

    /// Panics unless the lines that are not `ok` are about these subjects.
    #[track_caller]
    pub(crate) fn assert_only(&self, subjects: &[&str]) {
        let bad: Vec<&str> =
            self.at("mend").chain(self.at("warn")).filter_map(|line| line["subject"].as_str()).collect();
        assert!(bad.iter().all(|subject| subjects.contains(subject)), "{bad:?}: {}", self.outcome);
    }

    pub(crate) fn stdout(&self) -> &str {
        &self.outcome.stdout
    }
}

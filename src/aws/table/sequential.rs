//! Writes slots one by one where transactions are missing: in global tables with strong consistency, and in DynamoDB
//! lookalikes (dynalite, ScyllaDB's Alternator). The Python version needed none either.
//!
//! Each slot is written on the condition that its row is still as read, so no other write is lost. The lease is confirmed
//! by a conditional update before the first slot, and again every [`CONFIRM_AFTER`]; the writes under it end by
//! [`WRITE_DEADLINE`], two seconds before another server may take over. The version is written last, so that clients read
//! complete writes. The remaining risk: a leader suspended while sending may write that one slot late; the next leader
//! sees and corrects it in its next turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::codec::{self, MARKER_SLOT, RowAttributes};
use super::dynamodb::get_item;
use super::schema::ATTEMPT_TIMEOUT;
use super::store::{SlotTable, WRITE_TIMEOUT};
use crate::about::{About, Message};
use crate::aws::error::AwsError;
use crate::aws::transport::http::Budget;
use crate::marker::{MAX_COUNTER, Stamp};
use crate::slot::{Slot, SlotId};

/// How long writes may begin under one confirmation of the lease.
const CONFIRM_AFTER: Duration = Duration::from_secs(2);
/// When those writes must have ended. The lease lapses six seconds after its last change.
const WRITE_DEADLINE: Duration = Duration::from_secs(4);

/// The last stamp written, and when.
struct ConfirmedLease {
    stamp: Stamp,
    since: Instant,
}

impl SlotTable {
    /// Stops trying transactions; `why` is logged.
    pub(super) fn disable_transactions(&self, why: &str) {
        if !self.without_transactions.swap(true, Ordering::Relaxed) {
            log::warn!(
                "table {:?} has no transactions ({why}): slots are written one by one, and a leader that is \
                 paused during a write may write one slot late",
                self.name
            );
        }
    }

    /// Takes up to 10 s. After an error some slots may be written; the version rises then or in the next turn.
    pub(super) fn write_sequentially(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, AwsError> {
        if slots.is_empty() {
            return Ok(stamp.clone());
        }
        let budget = self.aws.budget(WRITE_TIMEOUT, ATTEMPT_TIMEOUT);
        let mut lease = self.confirm_lease(Stamp { version: None, ..stamp.clone() }, &budget)?;
        // Fill before emptying: an instance that moves is briefly in two slots, never in none.
        let (filled, empty): (Vec<&Slot>, Vec<&Slot>) = slots.iter().partition(|slot| slot.occupant.is_some());
        let written = filled.into_iter().chain(empty).try_for_each(|slot| {
            if lease.since.elapsed() >= CONFIRM_AFTER {
                lease = self.confirm_lease(next_heartbeat(&lease.stamp), &budget)?;
            }
            self.write_one(slot, &lease, &budget)
        });
        if !self.unannounced {
            return written.map(|()| lease.stamp);
        }
        // A fresh budget, however long the slots took.
        let budget = self.aws.budget(CONFIRM_AFTER, ATTEMPT_TIMEOUT);
        let announced = self.confirm_lease(Stamp { version: stamp.version, ..next_heartbeat(&lease.stamp) }, &budget);
        self.unannounced &= announced.is_err();
        written.and(announced).map(|lease| lease.stamp)
    }

    fn write_one(&mut self, slot: &Slot, lease: &ConfirmedLease, budget: &Budget) -> Result<(), AwsError> {
        let wanted = Arc::new(codec::encode(slot));
        let before = self.rows.as_ref().and_then(|rows| rows.get(&slot.id)).map(Arc::as_ref);
        let update = match slot.id {
            MARKER_SLOT => codec::marker_slot_update(&lease.stamp.leader, &wanted, before),
            id => codec::row_update(id, &wanted, before),
        };
        let budget =
            self.aws.budget(budget.left().min(WRITE_DEADLINE.saturating_sub(lease.since.elapsed())), ATTEMPT_TIMEOUT);
        // The row may have changed even if the response is lost.
        let before_write = std::mem::replace(&mut self.unannounced, true);
        // The retry of a write whose response was lost fails its condition, but finds the row as wanted.
        if !self.update(&update, &budget)? && !self.already_stored(slot.id, &wanted, &budget) {
            self.unannounced = before_write;
            let text = format!("table {:?}: slot {} was modified by another writer", self.name, slot.id);
            return Err(AwsError::Conflict(Message::new(text, About::default().slot([slot.id]))));
        }
        if slot.id == MARKER_SLOT {
            self.remember_marker_row(Some(&wanted));
        }
        self.rows.get_or_insert_default().insert(slot.id, wanted);
        Ok(())
    }

    /// Writes the stamp, on the condition that the table names its leader.
    fn confirm_lease(&self, stamp: Stamp, budget: &Budget) -> Result<ConfirmedLease, AwsError> {
        let since = Instant::now();
        if self.update(
            &codec::marker_update(&stamp, None),
            &self.aws.budget(budget.left().min(WRITE_DEADLINE), ATTEMPT_TIMEOUT),
        )? {
            Ok(ConfirmedLease { stamp, since })
        } else {
            let text = format!("another server leads table {:?}", self.name);
            Err(AwsError::Conflict(Message::new(text, About::default())))
        }
    }

    /// Whether the row is as wanted already; false if it cannot be read.
    fn already_stored(&self, id: SlotId, wanted: &RowAttributes, budget: &Budget) -> bool {
        let item = get_item(&self.aws, &self.name, &codec::key(id), true, None, budget);
        item.is_ok_and(|item| item.is_some_and(|item| codec::row_attributes(item) == *wanted))
    }
}

/// The next heartbeat, without a version.
fn next_heartbeat(stamp: &Stamp) -> Stamp {
    Stamp { version: None, heartbeat: (stamp.heartbeat + 1).min(MAX_COUNTER), ..stamp.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aws::testing::{CannedResponse, Responder, Seen, aws};
    use crate::ports::SlotStore;
    use crate::slot::{Occupant, Status};

    fn taken(id: SlotId) -> Slot {
        let occupant = Occupant {
            address: "10.0.0.1".parse().expect("an address"),
            name: format!("i-{id}"),
            group: None,
            zone: None,
            port: None,
            weight: 1,
            status: Status::Enabled,
            last_step: None,
            drain_since: None,
        };
        Slot { occupant: Some(occupant), ..Slot::empty(id) }
    }

    fn next() -> Stamp {
        Stamp { version: Some(7), heartbeat: 20, leader: "me".to_string(), blind: false }
    }

    fn refused(code: &str) -> CannedResponse {
        CannedResponse { status: 400, body: format!("{{\"__type\":\"x#{code}\"}}") }
    }

    /// What a call does: `Scan`, `slot 2`, `beat 20` or `version 7`.
    fn step(seen: &Seen) -> String {
        let body = seen.json();
        let value = |name: &str| body["ExpressionAttributeValues"][name]["N"].as_str().map(str::to_string);
        match (seen.operation().as_str(), value(":w3"), value(":version")) {
            ("UpdateItem", Some(_), _) => {
                format!("slot {}", body["Key"]["BackendServerID"]["N"].as_str().expect("a key"))
            }
            ("UpdateItem", None, Some(version)) => format!("version {version}"),
            ("UpdateItem", None, None) => format!("beat {}", value(":heartbeat").expect("one")),
            (operation, ..) => operation.to_string(),
        }
    }

    /// A DynamoDB without transactions, with these responses to other steps.
    fn without(answer: impl Fn(&str) -> Option<CannedResponse> + Send + 'static) -> Responder {
        Responder::new(move |seen: &Seen| match (seen.operation().as_str(), answer(&step(seen))) {
            (_, Some(answer)) => answer,
            ("Scan", None) => CannedResponse::ok(r#"{"Items":[]}"#),
            ("TransactWriteItems", None) => refused("UnknownOperationException"),
            (_, None) => CannedResponse::ok("{}"),
        })
    }

    fn steps(server: &Responder) -> Vec<String> {
        server.seen().iter().map(step).collect()
    }

    fn table(server: &Responder) -> SlotTable {
        SlotTable::new(aws(&server.url).0, "web")
    }

    #[test]
    fn without_transactions_slots_go_one_by_one_under_the_lease_and_the_version_last() {
        let server = without(|_| None);
        let mut slots = table(&server);
        SlotStore::read(&mut slots).expect("a table");
        let plan = [Slot::empty(1), taken(2), Slot::empty(3), taken(4)];
        let written = slots.write(&plan, &next()).expect("written");
        assert_eq!(written, Stamp { heartbeat: 21, ..next() });
        let expected = ["Scan", "TransactWriteItems", "beat 20", "slot 2", "slot 4", "slot 1", "slot 3", "version 7"];
        assert_eq!(steps(&server), expected);
        for seen in server.seen() {
            let condition = seen.json()["ConditionExpression"].as_str().unwrap_or_default().to_string();
            match step(&seen).as_str() {
                "slot 1" => assert_eq!(condition, "attribute_not_exists(#key) AND #leader = :leader"),
                step if step.starts_with("slot") => assert_eq!(condition, "attribute_not_exists(#key)"),
                step if step.starts_with("beat") || step.starts_with("version") => {
                    assert_eq!(condition, "#leader = :leader");
                }
                _ => {}
            }
        }
        // Neither this handle nor another tries transactions again, and conditions use the rows as written.
        let (before, mut other) = (server.seen().len(), slots.new_handle());
        other.write(&[taken(5)], &next()).expect("written");
        slots.write(&[taken(2)], &next()).expect("written");
        assert_eq!(steps(&server)[before..], ["beat 20", "slot 5", "version 7", "beat 20", "slot 2", "version 7"]);
        let last: Value = server.seen()[before + 4].json();
        let blind = Stamp { blind: true, ..next() };
        assert!(slots.write(&[taken(6)], &blind).expect("written").blind);
        let marked = server.seen().split_off(before + 6).into_iter().filter(|seen| !step(seen).starts_with("slot"));
        for seen in marked {
            assert!(seen.json()["UpdateExpression"].as_str().expect("one").contains("#blind = :blind"), "{seen:?}");
        }
        assert_eq!(last["ExpressionAttributeValues"][":b1"], json!({"S": "i-2"}));
    }

    #[test]
    fn another_leader_or_writer_ends_the_write_and_what_is_written_is_announced() {
        let failed = || Some(refused("ConditionalCheckFailedException"));
        let cases: [(&str, &str, &[&str]); 2] = [
            ("beat 20", "another server leads table \"web\"", &["beat 20"]),
            (
                "slot 3",
                "slot 3 was modified by another writer",
                &["beat 20", "slot 2", "slot 3", "GetItem", "version 7"],
            ),
        ];
        for (fails, text, expected) in cases {
            let server = without(move |step| if step == fails { failed() } else { None });
            let mut slots = table(&server);
            slots.without_transactions.store(true, Ordering::Relaxed);
            let error = slots.write(&[taken(2), taken(3), taken(4)], &next()).expect_err(text);
            assert!(error.to_string().contains(text) && !error.needs_operator, "{error}");
            assert_eq!(steps(&server), expected);
            assert!(!SlotStore::read(&mut slots).expect("a table").changed || fails == "slot 3");
        }
    }

    #[test]
    fn unannounced_rows_are_announced_in_the_next_turn() {
        let server = without(|step| (step == "version 7").then(|| refused("ValidationException")));
        let mut slots = table(&server);
        slots.without_transactions.store(true, Ordering::Relaxed);
        slots.rows = Some(Default::default());
        assert!(slots.write(&[taken(2)], &next()).is_err());
        assert!(slots.unannounced);
        assert!(SlotStore::read(&mut slots).expect("a table").changed, "the server raises the version");
        assert!(slots.beat(&Stamp { version: None, ..next() }).expect("beaten") && slots.unannounced);
        assert!(slots.beat(&Stamp { version: Some(8), ..next() }).expect("beaten") && !slots.unannounced);
    }

    #[test]
    fn a_write_whose_response_was_lost_is_recognized() {
        let done = json!({ "Item": item(&taken(2)) }).to_string();
        let server = without(move |step| match step {
            "slot 2" => Some(refused("ConditionalCheckFailedException")),
            "GetItem" => Some(CannedResponse::ok(done.clone())),
            _ => None,
        });
        let mut slots = table(&server);
        slots.without_transactions.store(true, Ordering::Relaxed);
        slots.write(&[taken(2)], &next()).expect("written");
        assert_eq!(steps(&server), ["beat 20", "slot 2", "GetItem", "version 7"]);
    }

    fn item(slot: &Slot) -> Value {
        let update = codec::row_update(slot.id, &codec::encode(slot), None);
        let set = update.names.iter().filter_map(|(key, name)| {
            let value = update.values.get(&format!(":w{}", key.strip_prefix("#a")?))?;
            Some((name.clone(), json!(value)))
        });
        Value::Object(set.collect())
    }
}

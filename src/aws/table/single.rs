//! Writing slots one by one, where DynamoDB has no transactions: global tables of strong consistency, and other people's
//! DynamoDB (dynalite, ScyllaDB's Alternator). The Python version needed none either.
//!
//! What a transaction gives is kept as far as it can be. Each slot is written on the condition that its row is still as it
//! was read, so nobody's work is undone unseen. The lease is confirmed by a conditional update before the first slot, and
//! again whenever that is [`CONFIRMED`] ago; whatever depends on it is over [`HELD`] after it, two seconds before another
//! server may take over. The version rises last, so that clients read the whole. What is lost: a leader that is put to sleep
//! in the middle of sending may write that one slot late; the next leader sees it in its next turn, and puts it right.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::dynamodb::get_item;
use super::rows::{self as table, MARKED, Raw};
use super::store::{ATTEMPT, SlotTable, WRITE_TOTAL};
use crate::aws::error::AwsError;
use crate::aws::transport::http::Budget;
use crate::marker::{MOST, Stamp};
use crate::slot::{Slot, SlotId};

/// How long a confirmation of the lease counts for the writes that begin after it.
const CONFIRMED: Duration = Duration::from_secs(2);
/// When the writes that began under it have to be over. The lease lapses six seconds after its last change.
const HELD: Duration = Duration::from_secs(4);

/// The lease during a write: the stamp that was written last, and when.
struct Hold {
    stamp: Stamp,
    since: Instant,
}

impl SlotTable {
    /// From now on no transactions are tried; `why` is for the log.
    pub(super) fn write_singly_from_now_on(&self, why: &str) {
        if !self.singly.swap(true, Ordering::Relaxed) {
            log::warn!(
                "table {:?} has no transactions ({why}): its slots are written one by one, a call each, and a leader that \
                 is paused while it writes may write one of them late",
                self.name
            );
        }
    }

    /// Within 10 seconds. After an error, some of the slots are written; the version has risen if any is, or does by the
    /// next turn.
    pub(super) fn write_singly(&mut self, slots: &[Slot], stamp: &Stamp) -> Result<Stamp, AwsError> {
        if slots.is_empty() {
            return Ok(stamp.clone());
        }
        let budget = self.aws.budget(WRITE_TOTAL, ATTEMPT);
        let mut hold = self.confirm(Stamp { version: None, ..stamp.clone() }, &budget)?;
        // Servers come before servers go: one that moves stands in two slots for a moment, and never in none.
        let (seats, empty): (Vec<&Slot>, Vec<&Slot>) = slots.iter().partition(|slot| slot.occupant.is_some());
        let written = seats.into_iter().chain(empty).try_for_each(|slot| {
            if hold.since.elapsed() >= CONFIRMED {
                hold = self.confirm(after(&hold.stamp), &budget)?;
            }
            self.write_one(slot, &hold, &budget)
        });
        if !self.untold {
            return written.map(|()| hold.stamp);
        }
        // However long the slots took.
        let budget = self.aws.budget(CONFIRMED, ATTEMPT);
        let told = self.confirm(Stamp { version: stamp.version, ..after(&hold.stamp) }, &budget);
        self.untold &= told.is_err();
        written.and(told).map(|hold| hold.stamp)
    }

    fn write_one(&mut self, slot: &Slot, hold: &Hold, budget: &Budget) -> Result<(), AwsError> {
        let wanted = Arc::new(table::attributes(slot));
        let before = self.rows.as_ref().and_then(|rows| rows.get(&slot.id)).map(Arc::as_ref);
        let update = match slot.id {
            MARKED => table::marked_row(&hold.stamp.leader, &wanted, before),
            id => table::update(id, &wanted, before),
        };
        let budget = self.aws.budget(budget.left().min(HELD.saturating_sub(hold.since.elapsed())), ATTEMPT);
        // The answer may be lost, so whatever comes of it, the row may have changed.
        let told = std::mem::replace(&mut self.untold, true);
        // A write whose answer was lost is repeated, and finds that it has been done.
        if !self.update(&update, &budget)? && !self.says(slot.id, &wanted, &budget) {
            self.untold = told;
            return Err(AwsError::Conflict(format!(
                "table {:?}: slot {} was changed by another hand",
                self.name, slot.id
            )));
        }
        self.rows.get_or_insert_default().insert(slot.id, wanted);
        Ok(())
    }

    /// Writes the stamp, on the condition that the table names its leader.
    fn confirm(&self, stamp: Stamp, budget: &Budget) -> Result<Hold, AwsError> {
        let since = Instant::now();
        if self.update(&table::mark(&stamp, None), &self.aws.budget(budget.left().min(HELD), ATTEMPT))? {
            Ok(Hold { stamp, since })
        } else {
            Err(AwsError::Conflict(format!("another server leads table {:?}", self.name)))
        }
    }

    /// Whether a row says this already, as far as it can be read.
    fn says(&self, id: SlotId, wanted: &Raw, budget: &Budget) -> bool {
        let item = get_item(&self.aws, &self.name, &table::key(id), true, None, budget);
        item.is_ok_and(|item| item.is_some_and(|item| table::raw(item) == *wanted))
    }
}

/// The heartbeat after this one, and no version.
fn after(stamp: &Stamp) -> Stamp {
    Stamp { version: None, heartbeat: (stamp.heartbeat + 1).min(MOST), leader: stamp.leader.clone() }
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
            weight: 1,
            status: Status::Enabled,
            last_step: None,
        };
        Slot { id, occupant: Some(occupant), last_group: None }
    }

    fn next() -> Stamp {
        Stamp { version: Some(7), heartbeat: 20, leader: "me".to_string() }
    }

    fn refused(code: &str) -> CannedResponse {
        CannedResponse { status: 400, body: format!("{{\"__type\":\"x#{code}\"}}") }
    }

    /// What a call does: `Scan`, the slot that it writes, `confirm`, or the version that it tells.
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

    /// A DynamoDB without transactions that answers the others so, and the steps that were asked of it.
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
        // What is known is not tried again, by a twin neither, and each row is held to what was written.
        let (before, mut twin) = (server.seen().len(), slots.twin());
        twin.write(&[taken(5)], &next()).expect("written");
        slots.write(&[taken(2)], &next()).expect("written");
        assert_eq!(steps(&server)[before..], ["beat 20", "slot 5", "version 7", "beat 20", "slot 2", "version 7"]);
        let last: Value = server.seen()[before + 4].json();
        assert_eq!(last["ExpressionAttributeValues"][":b1"], json!({"S": "i-2"}));
    }

    #[test]
    fn another_leader_or_another_hand_ends_the_write_and_what_is_written_is_told() {
        let failed = || Some(refused("ConditionalCheckFailedException"));
        let cases: [(&str, &str, &[&str]); 2] = [
            ("beat 20", "another server leads table \"web\"", &["beat 20"]),
            ("slot 3", "slot 3 was changed by another hand", &["beat 20", "slot 2", "slot 3", "GetItem", "version 7"]),
        ];
        for (fails, text, expected) in cases {
            let server = without(move |step| if step == fails { failed() } else { None });
            let mut slots = table(&server);
            slots.singly.store(true, Ordering::Relaxed);
            let error = slots.write(&[taken(2), taken(3), taken(4)], &next()).expect_err(text);
            assert!(error.to_string().contains(text) && !error.needs_a_person(), "{error}");
            assert_eq!(steps(&server), expected);
            assert!(!SlotStore::read(&mut slots).expect("a table").changed || fails == "slot 3");
        }
    }

    #[test]
    fn rows_that_were_not_told_are_told_in_the_next_turn() {
        let server = without(|step| (step == "version 7").then(|| refused("ValidationException")));
        let mut slots = table(&server);
        slots.singly.store(true, Ordering::Relaxed);
        slots.rows = Some(Default::default());
        assert!(slots.write(&[taken(2)], &next()).is_err());
        assert!(slots.untold);
        assert!(SlotStore::read(&mut slots).expect("a table").changed, "the server raises the version");
        assert!(slots.beat(&Stamp { version: None, ..next() }).expect("beaten") && slots.untold);
        assert!(slots.beat(&Stamp { version: Some(8), ..next() }).expect("beaten") && !slots.untold);
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_found_done() {
        let done = json!({ "Item": item(&taken(2)) }).to_string();
        let server = without(move |step| match step {
            "slot 2" => Some(refused("ConditionalCheckFailedException")),
            "GetItem" => Some(CannedResponse::ok(done.clone())),
            _ => None,
        });
        let mut slots = table(&server);
        slots.singly.store(true, Ordering::Relaxed);
        slots.write(&[taken(2)], &next()).expect("written");
        assert_eq!(steps(&server), ["beat 20", "slot 2", "GetItem", "version 7"]);
    }

    fn item(slot: &Slot) -> Value {
        let update = table::update(slot.id, &table::attributes(slot), None);
        let set = update.names.iter().filter_map(|(key, name)| {
            let value = update.values.get(&format!(":w{}", key.strip_prefix("#a")?))?;
            Some((name.clone(), json!(value)))
        });
        Value::Object(set.collect())
    }
}

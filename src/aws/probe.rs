//! Asks AWS what `hsdo check` reports: whose the credentials are, what they allow, how the table is set up. Changes nothing.
//!
//! A write that is tried is conditional, and its condition contradicts itself, so that it cannot hold for any item. IAM decides
//! before DynamoDB looks at a condition (DynamoDB API Reference, "UpdateItem": a failed condition consumes a write unit and
//! writes nothing). The item that it names is 0, which is no slot, so that it never conflicts with a leader's transaction.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Aws, send};
use super::error::{AwsError, CANCELLED};
use super::query::hooks::{Hook, fetch_hooks, try_completing};
use super::reading::xml;
use super::service::Service;
use super::table::codec::{KEY, MARKER_PROJECTION};
use super::table::dynamodb::{Attribute, Item, Update, expiry, get_item, is_unknown_operation, transact, update_item};
use super::table::store::SlotTable;
use super::transport::form::Query;
use super::transport::http::{Budget, Request};
use crate::clock::Timestamp;
use crate::settings::HookName;

/// For one question, all attempts.
const TOTAL: Duration = Duration::from_secs(8);
const ATTEMPT: Duration = Duration::from_secs(4);
/// An item that is no slot.
const NO_SLOT: &str = "0";

/// Asks AWS without changing anything.
pub struct Probe {
    aws: Arc<Aws>,
}

/// The credentials in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCredentials {
    /// The access key's last four characters and their source.
    pub label: String,
    /// When they expire; `None` for static ones.
    pub expires: Option<Timestamp>,
}

/// The outcome of an action that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It is allowed.
    Allowed,
    /// The endpoint does not know the operation.
    Unknown,
}

/// A table of slots as `DescribeTable` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewedTable {
    /// `ACTIVE`, `UPDATING`, ...
    pub status: String,
    /// `None` for on-demand billing.
    pub provisioned: Option<Throughput>,
    /// Whether it is a global table with strong consistency, which has no transactions.
    pub strong: bool,
}

/// The provisioned capacity of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// Read units a second.
    pub reads: u64,
    /// Write units a second.
    pub writes: u64,
}

impl Probe {
    /// Nothing is asked yet.
    pub fn new(aws: Arc<Aws>) -> Self {
        Probe { aws }
    }

    fn budget(&self) -> Budget {
        self.aws.budget(TOTAL, ATTEMPT)
    }

    /// Fetches the region and the credentials.
    ///
    /// # Errors
    /// There is no region, or there are no credentials.
    pub fn credentials(&self) -> Result<HeldCredentials, AwsError> {
        let (label, expires) = self.aws.credentials(self.budget().deadline())?;
        Ok(HeldCredentials { label, expires })
    }

    /// Asks STS whose the credentials are: their ARN. No policy can deny this (STS API Reference, "GetCallerIdentity").
    ///
    /// # Errors
    /// STS cannot be reached, or refuses the credentials.
    pub fn caller(&self) -> Result<String, AwsError> {
        self.caller_within(TOTAL)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// Those of [`Probe::caller`].
    pub fn caller_within(&self, total: Duration) -> Result<String, AwsError> {
        let query = Query::new("GetCallerIdentity", "2011-06-15");
        let request = query.request(Service::Sts, "GetCallerIdentity", "these credentials".to_string());
        send(&self.aws, &request, &self.aws.budget(total, ATTEMPT), &parse_arn)
    }

    /// AWS's time less that of this machine, in microseconds, if any response had a usable date.
    pub fn clock_ahead(&self) -> Option<i64> {
        self.aws.clock_ahead()
    }

    /// The table's description; fails like [`SlotTable::check_schema`].
    ///
    /// # Errors
    /// It does not exist, is not one of ours, is not ready, or may not be described.
    pub fn table(&self, name: &str) -> Result<ViewedTable, AwsError> {
        let description = SlotTable::new(Arc::clone(&self.aws), name).described(&self.budget())?;
        let on_demand = description.billing.is_some_and(|billing| billing.mode.as_deref() == Some("PAY_PER_REQUEST"));
        let provisioned = description.throughput.filter(|_| !on_demand);
        Ok(ViewedTable {
            status: description.status,
            provisioned: provisioned.map(|units| Throughput { reads: units.reads, writes: units.writes }),
            strong: description.consistency.as_deref() == Some("STRONG"),
        })
    }

    /// The attribute by which the table's items expire; `None` if none do.
    ///
    /// # Errors
    /// The call failed.
    pub fn time_to_live(&self, name: &str) -> Result<Option<String>, AwsError> {
        expiry(&self.aws, name, &self.budget())
    }

    /// Reads the marker, as every turn does.
    ///
    /// # Errors
    /// The call failed; a key of another schema fails it too.
    pub fn get_item(&self, name: &str) -> Result<(), AwsError> {
        let got = get_item(&self.aws, name, &key("1"), false, Some(MARKER_PROJECTION), &self.budget());
        got.map(drop).map_err(|error| self.explain(name, error))
    }

    /// Tries an update whose condition cannot hold.
    ///
    /// # Errors
    /// The call failed, as when it is denied.
    pub fn update_item(&self, name: &str) -> Result<(), AwsError> {
        let tried = update_item(&self.aws, name, &impossible_update(), &self.budget());
        tried.map(drop).map_err(|error| self.explain(name, error))
    }

    /// Tries a transaction whose condition cannot hold.
    ///
    /// # Errors
    /// The call failed, as when it is denied.
    pub fn transact(&self, name: &str) -> Result<Tried, AwsError> {
        match transact(&self.aws, name, &[impossible_update()], &self.budget()) {
            Ok(()) => Ok(Tried::Allowed),
            Err(error) if is_unknown_operation(&error) => Ok(Tried::Unknown),
            Err(error) if is_failed_condition(&error) => Ok(Tried::Allowed),
            Err(error) => Err(self.explain(name, error)),
        }
    }

    fn explain(&self, name: &str, error: AwsError) -> AwsError {
        SlotTable::new(Arc::clone(&self.aws), name).explain_missing(error)
    }

    /// Asks EC2 whether it would list instances (`DryRun`).
    ///
    /// # Errors
    /// It would not, or the call failed.
    pub fn describe_instances(&self) -> Result<(), AwsError> {
        let mut query = Query::new("DescribeInstances", "2016-11-15");
        query.add("DryRun", "true");
        let request: Request = query.request(Service::Ec2, "DescribeInstances", "no instances".to_string());
        match send(&self.aws, &request, &self.budget(), &|_| Ok(())) {
            Err(error) if error.code() == Some("DryRunOperation") => Ok(()),
            result => result,
        }
    }
}

/// What the end of an instance needs.
impl Probe {
    /// The terminating hooks of a group.
    ///
    /// # Errors
    /// The call failed, as when it is denied.
    pub fn hooks(&self, group: &str) -> Result<Vec<Hook>, AwsError> {
        fetch_hooks(&self.aws, group, &self.budget())
    }

    /// Whether instances of this group may be let go; none is.
    ///
    /// # Errors
    /// The call failed, as when it is denied.
    pub fn completing(&self, wanted: &HookName, group: &str) -> Result<(), AwsError> {
        try_completing(&self.aws, wanted, group, &self.budget())
    }
}

fn key(number: &str) -> Item {
    Item::from([(KEY.to_string(), Attribute::N(number.to_string()))])
}

/// An update whose condition contradicts itself.
fn impossible_update() -> Update {
    let names = BTreeMap::from([("#k".to_string(), KEY.to_string()), ("#c".to_string(), "HsdoCheck".to_string())]);
    Update {
        key: key(NO_SLOT),
        update: "SET #c = :c".to_string(),
        condition: "attribute_exists(#k) AND attribute_not_exists(#k)".to_string(),
        names,
        values: Item::from([(":c".to_string(), Attribute::N("1".to_string()))]),
    }
}

fn is_failed_condition(error: &AwsError) -> bool {
    let reasons = error.refusal().filter(|refusal| refusal.code == CANCELLED).map(|refusal| refusal.reasons.as_slice());
    reasons.is_some_and(|reasons| reasons.iter().any(|(code, _)| code == "ConditionalCheckFailed"))
}

fn parse_arn(body: &mut dyn BufRead) -> Result<String, String> {
    let mut arn = None;
    xml::walk(body, &mut |path, text| {
        if path.ends_with("GetCallerIdentityResult/Arn") {
            arn = Some(text.to_string());
        }
        Ok(())
    })?;
    arn.ok_or_else(|| "it has no Arn".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_update_that_is_tried_cannot_be_written() {
        let update = impossible_update();
        assert_eq!(update.key, key("0"));
        assert!(update.condition.contains("attribute_exists(#k) AND attribute_not_exists(#k)"));
        assert_eq!(update.names["#k"], KEY);
    }

    #[test]
    fn the_arn_of_the_caller() {
        let body = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/x</Arn>\
                    </GetCallerIdentityResult></GetCallerIdentityResponse>";
        assert_eq!(parse_arn(&mut body.as_bytes()).as_deref(), Ok("arn:aws:iam::1:user/x"));
        assert!(parse_arn(&mut "<html/>".as_bytes()).is_err());
    }
}

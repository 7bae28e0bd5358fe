//! Which key a table must have, whether it can be used, and how it is created.

use std::sync::Arc;
use std::time::Duration;

use super::dynamodb::{TableDescription, create_table, describe_table};
use crate::aws::calls::Aws;
use crate::aws::error::AwsError;
use crate::aws::service::Service;
use crate::aws::transport::http::Budget;
use crate::text::one_line;

/// For one attempt at a call of the table.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// For a new table to become active; AWS takes about 10 s.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
const CREATE_POLL: Duration = Duration::from_millis(500);

/// The result of creating a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The table was created.
    Created,
    /// The table existed.
    Existed,
}

/// What a table is for.
#[derive(Debug)]
pub(crate) struct Schema {
    /// The name of its only key.
    pub(crate) key: &'static str,
    /// The key's type: `N` or `S`.
    pub(crate) kind: &'static str,
    /// What its items are, for messages.
    pub(crate) contents: &'static str,
    /// The setting that names it.
    pub(crate) setting: &'static str,
}

/// A table that is to have a schema.
pub(crate) struct NamedTable {
    pub(crate) aws: Arc<Aws>,
    pub(crate) name: String,
    pub(crate) schema: &'static Schema,
}

impl NamedTable {
    /// Describes the table, and checks that it exists, has the key and can be used. Errors: [`AwsError::Table`] if it is missing, has
    /// another key or needs an operator, [`AwsError::NotReady`] while it is being created or deleted, and those of the call.
    pub(crate) fn described(&self, budget: &Budget) -> Result<TableDescription, AwsError> {
        let description = self.describe(budget)?;
        self.check_key(&description)?;
        self.check_status(&description)?;
        Ok(description)
    }

    /// Creates the table with on-demand billing unless it exists, and waits up to 2 minutes until it is active.
    /// Never changes an existing table; one with another key is an error.
    pub(crate) fn create(&self) -> Result<Created, AwsError> {
        let budget = self.aws.budget(CREATE_TIMEOUT, ATTEMPT_TIMEOUT);
        let Schema { key, kind, .. } = self.schema;
        let created = match self.describe(&budget) {
            Ok(_) => Created::Existed,
            Err(AwsError::Table(_)) => match create_table(&self.aws, &self.name, key, kind, &budget) {
                Ok(()) => Created::Created,
                // Created concurrently.
                Err(error) if error.code() == Some("ResourceInUseException") => Created::Existed,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        loop {
            match self.described(&budget) {
                Ok(_) => return Ok(created),
                Err(AwsError::NotReady(_)) => {}
                // DescribeTable is eventually consistent: a new table may not be seen at once.
                Err(AwsError::Table(_)) if created == Created::Created && !budget.is_spent() => {}
                Err(error) => return Err(error),
            }
            if budget.is_spent() {
                let seconds = CREATE_TIMEOUT.as_secs();
                return Err(AwsError::NotReady(format!("table {:?} is not active after {seconds} s", self.name)));
            }
            std::thread::sleep(CREATE_POLL);
        }
    }

    pub(crate) fn describe(&self, budget: &Budget) -> Result<TableDescription, AwsError> {
        describe_table(&self.aws, &self.name, budget).map_err(|error| self.explain_missing(error))
    }

    pub(crate) fn check_key(&self, description: &TableDescription) -> Result<(), AwsError> {
        let Schema { key, kind, contents, setting } = self.schema;
        let key_fits = matches!(description.keys.as_slice(), [one] if one.name == *key && one.kind == "HASH");
        let kind_fits =
            description.attributes.iter().any(|attribute| attribute.name == *key && attribute.kind == *kind);
        if key_fits && kind_fits {
            return Ok(());
        }
        let kind = if *kind == "N" { "number" } else { "string" };
        Err(AwsError::Table(format!(
            "table {:?} in {} is not a table of {contents}: its key must be {key} ({kind}) alone; name another in {setting}",
            self.name,
            self.aws.region(Service::DynamoDb)
        )))
    }

    pub(crate) fn check_status(&self, description: &TableDescription) -> Result<(), AwsError> {
        let (name, setting) = (&self.name, self.schema.setting);
        match description.status.as_str() {
            // Without permission to replicate, a table still serves its own region.
            "ACTIVE" | "UPDATING" | "REPLICATION_NOT_AUTHORIZED" => Ok(()),
            "INACCESSIBLE_ENCRYPTION_CREDENTIALS" => Err(AwsError::Table(format!(
                "table {name:?} cannot be used: DynamoDB has no access to the KMS key that it is encrypted with; enable the \
                 key, and allow DynamoDB to use it in the key policy"
            ))),
            "ARCHIVING" | "ARCHIVED" => Err(AwsError::Table(format!(
                "table {name:?} is archived, since its KMS key was inaccessible for a week: restore it from DynamoDB's backup, \
                 or name another in {setting}"
            ))),
            status => {
                Err(AwsError::NotReady(format!("table {name:?} is not ready: its status is {}", one_line(status, 40))))
            }
        }
    }

    /// Adds the remedy to the error of a missing table.
    pub(crate) fn explain_missing(&self, error: AwsError) -> AwsError {
        if error.code() != Some("ResourceNotFoundException") {
            return error;
        }
        // A table named by its ARN belongs to somebody else.
        let create = if self.name.starts_with("arn:") { "" } else { "create it with hsdo --create-table, or " };
        AwsError::Table(format!(
            "table {:?} does not exist in {}: {create}correct {}",
            self.name,
            self.aws.region(Service::DynamoDb),
            self.schema.setting
        ))
    }
}

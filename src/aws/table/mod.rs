//! The table of slots in DynamoDB: the API calls, the item codec, and the store that both roles use.
//!
//! May import `reading`, `error`, `transport` and `calls`.

pub(super) mod codec;
pub(super) mod dynamodb;
pub(super) mod number;
mod order_changes;
pub(super) mod orders;
pub(super) mod report_item;
pub(super) mod report_schedule;
pub(super) mod reports;
pub(super) mod schema;
mod sequential;
pub(super) mod state_file;
pub(super) mod store;

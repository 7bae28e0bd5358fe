//! The table of slots in DynamoDB: its calls, how a slot is spelled as an item, and the store that both roles use.
//!
//! It may import `reading`, `error`, `transport` and `calls`.

pub(super) mod dynamodb;
pub(super) mod number;
pub(super) mod rows;
mod single;
pub(super) mod state_file;
pub(super) mod store;

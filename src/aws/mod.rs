//! AWS: region, endpoints, credentials and the connections that all calls share, and the two edges built on them:
//! [`GroupSource`] for instances, [`SlotTable`] for slots.
//!
//! Nothing outside this folder knows that AWS speaks HTTP, and nothing in it knows a role or HAProxy. Its rooms, each of which
//! may import those before it, but `query` and `table` not each other (`service` and `random` stand below all of them):
//!
//! * `reading`: XML, dates, pages, and a memory of the last answer;
//! * `error`: why AWS did not do what was asked, and the remedy;
//! * `transport`: one call;
//! * `config`: what the environment and the shared files say about calls;
//! * `credentials`: where they come from, a file a provider;
//! * `calls`: what all calls share;
//! * `query`: instances out of AutoScaling groups;
//! * `table`: slots in DynamoDB.

mod calls;
mod config;
mod credentials;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod query;
mod random;
mod reading;
mod service;
mod table;
#[cfg(test)]
mod testing;
mod transport;

pub use self::calls::{Aws, Regions};
pub use self::error::Error;
pub use self::query::autoscaling::{Group, Member};
pub use self::query::ec2::{Described, Question, Record};
pub use self::query::readiness::{observe, question};
pub use self::query::source::GroupSource;
pub use self::service::Service;
pub use self::table::store::{Created, SlotTable, read_page};
pub use self::transport::http::Observer;

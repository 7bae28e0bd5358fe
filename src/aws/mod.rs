//! AWS: calls, credentials and configuration, and the two edges built on them: [`GroupSource`] for instances, [`SlotTable`]
//! for slots.
//!
//! Nothing outside this folder knows that AWS speaks HTTP, and nothing in it knows a role or HAProxy. Its rooms, each of which
//! may import those before it, except that `query` and `table` do not import each other (all may use `service` and `random`):
//!
//! * `reading`: XML, dates, page tokens, and a cache of parsed parts;
//! * `error`: why a call failed, and the remedy;
//! * `transport`: one call;
//! * `config`: settings from the environment and the shared files;
//! * `credentials`: one file per provider;
//! * `calls`: what all calls share;
//! * `query`: instances of AutoScaling groups;
//! * `table`: slots in DynamoDB;
//! * `probe`: what `hsdo check` asks, which changes nothing;
//! * `zone`: where this machine is.

mod calls;
mod config;
mod credentials;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod probe;
mod query;
mod random;
mod reading;
mod service;
mod table;
#[cfg(test)]
mod testing;
mod transport;
mod zone;

pub use self::calls::{Aws, Regions};
pub use self::error::AwsError;
pub use self::probe::{HeldCredentials, Probe, Throughput, Tried, ViewedTable};
pub use self::query::autoscaling::{Group, Member};
pub use self::query::description::{Description, Records, describe};
pub use self::query::ec2::{DescribedInstances, InstanceQuery, Record, SpotMarks};
pub use self::query::hooks::{Hook, LifecycleHooks};
pub use self::query::readiness::{instance_query, observe};
pub use self::query::source::{GroupSource, unseen_reason};
pub use self::query::spot::spot_word;
pub use self::service::Service;
pub use self::table::report_schedule::ReportSchedule;
pub use self::table::reports::{ReportTable, ReportWriter};
pub use self::table::schema::Created;
pub use self::table::state_file::{KeptTable, remembered_zone};
pub use self::table::store::{SlotTable, read_page};
pub use self::transport::http::Observer;
pub use self::zone::Whereabouts;

//! Instances of AutoScaling groups: joins Auto Scaling and EC2 into one observation.
//!
//! May import `reading`, `error`, `transport` and `calls`.

pub(super) mod autoscaling;
pub(super) mod description;
pub(super) mod ec2;
pub(super) mod hooks;
pub(super) mod pieces;
pub(super) mod readiness;
pub(super) mod search;
pub(super) mod source;
pub(super) mod spot;
mod tags;

//! Instances out of AutoScaling groups: what Auto Scaling and EC2 answer, joined into one observation.
//!
//! It may import `reading`, `error`, `transport` and `calls`.

pub(super) mod autoscaling;
pub(super) mod ec2;
pub(super) mod pieces;
pub(super) mod readiness;
pub(super) mod source;

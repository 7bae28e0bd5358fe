//! Instances out of AutoScaling groups: what Auto Scaling and EC2 answer, joined into one observation.
//!
//! It may import all of [`crate::aws`] but `table` and the inside of `credentials`.

pub(super) mod autoscaling;
pub(super) mod ec2;
pub(super) mod pieces;
pub(super) mod readiness;
pub(super) mod source;

//! What an occupant's weights are multiplied by.

use crate::weight::{Factor, Size};

/// The factor of an occupant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// Its size.
    pub size: Size,
    /// What its size and its group give.
    pub factor: Factor,
}

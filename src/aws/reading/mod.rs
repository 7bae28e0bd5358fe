//! Reading answers, whichever service gave them: XML as it arrives, dates, pages, and a memory of what came before.
//!
//! It may import nothing else of [`crate::aws`], and does no I/O of its own.

pub(super) mod dates;
pub(super) mod memory;
pub(super) mod pages;
pub(super) mod xml;

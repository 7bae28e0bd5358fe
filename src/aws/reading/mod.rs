//! Reading answers, whichever service gave them: XML as it arrives, dates, pages, and a memory of what came before.
//!
//! It may import nothing of the other rooms, and does no I/O of its own.

pub(super) mod dates;
pub(super) mod memory;
pub(super) mod pages;
pub(super) mod xml;

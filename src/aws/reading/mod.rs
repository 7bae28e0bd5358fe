//! Helpers to parse responses of any service: streaming XML, dates, page tokens, and a cache of parsed parts.
//!
//! Imports no other part of `aws`, and does no I/O of its own.

pub(super) mod dates;
pub(super) mod pages;
pub(super) mod parse_cache;
pub(super) mod xml;

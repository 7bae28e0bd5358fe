//! A line of the answer.

use crate::cause::Cause;

/// One line: a fact and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) source: String,
    pub(super) text: String,
    /// Whether the source could tell.
    pub(super) known: bool,
    /// HAProxy's backend and server that it is about.
    pub(super) server: Option<(String, String)>,
    /// The cause in that backend.
    pub(super) cause: Option<Cause>,
}

impl Fact {
    pub(super) fn new(source: impl Into<String>, text: impl Into<String>) -> Self {
        Fact { source: source.into(), text: text.into(), known: true, server: None, cause: None }
    }

    pub(super) fn unknown(source: impl Into<String>, text: impl Into<String>) -> Self {
        Fact { known: false, ..Fact::new(source, text) }
    }
}

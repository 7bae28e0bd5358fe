//! What became of an order, as text and as a document.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::outlook::{Outlook, Row};
use super::request::OrderRequest;
use crate::clock::Timestamp;
use crate::commands::Options;
use crate::commands::print::{self, Cell, Tone};
use crate::environment::Environment;
use crate::error::exit;
use crate::text::span;

/// What became of an order.
pub(super) struct OrderReport {
    pub(super) place: String,
    pub(super) outlook: Outlook,
    /// In words.
    pub(super) meaning: String,
    /// When it lapses, if that is a question.
    pub(super) until: Option<Option<Timestamp>>,
    pub(super) note: Option<String>,
    pub(super) by: Option<String>,
    pub(super) carried_out: Option<(String, bool)>,
    /// Why it was not done.
    pub(super) refused: Option<String>,
}

impl OrderReport {
    pub(super) fn print(
        self,
        options: &Options,
        request: &OrderRequest,
        done: &str,
        now: Timestamp,
        env: &Environment,
    ) -> ExitCode {
        let text = if options.json {
            print::json(&self.json(request, done))
        } else {
            self.text(request, done, now, print::has_colours(env))
        };
        crate::command_line::print(&text);
        ExitCode::from(if self.refused.is_some() { exit::FAILED } else { exit::DONE })
    }

    fn text(&self, request: &OrderRequest, done: &str, now: Timestamp, colours: bool) -> String {
        let rows: Vec<Vec<Cell>> = self.outlook.rows.iter().map(Row::cells).collect();
        let mut text = print::table(&["TARGET", "SERVERS", "SERVING", "HELD BY"], &rows, colours);
        let mut lines: Vec<Vec<Cell>> = vec![vec!["meaning".into(), self.meaning.as_str().into()]];
        if let Some(until) = self.until {
            let text = until.map_or_else(
                || "until it is lifted: hsdo enable".to_owned(),
                |until| {
                    let left = until.since(now).unwrap_or_default();
                    format!("until {} (for {})", until.to_the_second(), span(left))
                },
            );
            lines.push(vec!["lapses".into(), text.into()]);
        }
        let outcome = match (&self.refused, request.dry_run) {
            (Some(why), _) => Cell::new(format!("not {done}: {why}"), Tone::Bad),
            (None, true) => Cell::new(format!("not {done} (--dry-run)"), Tone::Plain),
            (None, false) => match &self.by {
                Some(by) => Cell::new(format!("{done}, in {}, by {by}", self.place), Tone::Good),
                None => Cell::new(format!("{done}, in {}", self.place), Tone::Good),
            },
        };
        lines.push(vec!["order".into(), outcome]);
        if let Some((leader, somebody)) = &self.carried_out {
            let tone = if *somebody { Tone::Plain } else { Tone::Warn };
            lines.push(vec!["next".into(), Cell::new(leader.as_str(), tone)]);
        }
        text.push('\n');
        text.push_str(&print::table(&[], &lines, colours));
        text
    }

    fn json(&self, request: &OrderRequest, done: &str) -> Value {
        let mut document = json!({
            "done": self.refused.is_none() && !request.dry_run,
            "what": done,
            "targets": self.outlook.rows.iter().map(Row::json).collect::<Vec<Value>>(),
            "serving": self.outlook.serving,
            "taken": self.outlook.taken,
            "meaning": self.meaning,
            "reason": self.refused,
            "next": self.carried_out.as_ref().map(|(text, _)| text),
        });
        if let Some(until) = self.until {
            document["until"] = json!(until.map(Timestamp::rfc3339));
            document["by"] = json!(self.by);
            document["note"] = json!(self.note);
        }
        document
    }
}

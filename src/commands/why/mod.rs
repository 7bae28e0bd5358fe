//! `hsdo why TARGET`: why a server has the traffic that it has, or none.
//!
//! `gather` asks every source, `explain` joins what they said into facts and a conclusion, and here it is printed. The words of the
//! conclusion are those of [`crate::cause`], found by the roles' own decisions.

mod drain;
mod explain;
mod fact;
mod gather;
mod source;

use std::process::ExitCode;

use serde_json::{Value, json};

use super::print::{self, Cell, Tone};
use super::{Options, failed, start};
use crate::aws::Aws;
use crate::cause::Cause;
use crate::environment::Environment;
use crate::error::{Error, exit};
use crate::order::Target;
use crate::settings::{self, ServerSettings};
use crate::slot::Table;
use explain::{Answer, explain};
use fact::Fact;

/// The help, without the flags.
pub const HELP: &str = "\
usage: hsdo why TARGET [--json] [--config PATH] [--debug]

Says why a server has the traffic that it has, or none. Each line is a fact with its source: its row, the lease, its
group, EC2 or Consul, and, where a client is configured, what HAProxy runs in each backend. The last line is the
conclusion, with its cause in one word. What one source cannot tell is said on its line.

TARGET: slot:3, an instance id (in Consul mode its name) or an address

exit codes: 0 it could tell; 1 nobody knows the target, or what must be read cannot be; 2 usage or configuration
";

pub(super) fn run(options: &Options, target: &Target, env: &Environment) -> Result<ExitCode, Error> {
    let mut settings = settings::load_present(options.config.as_deref(), env)?;
    let zone = settings.client.as_mut().and_then(|client| super::find_zone(client, env));
    let aws = start(options, &settings.common, false, env)?;
    let found = gather::gather(&aws, &settings, target, env).map_err(failed)?;
    let mut answer = explain(target, &settings, &found);
    if let Some(Err(error)) = zone {
        let text = format!("{error}; so every zone counts as its own here");
        answer.facts.push(Fact::unknown("CLIENT_ZONE_NAMES", text));
    }
    let text = if options.json {
        print::json(&document(target, &answer))
    } else {
        print::table(&["SOURCE", "FACT"], &lines(&answer), print::has_colours(env))
    };
    crate::command_line::print(&text);
    Ok(ExitCode::from(if answer.cause.is_some() { exit::DONE } else { exit::FAILED }))
}

/// Why an instance without a row is nobody, in a few words; `None` if its group or EC2 knows it.
pub(super) fn unknown_instance(
    aws: &Aws,
    server: Option<&ServerSettings>,
    table: &Table,
    name: &str,
    env: &Environment,
) -> Option<String> {
    let target = Target::Instance(name.to_owned());
    let told = gather::ask_source(aws, server, table, &target, env);
    if let Some(state) = source::ended(&told, name) {
        return Some(format!("EC2 has it as {state}"));
    }
    let said = source::said(&told, name, None);
    if said.is_known {
        return None;
    }
    let facts: Vec<String> = said.facts.iter().map(|fact| format!("{}: {}", fact.source, fact.text)).collect();
    Some(if facts.is_empty() { "nobody knows it".to_owned() } else { facts.join("; ") })
}

fn lines(answer: &Answer) -> Vec<Vec<Cell>> {
    let fact = |fact: &Fact| {
        let tone = if fact.known { Tone::Plain } else { Tone::Warn };
        vec![fact.source.as_str().into(), Cell::new(fact.text.as_str(), tone)]
    };
    let tone = match &answer.cause {
        None => Tone::Bad,
        Some(cause) if cause.is_trouble() => Tone::Warn,
        Some(_) => Tone::Good,
    };
    let word = answer.cause.as_ref().map_or("unknown", Cause::word);
    let conclusion = vec!["conclusion".into(), Cell::new(format!("{word}: {}", answer.conclusion), tone)];
    answer.facts.iter().map(fact).chain([conclusion]).collect()
}

fn document(target: &Target, answer: &Answer) -> Value {
    let fact = |fact: &Fact| {
        json!({
            "source": fact.source,
            "fact": fact.text,
            "known": fact.known,
            "backend": fact.server.as_ref().map(|(backend, _)| backend),
            "server": fact.server.as_ref().map(|(_, server)| server),
            "cause": fact.cause.as_ref().map(Cause::word),
        })
    };
    json!({
        "target": target.to_string(),
        "slot": answer.slot,
        "instance": answer.instance,
        "address": answer.address.map(|address| address.to_string()),
        "group": answer.group,
        "facts": answer.facts.iter().map(fact).collect::<Vec<Value>>(),
        "cause": answer.cause.as_ref().map(Cause::word),
        "reason": answer.conclusion,
    })
}

//! The page at `/`: the report for people. One text, without scripts, and nothing in it asks for anything else.
//!
//! What is wrong stands on top in words; then the numbers, then a row a slot. A sign and a word go with every colour.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use sha2::{Digest, Sha256};

use super::report::{BackendSlotFacts, Report, SlotFacts};
use crate::slot::SlotId;
use crate::text::{is_unsafe, list, one_line, span};

const STYLE: &str = include_str!("page.css");
/// Characters of a name that a row shows, and of a text above the rows.
const NAME: usize = 60;
const TEXT: usize = 600;
/// Names and slots listed for one kind of trouble.
const LISTED: usize = 12;
/// Seconds between two loads, at least.
const REFRESH: f64 = 5.0;

/// The page's policy: nothing may be loaded, run or framed, and this one style is used.
pub fn content_security_policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    })
}

/// Text in HTML: on one line, cut, and without meaning to a browser.
struct Text<'a>(&'a str, usize);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, character) in self.0.chars().enumerate() {
            if count == self.1 {
                return f.write_str("...");
            }
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ if is_unsafe(character) => write!(f, "{}", character.escape_default())?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// The page.
pub fn render(report: &Report) -> String {
    let mut page = String::with_capacity(8 * 1024 + report.slots.len() * 320);
    // Writing to a `String` cannot fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &Report) -> fmt::Result {
    let troubles = troubles(report);
    let sign = if troubles.is_empty() { "✓" } else { "⚠" };
    let (role, host) = (report.role, Text(&report.host, NAME));
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content={}><title>{sign} hsdo {role} {host}</title><style>{STYLE}</style></head>\n\
         <body><h1>hsdo {role} on {host}, table {}</h1>\n",
        report.interval_seconds.max(REFRESH).ceil(),
        Text(&report.table.name, 2 * NAME),
    )?;
    write_verdict(page, &troubles)?;
    write_tiles(page, report)?;
    write_facts(page, report)?;
    write_slots(page, report)?;
    write_balancers(page, report)?;
    writeln!(
        page,
        "<footer>hsdo {}, up {}. The same for programs: <a href=\"/status\">/status</a>, <a href=\"/metrics\">/metrics</a>.\
         </footer></body></html>",
        report.version,
        spoken(report.uptime_seconds)
    )
}

/// What is wrong, in words, the widest first.
fn troubles(report: &Report) -> Vec<String> {
    let mut troubles = Vec::new();
    troubles.extend(report.last_turn.errors.iter().cloned());
    // The reason of `/readyz` has the lasting conditions, and what a probe would see.
    match report.ready_reason.split_once(", but ") {
        Some((_, conditions)) => troubles.push(conditions.to_owned()),
        None if !report.ready => troubles.push(report.ready_reason.clone()),
        None => {}
    }
    if report.haproxy.as_ref().is_some_and(|haproxy| haproxy.up == Some(false)) {
        troubles.push("HAProxy does not answer: what follows is what it ran last".to_owned());
    }
    troubles.extend(report.orders.iter().map(|order| match order.slots.as_slice() {
        [] => format!("an {}; no server is there now", order.text),
        slots => format!("an {}; in slots {}", order.text, list(slots.iter().map(ToString::to_string), LISTED)),
    }));
    troubles.extend(report.unreadable_orders.iter().map(|why| format!("an order that cannot be read: {why}")));
    let mut slots: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut add = |cause, reason, name| slots.entry((cause, reason)).or_default().push(name);
    match &report.haproxy {
        Some(haproxy) => {
            for backend in &haproxy.backends {
                for slot in backend.slots.iter().filter(|slot| slot.is_trouble) {
                    add(slot.cause, &slot.reason, format!("{}/{}", backend.name, slot.server));
                }
            }
        }
        None => {
            let sayable = report.slots.iter().filter(|slot| slot.is_trouble);
            for (slot, cause, reason) in sayable.filter_map(|slot| Some((slot, slot.cause?, slot.reason.as_deref()?))) {
                add(cause, reason, format!("slot {}", slot.number));
            }
        }
    }
    for one in &report.left_out {
        add(one.cause, &one.reason, one.instance.clone());
    }
    troubles.extend(slots.into_iter().map(|((cause, reason), names)| {
        let count = names.len();
        let shown: Vec<String> = names.iter().take(LISTED).map(|name| one_line(name, NAME)).collect();
        let more = if count > LISTED { format!(" and {} more", count - LISTED) } else { String::new() };
        format!("{count} {cause}: {}{more}: {reason}", shown.join(", "))
    }));
    troubles
}

fn write_verdict(page: &mut String, troubles: &[String]) -> fmt::Result {
    match troubles {
        [] => page.write_str("<div class=\"verdict ok\" id=verdict><b>✓ All is well</b></div>\n"),
        troubles => {
            let things = if troubles.len() == 1 { "thing needs" } else { "things need" };
            write!(page, "<div class=\"verdict bad\" id=verdict><b>⚠ {} {things} attention</b><ul>", troubles.len())?;
            for trouble in troubles.iter().take(2 * LISTED) {
                write!(page, "<li>{}", Text(trouble, TEXT))?;
            }
            if troubles.len() > 2 * LISTED {
                write!(page, "<li>and {} more, in the rows below", troubles.len() - 2 * LISTED)?;
            }
            page.write_str("</ul></div>\n")
        }
    }
}

fn write_tiles(page: &mut String, report: &Report) -> fmt::Result {
    let summary = &report.summary;
    page.write_str("<ul class=tiles>")?;
    for (count, word, class) in [
        (summary.serving, "serving", ""),
        (summary.ramping, "ramping", ""),
        (summary.draining, "draining", ""),
        (summary.waiting, "waiting", ""),
        (summary.held, "held", "warn"),
        (summary.trouble, "in trouble", "bad"),
        (report.left_out.len(), "without a slot", "bad"),
        (summary.free, "free", ""),
    ] {
        let class = if count > 0 && !class.is_empty() { format!(" class={class}") } else { String::new() };
        write!(page, "<li{class}><b>{count}</b>{word}</li>")?;
    }
    page.write_str("</ul>\n")
}

fn write_facts(page: &mut String, report: &Report) -> fmt::Result {
    let ago = |seconds: Option<f64>| seconds.map_or("never".to_owned(), |seconds| format!("{} ago", spoken(seconds)));
    let lease = &report.lease;
    page.write_str("<ul class=facts>")?;
    let mut fact = |name: &str, value: &str| write!(page, "<li>{name} <b>{}</b></li>", Text(value, 2 * NAME));
    let leader = match (lease.leads, lease.leader.as_deref()) {
        (Some(true), _) => "this server".to_owned(),
        (_, Some(leader)) => leader.to_owned(),
        (_, None) => "none seen".to_owned(),
    };
    let blind = if lease.blind == Some(true) { ", which cannot see its instances" } else { "" };
    fact("leader", &format!("{leader}{blind}"))?;
    fact("heartbeat", &ago(lease.heartbeat_age_seconds))?;
    fact("table read", &ago(report.table.age_seconds))?;
    if let (Some(result), Some(seconds), Some(ended)) =
        (report.last_turn.result, report.last_turn.duration_seconds, &report.last_turn.ended)
    {
        fact("last turn", &format!("{result}, {:.1} ms, {ended}", seconds * 1_000.0))?;
    }
    if let Some(haproxy) = &report.haproxy {
        let version = haproxy.version.as_deref().unwrap_or("not seen yet");
        let pid = haproxy.pid.as_deref().map_or(String::new(), |pid| format!(", pid {pid}"));
        fact("HAProxy", &format!("{version}{pid}"))?;
        fact("socket", haproxy.socket.as_deref().unwrap_or(""))?;
    }
    page.write_str("</ul>\n")
}

/// A sign and a class for a cause's word. The word stands beside it.
fn sign(cause: &str) -> (&'static str, &'static str) {
    match cause {
        "serving" => ("●", "ok"),
        "ramping" => ("▲", "go"),
        "draining" | "covering" => ("▼", "go"),
        "spilled" => ("◆", "go"),
        "waiting" | "behind" => ("◌", "go"),
        "free" | "unused" | "elsewhere" => ("·", "mute"),
        "held" | "disabled" | "kept" | "last-resort" | "kept-empty" | "kept-out" => ("■", "warn"),
        _ => ("✖", "bad"),
    }
}

fn write_slots(page: &mut String, report: &Report) -> fmt::Result {
    let backends = report.haproxy.as_ref().map_or(&[][..], |haproxy| &haproxy.backends);
    let has_zones = report.slots.iter().any(|slot| slot.zone.is_some());
    let zone = if has_zones { "<th>zone" } else { "" };
    write!(page, "<table><thead><tr><th class=n>slot<th>instance<th>address<th>group{zone}<th>weight")?;
    if report.haproxy.is_none() {
        page.write_str("<th>state")?;
    }
    for backend in backends {
        write!(page, "<th>{}{}", Text(&backend.name, NAME), if backend.fallback { " (fallback)" } else { "" })?;
    }
    page.write_str("<th>why</thead><tbody>\n")?;
    let by_slot: Vec<BTreeMap<SlotId, &BackendSlotFacts>> =
        backends.iter().map(|backend| backend.slots.iter().map(|slot| (slot.number, slot)).collect()).collect();
    let highest = report.slots.iter().filter_map(|slot| slot.full_weight.or(slot.weight)).max().unwrap_or(1).max(1);
    let mut rest = report.slots.as_slice();
    while let Some(slot) = rest.first() {
        let run = idle_run(rest, &by_slot);
        if run > 1 {
            let columns = 4 + backends.len() + usize::from(report.haproxy.is_none()) + usize::from(has_zones);
            let (first, last) = (slot.number, rest[run - 1].number);
            write!(
                page,
                "<tr><td class=n>{first}–{last}<td class=mute colspan={columns}>· {}<td class=mute>{run} slots",
                slot.cause.unwrap_or("free")
            )?;
            rest = &rest[run..];
            continue;
        }
        write_slot(page, slot, has_zones, highest)?;
        if report.haproxy.is_none() {
            let (sign, class) = sign(slot.cause.unwrap_or_default());
            write!(page, "<td class={class}>{sign} {}", slot.cause.unwrap_or("unknown"))?;
            write!(page, "<td>{}", Text(story(slot.cause, slot.reason.as_deref()), TEXT))?;
        } else {
            write_backends(page, slot.number, backends, &by_slot)?;
        }
        page.push('\n');
        rest = &rest[1..];
    }
    page.write_str("</tbody></table>\n")
}

fn text(value: &Option<String>) -> Text<'_> {
    Text(value.as_deref().unwrap_or_default(), NAME)
}

/// How many slots from here on are free, which one row shows.
fn idle_run(slots: &[SlotFacts], by_slot: &[BTreeMap<SlotId, &BackendSlotFacts>]) -> usize {
    let idle = |slot: &&SlotFacts| {
        let out = |backend: &BTreeMap<SlotId, &BackendSlotFacts>| {
            backend.get(&slot.number).is_none_or(|slot| slot.serves != Some(true))
        };
        matches!(slot.cause, Some("free" | "unused")) && by_slot.iter().all(out)
    };
    let first = slots.first().and_then(|slot| slot.cause);
    slots.iter().take_while(|slot| idle(slot) && slot.cause == first).count()
}

fn write_slot(page: &mut String, slot: &SlotFacts, has_zones: bool, highest: u16) -> fmt::Result {
    let (instance, address, group) = (text(&slot.instance), text(&slot.address), text(&slot.group));
    write!(page, "<tr><td class=n>{}<td class=i>{instance}<td>{address}", slot.number)?;
    if let Some(port) = slot.port {
        write!(page, " port {port}")?;
    }
    write!(page, "<td class=i>{group}")?;
    if has_zones {
        write!(page, "<td>{}", text(&slot.zone))?;
    }
    page.write_str("<td class=w>")?;
    let Some(weight) = slot.weight else { return Ok(()) };
    let full = slot.full_weight.unwrap_or(highest).max(1);
    write!(page, "<progress value={weight} max={full}></progress>{weight}")?;
    if let Some(full) = slot.full_weight.filter(|full| *full != weight) {
        write!(page, " of {full}")?;
    }
    if let (Some(factor), Some(from)) = (slot.factor, &slot.factor_from) {
        write!(page, " <span class=mute>×{factor}: {}</span>", Text(from, TEXT))?;
    }
    Ok(())
}

/// A cell for each backend, and their stories.
fn write_backends(
    page: &mut String,
    number: SlotId,
    backends: &[super::report::BackendFacts],
    by_slot: &[BTreeMap<SlotId, &BackendSlotFacts>],
) -> fmt::Result {
    let mut stories: Vec<(&str, Vec<&str>)> = Vec::new();
    for (backend, slots) in backends.iter().zip(by_slot) {
        let Some(slot) = slots.get(&number) else {
            page.write_str("<td>")?;
            continue;
        };
        let (sign, class) = sign(slot.cause);
        write!(page, "<td class=\"w {class}\" data-b=\"{}\">{sign} {}", Text(&backend.name, NAME), slot.cause)?;
        if let Some(weight) =
            slot.weight.filter(|_| !matches!(slot.cause, "free" | "unused" | "elsewhere" | "disabled"))
        {
            write!(page, " {weight}")?;
        }
        // Beside another backend, the word says it.
        let told = if slot.cause == "elsewhere" && backends.len() > 1 { "" } else { &slot.reason };
        let story = story(Some(slot.cause), Some(told));
        match stories.iter_mut().find(|(text, _)| *text == story) {
            _ if story.is_empty() => {}
            Some((_, names)) => names.push(&backend.name),
            None => stories.push((story, vec![&backend.name])),
        }
    }
    page.write_str("<td>")?;
    for (index, (story, names)) in stories.iter().enumerate() {
        let names = if names.len() < backends.len() { format!("{}: ", names.join(", ")) } else { String::new() };
        write!(page, "{}{}{}", if index > 0 { "; " } else { "" }, Text(&names, TEXT), Text(story, TEXT))?;
    }
    Ok(())
}

fn write_balancers(page: &mut String, report: &Report) -> fmt::Result {
    let Some(balancers) = report.balancers.as_ref().filter(|all| !all.is_empty()) else { return Ok(()) };
    page.write_str(
        "<table><thead><tr><th>load balancer<th>state<th>HAProxy<th class=n>spill<th>held<th>sessions on what drains\
         <th>last seen, by its own clock</thead><tbody>\n",
    )?;
    for one in balancers {
        let (sign, class) = match one.state {
            "current" => ("●", "ok"),
            "behind" => ("◌", "warn"),
            _ => ("·", "mute"),
        };
        let held = list(one.held.iter().cloned(), LISTED);
        let sessions = list(one.sessions.iter().map(|(slot, count)| format!("slot {slot}: {count}")), LISTED);
        writeln!(
            page,
            "<tr><td class=i>{}<td class={class}>{sign} {}<td>{}<td class=n>{}<td>{}<td>{}<td>{}",
            Text(&one.name, 2 * NAME),
            one.state,
            Text(&one.haproxy, NAME),
            one.spill_share,
            Text(&held, TEXT),
            Text(&sessions, TEXT),
            Text(&one.seen, NAME),
        )?;
    }
    page.write_str("</tbody></table>\n")
}

/// The sentence, where it says more than the word.
fn story<'a>(cause: Option<&str>, reason: Option<&'a str>) -> &'a str {
    match cause {
        Some("serving" | "unused") => "",
        Some("free") => reason.and_then(|reason| reason.strip_prefix("free, ")).unwrap_or_default(),
        _ => reason.unwrap_or_default(),
    }
}

fn spoken(seconds: f64) -> String {
    span(Duration::from_secs_f64(seconds))
}

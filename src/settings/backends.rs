//! The client's backends: the list in all its spellings, the older pair of keys, and the fallback backend.

use super::keys::{
    CLIENT_HAPROXY_BACKEND_BASE_NAME, CLIENT_HAPROXY_BACKEND_LIST, CLIENT_HAPROXY_BACKEND_NAME,
    CLIENT_HAPROXY_BACKEND_SERVER_PORT, CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME,
    CLIENT_HAPROXY_FALLBACK_BACKEND_NAME, Setting,
};
use super::parse::{haproxy_name, integer, scalar};
use super::quote::quoted;
use super::sources::{Origin, Sources};
use super::values::Backend;
use crate::conf_file::{self, Node};

/// Keys of an entry in `CLIENT_HAPROXY_BACKEND_LIST`.
const BASE_NAME: &str = "baseName";
const SERVER_PORT: &str = "serverPort";

/// `None`, spelt 0, leaves each server's own port alone.
pub(super) fn server_port(number: u16) -> Option<u16> {
    Some(number).filter(|number| *number > 0)
}

/// Reads the default backends. `port` is for entries without one; `None` if that setting is faulty.
pub(super) fn read(sources: &mut Sources<'_>, port: Option<u16>) -> Vec<Backend> {
    let list = sources.given(&CLIENT_HAPROXY_BACKEND_LIST);
    let older = [CLIENT_HAPROXY_BACKEND_NAME, CLIENT_HAPROXY_BACKEND_BASE_NAME];
    let Some(list) = list else {
        if older.iter().all(|key| sources.given(key).is_none()) {
            sources.missing(&CLIENT_HAPROXY_BACKEND_LIST, "");
        }
        return pair(sources, &older[0], &older[1], port).into_iter().collect();
    };
    for key in &older {
        if let Some(found) = sources.given(key) {
            sources.invalid(key, &found, "it to be unset because CLIENT_HAPROXY_BACKEND_LIST is set");
        }
    }
    match entries(&list.node) {
        Ok(entries) => {
            entries.iter().filter_map(|(name, entry)| backend(sources, list.origin, name, entry, port)).collect()
        }
        Err(reason) => {
            let expected = CLIENT_HAPROXY_BACKEND_LIST.expected;
            sources.invalid(&CLIENT_HAPROXY_BACKEND_LIST, &list, &format!("{expected}{reason}"));
            Vec::new()
        }
    }
}

/// Reads the fallback backend. `reason` says why it is required (`because ...`), if it is.
pub(super) fn read_fallback(sources: &mut Sources<'_>, port: Option<u16>, reason: Option<&str>) -> Option<Backend> {
    let [name, base] = [CLIENT_HAPROXY_FALLBACK_BACKEND_NAME, CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME];
    if let Some(reason) = reason
        && sources.given(&name).is_none()
        && sources.given(&base).is_none()
    {
        sources.missing(&name, reason);
        sources.missing(&base, reason);
    }
    pair(sources, &name, &base, port)
}

/// Reports ambiguous base names in one backend, such as `web` and `web1`: `web11` would be slot 11 of one and slot 1 of the
/// other.
pub(super) fn check_base_names(sources: &mut Sources<'_>, backends: &[Backend], fallback: Option<&Backend>) {
    let all: Vec<(&Backend, bool)> =
        backends.iter().map(|backend| (backend, false)).chain(fallback.map(|backend| (backend, true))).collect();
    for (index, (later, is_fallback)) in all.iter().enumerate() {
        let clash = |earlier: &Backend| earlier.name == later.name && ambiguous(&earlier.base, &later.base);
        let Some((earlier, _)) = all[..index].iter().find(|(earlier, _)| clash(earlier)) else { continue };
        let expected =
            format!("a base name that is unambiguous next to {:?} in the same backend {:?}", earlier.base, later.name);
        let key = if *is_fallback { CLIENT_HAPROXY_FALLBACK_BACKEND_BASE_NAME } else { CLIENT_HAPROXY_BACKEND_LIST };
        if let Some(found) = sources.given(&key) {
            let path = [later.name.as_str(), BASE_NAME];
            let path = if *is_fallback { &path[..0] } else { &path[..] };
            sources.invalid_inside(&key, found.origin, path, Some(&Node::Text(later.base.clone())), &expected);
        }
    }
}

/// Whether one is the other followed by nothing but digits, so that a server's name could belong to both.
fn ambiguous(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn pair(sources: &mut Sources<'_>, name_key: &Setting, base_key: &Setting, port: Option<u16>) -> Option<Backend> {
    let given = [name_key, base_key].map(|key| sources.given(key).is_some());
    match given {
        [true, false] => sources.missing(base_key, &format!("because {} is set", name_key.name)),
        [false, true] => sources.missing(name_key, &format!("because {} is set", base_key.name)),
        [true, true] | [false, false] => {}
    }
    let name = sources.read(name_key, scalar(haproxy_name));
    let base = sources.read(base_key, scalar(haproxy_name));
    Some(Backend { name: name?, base: base?, port: server_port(port?) })
}

/// The entries of the list, from a map or any text form. The error is appended to what was expected.
fn entries(node: &Node) -> Result<Vec<(String, Node)>, String> {
    match node {
        Node::Map(entries) => Ok(entries.clone()),
        Node::Text(text) if text.trim_start().starts_with('{') => match conf_file::parse(text) {
            Ok(Node::Map(entries)) if !entries.is_empty() => Ok(entries),
            Ok(_) => Err("; the list is empty".to_owned()),
            Err(error) => Err(format!("; it is not valid YAML: {}", error.text)),
        },
        Node::Text(text) => short_form(text),
        Node::Null | Node::List(_) | Node::Tagged => Err(String::new()),
    }
}

/// `backend:baseName:port` or `backend:baseName`, separated by commas. With a port the backend's name may contain colons.
fn short_form(text: &str) -> Result<Vec<(String, Node)>, String> {
    let mut entries = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let text = |text: &str| Node::Text(text.trim().to_owned());
        let mut parts = item.rsplitn(3, ':');
        let (name, base, port) = match (parts.next(), parts.next(), parts.next()) {
            (Some(base), Some(name), None) => (name, base, None),
            (Some(port), Some(base), Some(name)) if !name.contains(':') || is_number(port) => (name, base, Some(port)),
            _ => {
                return Err(format!(
                    "; {} is not backend:baseName or backend:baseName:port (a backend name with colons requires the port)",
                    quoted(item)
                ));
            }
        };
        let mut entry = vec![(BASE_NAME.to_owned(), text(base))];
        entry.extend(port.map(|port| (SERVER_PORT.to_owned(), text(port))));
        entries.push((name.trim().to_owned(), Node::Map(entry)));
    }
    if entries.is_empty() { Err("; the list is empty".to_owned()) } else { Ok(entries) }
}

fn is_number(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn backend(sources: &mut Sources<'_>, origin: Origin, name: &str, entry: &Node, port: Option<u16>) -> Option<Backend> {
    let list = &CLIENT_HAPROXY_BACKEND_LIST;
    let checked_name = haproxy_name(name.trim());
    if checked_name.is_none() {
        let expected = CLIENT_HAPROXY_BACKEND_NAME.expected;
        sources.invalid_inside(list, origin, &[], Some(&Node::Text(name.to_owned())), expected);
    }
    let Node::Map(fields) = entry else {
        let expected = "a map such as {baseName: mywebapp, serverPort: 80}";
        let found = Some(entry).filter(|entry| !entry.is_blank());
        sources.invalid_inside(list, origin, &[name], found, expected);
        return None;
    };
    let mut base = None;
    let mut own_port = None;
    for (field, value) in fields {
        match field.as_str() {
            BASE_NAME => base = Some(value),
            SERVER_PORT => own_port = Some(value),
            _ => sources.unknown_inside(list, origin, &[name, field], &[BASE_NAME, SERVER_PORT]),
        }
    }
    let base = base.filter(|value| !value.is_blank());
    let checked_base = base.and_then(scalar(haproxy_name));
    if checked_base.is_none() {
        let expected = CLIENT_HAPROXY_BACKEND_BASE_NAME.expected;
        sources.invalid_inside(list, origin, &[name, BASE_NAME], base, expected);
    }
    let checked_port = match own_port.filter(|value| !value.is_blank()) {
        None => port,
        Some(value) => {
            let checked = scalar(integer(0..=u16::MAX))(value);
            if checked.is_none() {
                let expected = CLIENT_HAPROXY_BACKEND_SERVER_PORT.expected;
                sources.invalid_inside(list, origin, &[name, SERVER_PORT], Some(value), expected);
            }
            checked
        }
    };
    Some(Backend { name: checked_name?, base: checked_base?, port: server_port(checked_port?) })
}

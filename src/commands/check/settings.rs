//! The settings: what is in force and where it comes from, and what is wrong with it. Pure.

use super::Roles;
use super::line::Line;
use crate::settings::{ListedSetting, Scope};
use crate::text::fact_and_remedy;

/// What is known of the settings.
#[derive(Debug, Default)]
pub(super) struct SettingsFacts {
    /// Every setting; empty if the file cannot be read.
    pub(super) listed: Vec<ListedSetting>,
    /// The file that was read, if there is one.
    pub(super) file: Option<String>,
    /// The faults of the roles, each once.
    pub(super) faults: Vec<String>,
    /// The warnings, each once.
    pub(super) warnings: Vec<String>,
    /// Whether the command line names a role.
    pub(super) named: bool,
}

/// The roles that the configuration has settings for.
pub(super) fn chosen_roles(listed: &[ListedSetting]) -> Roles {
    let chosen = |scope: Scope| listed.iter().any(|one| one.chosen && one.setting.scope == scope);
    Roles { server: chosen(Scope::Server), client: chosen(Scope::Client) }
}

pub(super) fn lines(facts: &SettingsFacts, roles: Roles) -> Vec<Line> {
    let mut lines = vec![Line::ok("hsdo", concat!("version ", env!("CARGO_PKG_VERSION")))];
    match (facts.named, roles.names().as_slice()) {
        (_, []) if facts.listed.is_empty() => {}
        (_, []) => lines.push(Line::mend(
            "role",
            match &facts.file {
                Some(file) => format!("{file} and the environment set nothing of the server and nothing of the client"),
                None => "no file was read, and the environment sets nothing of the server and nothing of the client".to_owned(),
            },
            "set SERVER_MODE or CLIENT_HAPROXY_BACKEND_LIST, name the file with --config, or name a role with --server or --client",
        )),
        (true, names) => lines.push(Line::ok("role", format!("{}, as named", names.join(" and ")))),
        (false, names) => lines.push(Line::ok("role", format!("{}, by the settings", names.join(" and ")))),
    }
    for one in &facts.listed {
        let is_read = match one.setting.scope {
            Scope::Server => roles.server,
            Scope::Client => roles.client,
            Scope::Both => true,
        };
        let name = one.setting.name;
        // Its fault shows it, with what is expected.
        let is_faulty = facts.faults.iter().any(|fault| subject(fault) == Some(name));
        if is_read && !is_faulty {
            lines.push(Line::ok(name, shown(one)));
        }
    }
    lines.extend(facts.faults.iter().map(|fault| fault_line(fault)));
    let warning = |warning: &String| {
        let (fact, remedy) = fact_and_remedy(warning);
        let stray = "correct these names, or remove these variables";
        match warning.contains("have no effect") {
            true => Line::warn("settings", warning, stray),
            false => Line::warn("settings", fact, remedy),
        }
    };
    lines.extend(facts.warnings.iter().map(warning));
    lines
}

fn shown(one: &ListedSetting) -> String {
    match &one.value {
        Some(value) => format!("{value} ({})", one.place),
        None => "not set".to_owned(),
    }
}

/// The setting that a fault is about.
fn subject(fault: &str) -> Option<&str> {
    let name = fault.split([':', ' ']).next()?;
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_').then_some(name).filter(|name| !name.is_empty())
}

/// A `mend` line from a fault of the settings.
pub(super) fn fault_line(fault: &str) -> Line {
    let name = subject(fault);
    let rest = name.and_then(|name| fault.strip_prefix(name)).map_or(fault, |rest| rest.trim_start_matches([':', ' ']));
    let (fact, remedy) = match rest.rsplit_once(", expected ") {
        Some((fact, expected)) => (fact.to_owned(), format!("set it to {expected}")),
        None => fact_and_remedy(rest),
    };
    let remedy = remedy.replace("did you mean", "is it");
    Line::mend(name.unwrap_or("settings"), fact, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::line::Level;
    use crate::settings::KEYS;

    fn listed(name: &str, value: Option<&str>, chosen: bool) -> ListedSetting {
        let setting = *KEYS.iter().find(|key| key.name == name).expect(name);
        ListedSetting { setting, value: value.map(str::to_owned), place: "the environment".to_owned(), chosen }
    }

    #[test]
    fn roles_follow_the_settings() {
        let both = [listed("SERVER_MODE", Some("aws"), true), listed("CLIENT_HEALTH_GATE", Some("true"), false)];
        assert_eq!(chosen_roles(&both), Roles { server: true, client: false });
        assert_eq!(chosen_roles(&[]), Roles::default());
    }

    #[test]
    fn settings_of_the_other_role_are_left_out_and_faults_have_a_remedy() {
        let facts = SettingsFacts {
            listed: vec![
                listed("SERVER_MODE", Some("aws"), true),
                listed("CLIENT_HEALTH_GATE", Some("true"), false),
                listed("INTERVAL", Some("x"), true),
            ],
            faults: vec![
                "INTERVAL: found \"x\" (the environment), expected seconds from 0.05 to 3600".to_owned(),
                "\"INTERVALL\": unknown key (env.yaml:1): did you mean INTERVAL?".to_owned(),
                "CLIENT_HAPROXY_BACKEND_LIST \"a\" \"baseName\": not set (env.yaml:2), expected a name".to_owned(),
            ],
            warnings: vec![
                "SERVER_ASG_NAMES (the environment): names are odd: `\"a`; remove these characters".to_owned(),
            ],
            named: true,
            ..SettingsFacts::default()
        };
        let lines = lines(&facts, Roles { server: true, client: false });
        let mend = |subject: &str, text: &str, remedy: &str| Line::mend(subject, text, remedy);
        let expected = [
            Line::ok("role", "server, as named"),
            Line::ok("SERVER_MODE", "aws (the environment)"),
            mend("INTERVAL", "found \"x\" (the environment)", "set it to seconds from 0.05 to 3600"),
            mend("settings", "\"INTERVALL\": unknown key (env.yaml:1)", "is it INTERVAL?"),
            mend("CLIENT_HAPROXY_BACKEND_LIST", "\"a\" \"baseName\": not set (env.yaml:2)", "set it to a name"),
            Line::warn(
                "settings",
                "SERVER_ASG_NAMES (the environment): names are odd: `\"a`",
                "remove these characters",
            ),
        ];
        assert_eq!(lines[1..], expected);
    }

    #[test]
    fn no_role_is_a_fault_that_tells_where_was_looked() {
        let listed = vec![listed("INTERVAL", Some("1"), false)];
        let warnings =
            vec!["/etc/hsdo/env.yaml: cannot be read; skipped, since it was not named: make it readable".to_owned()];
        let facts = SettingsFacts { listed, warnings, ..SettingsFacts::default() };
        let found = lines(&facts, Roles::default());
        assert!(found[1].level == Level::Mend && found[1].text.starts_with("no file was read"), "{found:?}");
        assert!(found.last().is_some_and(|line| line.text.contains("/etc/hsdo/env.yaml")), "{found:?}");
        let facts = SettingsFacts { file: Some("conf/env.yaml".to_owned()), ..facts };
        assert!(lines(&facts, Roles::default())[1].text.starts_with("conf/env.yaml and the environment"));
    }
}

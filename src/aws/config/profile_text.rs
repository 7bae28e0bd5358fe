//! The syntax of the AWS tools' shared files: sections, section titles and keys.
//!
//! Follows botocore, which parses with Python's `configparser`, and quoted names with `shlex`. Where the SDKs' test cases
//! allow more (inline comments, repeated sections, `[ default ]`), follows them. Values may be secrets: never printed.

use std::collections::BTreeMap;

/// The keys of a section, in lower case. Multi-line values keep their newlines.
pub(crate) type Keys = BTreeMap<String, String>;

/// The two files name their sections differently.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Config,
    Credentials,
}

/// The sections of one file that hsdo uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    pub(crate) profiles: BTreeMap<String, Keys>,
    pub(crate) sso_sessions: BTreeMap<String, Keys>,
    pub(crate) services: BTreeMap<String, Keys>,
}

/// The error is a line number and what is wrong there.
pub(crate) fn parse(text: &str, kind: FileKind) -> Result<Sections, (usize, &'static str)> {
    let mut sections = Sections::default();
    let mut bare_default = None;
    let mut shared = Keys::new();
    for (title, mut keys) in lines(text)? {
        // Like the SDKs, ignore keys with spaces.
        keys.retain(|key, _| !key.contains(char::is_whitespace));
        // configparser's section of defaults for all others.
        if title == "DEFAULT" {
            shared.extend(keys.clone());
        }
        let section = match section_of(&title, kind) {
            Section::BareDefault => bare_default.get_or_insert_with(Keys::new),
            Section::Profile(name) => sections.profiles.entry(name).or_default(),
            Section::SsoSession(name) => sections.sso_sessions.entry(name).or_default(),
            Section::Services(name) => sections.services.entry(name).or_default(),
            Section::Other => continue,
        };
        section.extend(keys);
    }
    if let Some(keys) = bare_default {
        sections.profiles.entry("default".to_string()).or_insert(keys);
    }
    for keys in [&mut sections.profiles, &mut sections.sso_sessions, &mut sections.services]
        .into_iter()
        .flat_map(BTreeMap::values_mut)
    {
        for (key, value) in &shared {
            keys.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(sections)
}

/// Titles and keys, in file order.
fn lines(text: &str) -> Result<Vec<(String, Keys)>, (usize, &'static str)> {
    let mut sections: Vec<(String, Keys)> = Vec::new();
    // The last key and its indentation: a line indented further continues its value.
    let mut last: Option<String> = None;
    let mut level = 0;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        let value = sections.last_mut().zip(last.as_ref()).and_then(|((_, keys), key)| keys.get_mut(key));
        if let Some(value) = value.filter(|_| indent > level) {
            // Nested keys, such as `endpoint_url` below `dynamodb =`, follow an empty value.
            let nested = value.is_empty() || value.starts_with('\n');
            match trimmed.split_once('=') {
                None if nested => return Err((number, "neither a nested key = value nor a continuation of the value")),
                Some((name, _)) if nested && name.trim().is_empty() => return Err((number, "a value without a key")),
                _ => {}
            }
            value.push('\n');
            value.push_str(trimmed);
            continue;
        }
        level = indent;
        if let Some(rest) = trimmed.strip_prefix('[') {
            let title = title(rest).ok_or((number, "a section without its closing bracket"))?;
            sections.push((title.trim().to_string(), Keys::new()));
            last = None;
            continue;
        }
        let Some((_, keys)) = sections.last_mut() else {
            return Err((number, "a key before the first [section]"));
        };
        let (key, value) = trimmed.split_once(['=', ':']).ok_or((number, "neither a [section] nor key = value"))?;
        let key = key.trim().to_ascii_lowercase();
        if key.is_empty() {
            return Err((number, "a value without a key"));
        }
        let quotes = key == "credential_process";
        keys.insert(key.clone(), strip_comment(value, quotes).trim().to_string());
        last = Some(key);
    }
    Ok(sections)
}

/// The section title, up to the first closing bracket followed by nothing but a comment.
fn title(rest: &str) -> Option<&str> {
    let closing = |at: usize| {
        let rest_of_line = rest[at + 1..].trim_start();
        (rest_of_line.is_empty() || rest_of_line.starts_with(['#', ';'])).then_some(at)
    };
    let at = rest.match_indices(']').find_map(|(at, _)| closing(at)).or_else(|| rest.find(']'))?;
    Some(&rest[..at])
}

enum Section {
    Other,
    /// `[default]` in the config file, overridden by `[profile default]`.
    BareDefault,
    Profile(String),
    SsoSession(String),
    Services(String),
}

fn section_of(title: &str, kind: FileKind) -> Section {
    if kind == FileKind::Config && title == "default" {
        return Section::BareDefault;
    }
    let name = |text: &str| name(text.trim(), kind).filter(|name| !name.is_empty());
    let (word, rest) = title.split_once(char::is_whitespace).unwrap_or((title, ""));
    match kind {
        // A bare `[x]` in the config file is not a profile, and neither is `[profile x]` in the credentials file.
        FileKind::Credentials if word == "profile" && !rest.is_empty() => Section::Other,
        FileKind::Credentials => name(title).map_or(Section::Other, Section::Profile),
        FileKind::Config => match (word, name(rest)) {
            ("profile", Some(name)) => Section::Profile(name),
            ("sso-session", Some(name)) => Section::SsoSession(name),
            ("services", Some(name)) => Section::Services(name),
            _ => Section::Other,
        },
    }
}

/// A profile's name in a title. With spaces, the config file needs shell quotes; the credentials file may omit them.
fn name(text: &str, kind: FileKind) -> Option<String> {
    match (shell_words(text).as_deref(), kind) {
        (Some([name]), FileKind::Config) => Some(name.clone()),
        (Some([name]), FileKind::Credentials) if text.starts_with(['"', '\'']) => Some(name.clone()),
        (None, FileKind::Config) if text.contains(char::is_whitespace) => None,
        (Some(_), FileKind::Config) => None,
        _ => Some(text.to_string()),
    }
}

/// Splits like a shell, without variables; `None` for an unclosed quote.
fn shell_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\\' => word.push(chars.next()?),
            '\'' | '"' => loop {
                match chars.next()? {
                    end if end == c => break,
                    '\\' if c == '"' => match chars.next()? {
                        escaped @ ('"' | '\\') => word.push(escaped),
                        other => word.extend(['\\', other]),
                    },
                    inner => word.push(inner),
                }
            },
            _ => word.push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Strips a comment: `#` or `;` after a space. With `quotes`, for a command line, not inside shell quotes.
pub(crate) fn strip_comment(value: &str, quotes: bool) -> &str {
    let mut quote = None;
    let mut previous = None;
    for (at, c) in value.char_indices() {
        let escaped = previous == Some('\\') && quote != Some('\'');
        match quote {
            _ if !quotes => {}
            _ if escaped => {
                previous = None;
                continue;
            }
            Some(open) if c == open => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        if quote.is_none() && matches!(c, '#' | ';') && matches!(previous, Some(' ' | '\t')) {
            return &value[..at];
        }
        previous = Some(c);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, kind: FileKind, profile: &str, key: &str) -> Option<String> {
        parse(text, kind).expect("a file").profiles.get(profile)?.get(key).cloned()
    }

    #[test]
    fn the_two_files_name_profiles_differently() {
        let config = "[default]\nregion = eu-west-1\n[profile ops]\nregion=us-east-1\n[other]\nregion=x\n[sso-session ops]\nregion=y\n";
        assert_eq!(get(config, FileKind::Config, "default", "region").as_deref(), Some("eu-west-1"));
        assert_eq!(get(config, FileKind::Config, "ops", "region").as_deref(), Some("us-east-1"));
        assert_eq!(get(config, FileKind::Config, "other", "region"), None);
        let credentials = "[other]\naws_access_key_id = A\n[profile ops]\naws_access_key_id = B\n";
        assert_eq!(get(credentials, FileKind::Credentials, "other", "aws_access_key_id").as_deref(), Some("A"));
        assert_eq!(get(credentials, FileKind::Credentials, "ops", "aws_access_key_id"), None);
    }

    #[test]
    fn the_details_of_the_syntax() {
        let text = "# comment\r\n\r\n[ profile \"my ops\" ] ; note\r\nRegion = eu-west-1 # where\r\nkey = a#b;c\r\nempty =\r\n\
                    s3 =\r\n  addressing_style = path\r\n\r\n  # note\r\n  x = 1\r\nsecret = x/y+z==\r\nkey2 = 1\r\nkey2 = 2\r\n";
        let value = |key| get(text, FileKind::Config, "my ops", key);
        assert_eq!(value("region").as_deref(), Some("eu-west-1"));
        assert_eq!(value("key").as_deref(), Some("a#b;c"));
        assert_eq!(value("empty").as_deref(), Some(""));
        assert_eq!(value("secret").as_deref(), Some("x/y+z=="));
        assert_eq!(value("addressing_style"), None);
        assert_eq!(value("s3").as_deref(), Some("\naddressing_style = path\nx = 1"));
        assert_eq!(value("key2").as_deref(), Some("2"));
    }

    #[test]
    fn profile_default_hides_default_in_the_config_file() {
        for text in [
            "[profile default]\nregion = a\n[default]\nregion = b\nkey = c\n",
            "[default]\nregion = b\nkey = c\n[profile default]\nregion = a\n",
        ] {
            assert_eq!(get(text, FileKind::Config, "default", "region").as_deref(), Some("a"));
            assert_eq!(get(text, FileKind::Config, "default", "key"), None);
        }
    }

    #[test]
    fn indented_lines_are_keys_unless_indented_further_than_the_key_above() {
        let all = |text| parse(text, FileKind::Config).expect(text).profiles["default"].clone();
        let two = Keys::from([("a".to_string(), "1".to_string()), ("b".to_string(), "2".to_string())]);
        for text in [
            "[default]\n    a = 1\n    b = 2\n",
            "  [default]\n  a = 1\n  b = 2\n",
            "\t[default]\n\t\ta: 1\n\t\tb :2\n",
            "[default]\n    a = 1\nb = 2\n",
            "[default]\na = 1\n\n # note\n[profile x]\n  y = 1\n[default]\n  b = 2\n",
            "[default]\n    a = 1\n  [profile x]\n  c = 3\n [default]\nb: 2\n",
        ] {
            assert_eq!(all(text), two, "{text}");
        }
        let nested = all("[default]\n  s3 =\n    x = 1\n    y: z = 2\n  b = 2\n");
        assert_eq!(nested["s3"], "\nx = 1\ny: z = 2");
        assert_eq!(all("[default]\nb = 2\n  [profile x]\n  y = 1\n")["b"], "2\n[profile x]\ny = 1");
    }

    #[test]
    fn names_of_sections_may_hold_anything() {
        for (kind, title, expected) in [
            (FileKind::Credentials, "[my company]", "my company"),
            (FileKind::Credentials, "[ prod(eu) ] # note", "prod(eu)"),
            (FileKind::Credentials, "[kunde-müller];note", "kunde-müller"),
            (FileKind::Credentials, "[acme#1]", "acme#1"),
            (FileKind::Credentials, "[o'brien]", "o'brien"),
            (FileKind::Credentials, "[o'brien ops]", "o'brien ops"),
            (FileKind::Credentials, "[\"my ops\"]", "my ops"),
            (FileKind::Credentials, "[a]b] # see [c]", "a]b"),
            (FileKind::Credentials, "[sso-session x]", "sso-session x"),
            (FileKind::Config, "[profile prod(eu)]", "prod(eu)"),
            (FileKind::Config, "[profile acme#1] # see [c]", "acme#1"),
            (FileKind::Config, "[profile 'my ops']", "my ops"),
            // As `aws configure` writes them.
            (FileKind::Config, r#"[profile 'o'"'"'brien ops']"#, "o'brien ops"),
            (FileKind::Config, "[profile o'brien]", "o'brien"),
            (FileKind::Config, r#"[profile "a \"b\" \c"]"#, r#"a "b" \c"#),
            (FileKind::Config, r"[profile a\ b]", "a b"),
        ] {
            assert_eq!(get(&format!("{title}\nx = 1\n"), kind, expected, "x").as_deref(), Some("1"), "{title}");
        }
        for title in ["[]", "[profile]", "[profile a b]", "[profile 'a b]", "[profile '']", "[preview]"] {
            assert_eq!(parse(title, FileKind::Config).expect(title).profiles, BTreeMap::new(), "{title}");
        }
    }

    #[test]
    fn keys_in_default_in_capitals_apply_to_every_section() {
        let text = "[a]\nx = 1\n[DEFAULT]\nx = 2\ny = 3\n[b]\n";
        for (profile, key, expected) in [("a", "x", "1"), ("a", "y", "3"), ("b", "x", "2"), ("DEFAULT", "x", "2")] {
            assert_eq!(get(text, FileKind::Credentials, profile, key).as_deref(), Some(expected), "{profile} {key}");
        }
        let config = parse("[DEFAULT]\nx = 1\n[profile a]\n", FileKind::Config).expect("a file").profiles;
        assert_eq!(config, BTreeMap::from([("a".to_string(), Keys::from([("x".to_string(), "1".to_string())]))]));
    }

    #[test]
    fn a_comment_starts_after_a_space_and_outside_a_commands_quotes() {
        for (key, value, expected) in [
            ("region", "eu-west-1 # 'x'", "eu-west-1"),
            ("region", "a#b;c", "a#b;c"),
            ("role_session_name", "'a #b'", "'a"),
            ("credential_process", "give --secret 'a #b'", "give --secret 'a #b'"),
            ("credential_process", "give 'a #b' # the secret's", "give 'a #b'"),
            ("credential_process", r#"give "a \" #b" \" #c"#, r#"give "a \" #b" \""#),
            ("credential_process", r"give 'a \' #b", r"give 'a \'"),
            ("credential_process", r"give \\ #b", r"give \\"),
            ("credential_process", "sh -c 'x ; y' ; z", "sh -c 'x ; y'"),
        ] {
            let text = format!("[default]\n{key} = {value}\n");
            assert_eq!(get(&text, FileKind::Config, "default", key).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn syntax_errors_name_the_line() {
        for (text, line) in [
            ("[default\nx = 1\n", 1),
            ("x = 1\n", 1),
            ("[default]\n\nnonsense\n", 3),
            ("[default]\n  nonsense\n", 2),
            ("[default]\n: 1\n", 2),
        ] {
            assert_eq!(parse(text, FileKind::Config).expect_err(text).0, line, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[\\[\\]= #;a\"\\n\\té]{0,60}") {
            for kind in [FileKind::Config, FileKind::Credentials] {
                let _ = parse(&text, kind);
            }
        }
    }
}

//! The grammar of the AWS tools' shared files: a text into sections, and a section's title into what it is about.
//!
//! As botocore reads them: the rules for indented lines, `key: value` and section names are those of Python's
//! `configparser`, and of `shlex` for quoted names. Where the SDKs' own test cases allow more than botocore does (inline
//! comments, a section that stands twice, `[ default ]`), their reading is taken. Values may be secrets: nothing here prints one.

use std::collections::BTreeMap;

/// The keys of a section, in lower case. A value of several lines has them joined by line ends.
pub(crate) type Keys = BTreeMap<String, String>;

/// Which of the two files it is: they spell their sections differently.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Credentials,
}

/// The sections of one file that something can ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    pub(crate) profiles: BTreeMap<String, Keys>,
    pub(crate) sso_sessions: BTreeMap<String, Keys>,
    pub(crate) services: BTreeMap<String, Keys>,
}

/// The sections of a file. The error is a line's number and what is wrong with it.
pub(crate) fn parse(text: &str, kind: Kind) -> Result<Sections, (usize, &'static str)> {
    let mut sections = Sections::default();
    let mut plain_default = None;
    let mut of_all = Keys::new();
    for (title, mut keys) in lines(text)? {
        // As the SDKs do: a key with a space in it is none of ours.
        keys.retain(|key, _| !key.contains(char::is_whitespace));
        // Python's own name for what holds in every section of the file.
        if title == "DEFAULT" {
            of_all.extend(keys.clone());
        }
        let known = match section_of(&title, kind) {
            Section::PlainDefault => plain_default.get_or_insert_with(Keys::new),
            Section::Profile(name) => sections.profiles.entry(name).or_default(),
            Section::SsoSession(name) => sections.sso_sessions.entry(name).or_default(),
            Section::Services(name) => sections.services.entry(name).or_default(),
            Section::Other => continue,
        };
        known.extend(keys);
    }
    if let Some(keys) = plain_default {
        sections.profiles.entry("default".to_string()).or_insert(keys);
    }
    for keys in [&mut sections.profiles, &mut sections.sso_sessions, &mut sections.services]
        .into_iter()
        .flat_map(BTreeMap::values_mut)
    {
        for (key, value) in &of_all {
            keys.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(sections)
}

/// Titles and keys, in the order of the text.
fn lines(text: &str) -> Result<Vec<(String, Keys)>, (usize, &'static str)> {
    let mut sections: Vec<(String, Keys)> = Vec::new();
    // The key of the last line, and how far it is indented: what is indented further continues its value.
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
            // The keys below a key, such as `endpoint_url` below `dynamodb =`, begin on a line of their own.
            let nested = value.is_empty() || value.starts_with('\n');
            match trimmed.split_once('=') {
                None if nested => return Err((number, "neither key = value below a key nor more of its value")),
                Some((name, _)) if nested && name.trim().is_empty() => return Err((number, "a value without its key")),
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
            return Err((number, "a value without its key"));
        }
        let quotes = key == "credential_process";
        keys.insert(key.clone(), without_comment(value, quotes).trim().to_string());
        last = Some(key);
    }
    Ok(sections)
}

/// The title of a section, out of what follows its bracket: to the first bracket with nothing but a comment behind it.
fn title(rest: &str) -> Option<&str> {
    let closing = |at: usize| {
        let behind = rest[at + 1..].trim_start();
        (behind.is_empty() || behind.starts_with(['#', ';'])).then_some(at)
    };
    let at = rest.match_indices(']').find_map(|(at, _)| closing(at)).or_else(|| rest.find(']'))?;
    Some(&rest[..at])
}

/// What a section is about.
enum Section {
    /// Something that nothing asks for.
    Other,
    /// `[default]` in the config file, which `[profile default]` hides.
    PlainDefault,
    Profile(String),
    SsoSession(String),
    Services(String),
}

fn section_of(title: &str, kind: Kind) -> Section {
    if kind == Kind::Config && title == "default" {
        return Section::PlainDefault;
    }
    let name = |text: &str| name(text.trim(), kind).filter(|name| !name.is_empty());
    let (word, rest) = title.split_once(char::is_whitespace).unwrap_or((title, ""));
    match kind {
        // In the config file a bare `[x]` is no profile, and neither is `[profile x]` in the credentials file.
        Kind::Credentials if word == "profile" && !rest.is_empty() => Section::Other,
        Kind::Credentials => name(title).map_or(Section::Other, Section::Profile),
        Kind::Config => match (word, name(rest)) {
            ("profile", Some(name)) => Section::Profile(name),
            ("sso-session", Some(name)) => Section::SsoSession(name),
            ("services", Some(name)) => Section::Services(name),
            _ => Section::Other,
        },
    }
}

/// A name as it is written in a title. In the config file one with spaces is in quotes, as a shell has them; in the
/// credentials file it may be, and may stand there as it is.
fn name(text: &str, kind: Kind) -> Option<String> {
    match (words(text).as_deref(), kind) {
        (Some([name]), Kind::Config) => Some(name.clone()),
        (Some([name]), Kind::Credentials) if text.starts_with(['"', '\'']) => Some(name.clone()),
        (None, Kind::Config) if text.contains(char::is_whitespace) => None,
        (Some(_), Kind::Config) => None,
        _ => Some(text.to_string()),
    }
}

/// The words of a text as a shell splits them, without its variables; `None` where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
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

/// A value without its comment, which begins with `#` or `;` after a space; without one it belongs to the value. In a
/// command line the quotes are the shell's, and what they hold is no comment.
pub(crate) fn without_comment(value: &str, quotes: bool) -> &str {
    let mut quote = None;
    let mut before = None;
    for (at, c) in value.char_indices() {
        let escaped = before == Some('\\') && quote != Some('\'');
        match quote {
            _ if !quotes => {}
            _ if escaped => {
                // What is escaped escapes nothing.
                before = None;
                continue;
            }
            Some(open) if c == open => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        if quote.is_none() && matches!(c, '#' | ';') && matches!(before, Some(' ' | '\t')) {
            return &value[..at];
        }
        before = Some(c);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, kind: Kind, profile: &str, key: &str) -> Option<String> {
        parse(text, kind).expect("a file").profiles.get(profile)?.get(key).cloned()
    }

    #[test]
    fn profiles_are_spelled_differently_in_the_two_files() {
        let config = "[default]\nregion = eu-west-1\n[profile ops]\nregion=us-east-1\n[other]\nregion=x\n[sso-session ops]\nregion=y\n";
        assert_eq!(get(config, Kind::Config, "default", "region").as_deref(), Some("eu-west-1"));
        assert_eq!(get(config, Kind::Config, "ops", "region").as_deref(), Some("us-east-1"));
        assert_eq!(get(config, Kind::Config, "other", "region"), None);
        let credentials = "[other]\naws_access_key_id = A\n[profile ops]\naws_access_key_id = B\n";
        assert_eq!(get(credentials, Kind::Credentials, "other", "aws_access_key_id").as_deref(), Some("A"));
        assert_eq!(get(credentials, Kind::Credentials, "ops", "aws_access_key_id"), None);
    }

    #[test]
    fn the_details_of_the_syntax() {
        let text = "# comment\r\n\r\n[ profile \"my ops\" ] ; note\r\nRegion = eu-west-1 # where\r\nkey = a#b;c\r\nempty =\r\n\
                    s3 =\r\n  addressing_style = path\r\n\r\n  # note\r\n  x = 1\r\nsecret = x/y+z==\r\nkey2 = 1\r\nkey2 = 2\r\n";
        let value = |key| get(text, Kind::Config, "my ops", key);
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
            assert_eq!(get(text, Kind::Config, "default", "region").as_deref(), Some("a"));
            assert_eq!(get(text, Kind::Config, "default", "key"), None);
        }
    }

    #[test]
    fn indented_lines_are_keys_unless_they_stand_further_right_than_the_key_above() {
        let all = |text| parse(text, Kind::Config).expect(text).profiles["default"].clone();
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
            (Kind::Credentials, "[my company]", "my company"),
            (Kind::Credentials, "[ prod(eu) ] # note", "prod(eu)"),
            (Kind::Credentials, "[kunde-müller];note", "kunde-müller"),
            (Kind::Credentials, "[acme#1]", "acme#1"),
            (Kind::Credentials, "[o'brien]", "o'brien"),
            (Kind::Credentials, "[o'brien ops]", "o'brien ops"),
            (Kind::Credentials, "[\"my ops\"]", "my ops"),
            (Kind::Credentials, "[a]b] # see [c]", "a]b"),
            (Kind::Credentials, "[sso-session x]", "sso-session x"),
            (Kind::Config, "[profile prod(eu)]", "prod(eu)"),
            (Kind::Config, "[profile acme#1] # see [c]", "acme#1"),
            (Kind::Config, "[profile 'my ops']", "my ops"),
            // As `aws configure` writes them.
            (Kind::Config, r#"[profile 'o'"'"'brien ops']"#, "o'brien ops"),
            (Kind::Config, "[profile o'brien]", "o'brien"),
            (Kind::Config, r#"[profile "a \"b\" \c"]"#, r#"a "b" \c"#),
            (Kind::Config, r"[profile a\ b]", "a b"),
        ] {
            assert_eq!(get(&format!("{title}\nx = 1\n"), kind, expected, "x").as_deref(), Some("1"), "{title}");
        }
        for title in ["[]", "[profile]", "[profile a b]", "[profile 'a b]", "[profile '']", "[preview]"] {
            assert_eq!(parse(title, Kind::Config).expect(title).profiles, BTreeMap::new(), "{title}");
        }
    }

    #[test]
    fn what_stands_in_default_in_capitals_holds_everywhere() {
        let text = "[a]\nx = 1\n[DEFAULT]\nx = 2\ny = 3\n[b]\n";
        for (profile, key, expected) in [("a", "x", "1"), ("a", "y", "3"), ("b", "x", "2"), ("DEFAULT", "x", "2")] {
            assert_eq!(get(text, Kind::Credentials, profile, key).as_deref(), Some(expected), "{profile} {key}");
        }
        let config = parse("[DEFAULT]\nx = 1\n[profile a]\n", Kind::Config).expect("a file").profiles;
        assert_eq!(config, BTreeMap::from([("a".to_string(), Keys::from([("x".to_string(), "1".to_string())]))]));
    }

    #[test]
    fn a_comment_begins_behind_a_space_and_in_no_quotes_of_a_command_line() {
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
            assert_eq!(get(&text, Kind::Config, "default", key).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named_by_its_line() {
        for (text, line) in [
            ("[default\nx = 1\n", 1),
            ("x = 1\n", 1),
            ("[default]\n\nnonsense\n", 3),
            ("[default]\n  nonsense\n", 2),
            ("[default]\n: 1\n", 2),
        ] {
            assert_eq!(parse(text, Kind::Config).expect_err(text).0, line, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[\\[\\]= #;a\"\\n\\té]{0,60}") {
            for kind in [Kind::Config, Kind::Credentials] {
                let _ = parse(&text, kind);
            }
        }
    }
}

//! Which Auto Scaling groups are wanted: by name, by pattern and by tag. Pure.

use std::collections::HashSet;
use std::fmt;

use wildmatch::WildMatch;

use crate::slot::is_group_name;

/// The name of a group, or a pattern of names: `*` is any text, `?` any one character.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    /// None for a plain name.
    pattern: Option<WildMatch>,
}

impl NamePattern {
    /// From its spelling.
    pub fn new(text: &str) -> Self {
        NamePattern { text: text.to_owned(), pattern: text.contains(['*', '?']).then(|| WildMatch::new(text)) }
    }

    /// A name in which `*` and `?` are themselves.
    pub fn plain(name: &str) -> Self {
        NamePattern { text: name.to_owned(), pattern: None }
    }

    /// Whether it may match several names.
    pub fn is_pattern(&self) -> bool {
        self.pattern.is_some()
    }

    /// Whether it matches every name.
    pub fn matches_all(&self) -> bool {
        self.is_pattern() && self.text.chars().all(|char| char == '*')
    }

    /// Whether it is, or matches, `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.as_ref().map_or(self.text == name, |pattern| pattern.matches(name))
    }

    /// As it was spelt.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for NamePattern {}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A tag that a group must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFilter {
    /// The tag's key.
    pub key: String,
    /// Its value; any if none.
    pub value: Option<String>,
}

impl fmt::Display for TagFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// `SERVER_ASG_NAMES` and `SERVER_ASG_TAGS`: the groups that one of the names matches, if there are names, and that carry all of
/// the tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSelection {
    /// In configured order.
    pub names: Vec<NamePattern>,
    /// All of them must match.
    pub tags: Vec<TagFilter>,
}

/// The groups of a selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedGroups {
    /// The names of those that exist, in the order in which their instances are seated.
    pub present: Vec<String>,
    /// The entries that no group matches, as they are spelt.
    pub missing: Vec<String>,
}

impl GroupSelection {
    /// These names, without patterns or tags.
    pub fn named(names: &[&str]) -> Self {
        GroupSelection { names: names.iter().map(|name| NamePattern::new(name)).collect(), tags: vec![] }
    }

    /// Whether the groups have to be looked for: with a pattern or a tag, their names are not known.
    pub fn needs_search(&self) -> bool {
        !self.tags.is_empty() || self.names.iter().any(NamePattern::is_pattern)
    }

    /// Whether all groups have to be looked for.
    pub fn has_no_plain_names(&self) -> bool {
        self.names.iter().all(NamePattern::is_pattern)
    }

    /// The names of the groups to ask about, if `found` is what a search for the tags found.
    pub fn names_to_ask<'a>(&self, found: impl Iterator<Item = &'a str>) -> Vec<String> {
        // A plain name need not be found first.
        let plain = self.names.iter().filter(|name| !name.is_pattern());
        let mut names = self.select(found).present;
        let known: HashSet<String> = names.iter().cloned().collect();
        names.extend(plain.map(|name| name.as_str().to_owned()).filter(|name| !known.contains(name)));
        names
    }

    /// Every name and pattern; the tags together, as they are spelt, if there are only tags.
    pub fn entries(&self) -> Vec<NamePattern> {
        if self.names.is_empty() { vec![NamePattern::plain(&self.tags_word())] } else { self.names.clone() }
    }

    /// The tags as they are spelt.
    fn tags_word(&self) -> String {
        self.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The selection of the groups that exist: by entry, then by name.
    pub fn select<'a>(&self, existing: impl Iterator<Item = &'a str>) -> SelectedGroups {
        // A group of another name, which AWS allows, could not be told in a row.
        let mut existing: Vec<&str> = existing.filter(|name| is_group_name(name)).collect();
        existing.sort_unstable();
        existing.dedup();
        let (mut selected, mut taken) = (SelectedGroups::default(), HashSet::new());
        if self.names.is_empty() {
            if existing.is_empty() {
                selected.missing.push(self.tags_word());
            }
            selected.present = existing.into_iter().map(str::to_owned).collect();
            return selected;
        }
        for entry in &self.names {
            let mut matches = existing.iter().filter(|name| entry.matches(name)).peekable();
            if matches.peek().is_none() {
                selected.missing.push(entry.to_string());
            }
            selected.present.extend(matches.filter(|name| taken.insert(**name)).map(|name| (*name).to_owned()));
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_whole() {
        for (pattern, name, expected) in [
            ("web", "web", true),
            ("web", "web1", false),
            ("web-*", "web-", true),
            ("web-*", "web-4f2a", true),
            ("web-*", "old-web-1", false),
            ("*-web", "blue-web", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("é?", "éx", true),
            ("web[1]", "web[1]", true),
            ("web[1]", "web1", false),
        ] {
            assert_eq!(NamePattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
        assert!(NamePattern::new("**").matches_all() && !NamePattern::new("*?").matches_all());
    }

    #[test]
    fn groups_are_seated_by_entry_then_by_name() {
        let tag = |key: &str| TagFilter { key: key.to_owned(), value: Some("1".to_owned()) };
        let both =
            GroupSelection { tags: vec![tag("b"), TagFilter { value: None, ..tag("c") }], ..GroupSelection::default() };
        /// The selection, the groups that exist, those selected, and the entries without one.
        type Case<'a> = (GroupSelection, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let cases: [Case<'_>; 8] = [
            (GroupSelection::named(&["b", "a"]), &["a", "b", "c"], &["b", "a"], &[]),
            (GroupSelection::named(&["b", "a"]), &["a"], &["a"], &["b"]),
            (
                GroupSelection::named(&["z", "web-*", "*"]),
                &["web-2", "a", "z", "web-1"],
                &["z", "web-1", "web-2", "a"],
                &[],
            ),
            (GroupSelection::named(&["web-*", "web-1"]), &["web-1"], &["web-1"], &[]),
            (GroupSelection::named(&["web-*", "db-?"]), &["web-1"], &["web-1"], &["db-?"]),
            (both.clone(), &["b", "a"], &["a", "b"], &[]),
            (both, &[], &[], &["b=1,c"]),
            (GroupSelection::named(&["*"]), &["none", "a\nb", "c"], &["c"], &[]),
        ];
        for (selection, existing, present, missing) in cases {
            let found = selection.select(existing.iter().copied());
            assert_eq!(
                (found.present, found.missing),
                (strings(present), strings(missing)),
                "{selection:?} {existing:?}"
            );
        }
    }

    #[test]
    fn plain_names_are_asked_about_before_they_are_found() {
        let mixed = GroupSelection::named(&["new", "web-*"]);
        assert!(mixed.needs_search() && !GroupSelection::named(&["new"]).needs_search());
        assert_eq!(mixed.names_to_ask(["web-1", "other"].into_iter()), strings(&["web-1", "new"]));
        assert_eq!(mixed.entries(), ["new", "web-*"].map(NamePattern::new));
        assert!(!mixed.has_no_plain_names() && GroupSelection::named(&["web-*"]).has_no_plain_names());
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}

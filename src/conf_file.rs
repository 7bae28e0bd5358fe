//! Parses a YAML file into keys and values.
//!
//! Scalars keep their text, so that a group called `1e3` or `0x10` stays what it is and errors can quote what was typed.
//! Merge keys (`<<`) are resolved as in PyYAML, which the Python version uses.

mod merge;
mod value_type;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use self::merge::{MERGE, Merged};
use self::value_type::ValueType;
use crate::text::one_line;
use crate::text_file;

/// Limit of a configuration file, far above any real one.
const MAX_BYTES: u64 = 1 << 20;

/// A YAML value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// `~`, `null`, or no value at all.
    Null,
    /// A scalar, quoted or not, as written.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in file order.
    Map(Vec<(String, Node)>),
    /// A value with a custom tag (`!Ref x`), which no setting accepts.
    Tagged,
}

impl Node {
    /// Whether it is null, an empty or blank text, or an empty list or map.
    pub fn is_blank(&self) -> bool {
        match self {
            Node::Null => true,
            Node::Text(text) => text.trim().is_empty(),
            Node::List(items) => items.is_empty(),
            Node::Map(entries) => entries.is_empty(),
            Node::Tagged => false,
        }
    }
}

/// One line for people, in flow style.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Null => f.write_str("null"),
            Node::Text(text) => f.write_str(text),
            Node::List(items) => {
                let items: Vec<String> = items.iter().map(Node::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Node::Map(entries) => {
                let entries: Vec<String> = entries.iter().map(|(key, node)| format!("{key}: {node}")).collect();
                write!(f, "{{{}}}", entries.join(", "))
            }
            Node::Tagged => f.write_str("a value with a YAML tag"),
        }
    }
}

/// Why a configuration file is unusable, in one line that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfFileError(pub String);

impl fmt::Display for ConfFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfFileError {}

/// A parsed configuration file.
#[derive(Clone, Debug)]
pub struct ConfFile {
    path: PathBuf,
    text: String,
    entries: Vec<(String, Node)>,
    merged: Merged,
}

impl ConfFile {
    /// Reads the file. An error if it cannot be read or is not a YAML map.
    pub fn read(path: &Path) -> Result<Self, ConfFileError> {
        let text = read_text(path).map_err(|error| ConfFileError(unreadable(path, &error)))?;
        Self::from_text(path, text)
    }

    /// Reads the first file that exists and is readable. An unreadable one, or a directory, was not asked for explicitly, so
    /// it is skipped with a line in `skipped`. Unusable contents are an error.
    pub fn read_first(paths: &[&Path], skipped: &mut Vec<String>) -> Result<Option<Self>, ConfFileError> {
        for path in paths {
            match read_text(path) {
                Ok(text) => return Self::from_text(path, text).map(Some),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::FileTooLarge) => {
                    return Err(ConfFileError(unreadable(path, &error)));
                }
                Err(error) => skipped.push(format!(
                    "{}; skipped, since it was not named with --config: make it readable, or name a file with --config",
                    unreadable(path, &error)
                )),
            }
        }
        Ok(None)
    }

    /// Parses the text. An error if it is not a YAML map; an empty text is one.
    pub fn from_text(path: &Path, text: String) -> Result<Self, ConfFileError> {
        let shown = shown(path);
        let merged = RefCell::default();
        let entries = match parse_collecting(&text, &merged) {
            Ok(Node::Map(entries)) => entries,
            Ok(Node::Null) => Vec::new(),
            Ok(_) => return Err(ConfFileError(format!("{shown}: expected a YAML map of keys and values"))),
            Err(SyntaxError { line, text }) => {
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                return Err(ConfFileError(format!("{shown}{line}: not valid YAML: {text}")));
            }
        };
        Ok(ConfFile { path: path.to_owned(), text, entries, merged: merged.into_inner() })
    }

    /// The top-level entries, in file order.
    pub fn entries(&self) -> &[(String, Node)] {
        &self.entries
    }

    /// The value of a top-level key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Whether the value is merged into other maps (`base: &base {...}` for `<<: *base`).
    pub fn is_merged(&self, value: &Node) -> bool {
        self.merged.contains(value)
    }

    /// `file:line` of a key path, outermost name first. The line is that of the innermost name found at the start of a line;
    /// without any, only the file.
    pub fn place(&self, keys: &[&str]) -> String {
        let file = shown(&self.path);
        match line_of(&self.text, keys) {
            Some(line) => format!("{file}:{line}"),
            None => file,
        }
    }
}

/// A YAML syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line number from 1, if known.
    pub line: Option<usize>,
    /// One line without control characters.
    pub text: String,
}

impl From<serde_yaml::Error> for SyntaxError {
    fn from(error: serde_yaml::Error) -> Self {
        let text = error.to_string();
        let text = if text.contains("more than one document") {
            "more than one document: expected one, with `---` only at its start".to_owned()
        } else {
            one_line(&text, 200)
        };
        SyntaxError { line: error.location().map(|place| place.line()), text }
    }
}

/// Parses one YAML (or JSON) document. An empty text is [`Node::Null`]; a duplicate key is an error.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    parse_collecting(text, &RefCell::default())
}

/// Also collects the maps that are merged into others.
fn parse_collecting(text: &str, merged: &RefCell<Merged>) -> Result<Node, SyntaxError> {
    let text = without_bom(text);
    // serde_yaml returns the text of a scalar only on request, so the first pass finds the type of each value.
    let value_type = ValueType::of(text)?;
    if matches!(value_type, ValueType::Null) {
        return Ok(Node::Null);
    }
    Ok(TypedReader { value_type: &value_type, merged }.deserialize(serde_yaml::Deserializer::from_str(text))?)
}

/// Strips a byte order mark, which the YAML library would count as a column of indentation.
pub(crate) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("larger than {MAX_BYTES} bytes")));
    }
    text_file::decode(bytes).map_err(|why| std::io::Error::new(ErrorKind::InvalidData, why))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot read the configuration file: {error}", shown(path))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

/// The line, from 1, of the innermost of `keys` that is found as a block-style key.
fn line_of(text: &str, keys: &[&str]) -> Option<usize> {
    let lines: Vec<&str> = without_bom(text).lines().collect();
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let is_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let mut found: Option<usize> = None;
    for key in keys {
        let start = found.map_or(0, |index| index + 1);
        let outer = found.map(|index| indent(lines[index]));
        let inner = lines.iter().enumerate().skip(start).filter(|(_, line)| is_content(line));
        let next = match outer {
            None => inner.into_iter().find(|(_, line)| indent(line) == 0 && starts_with_key(line, key)),
            Some(outer) => {
                inner.take_while(|(_, line)| indent(line) > outer).find(|(_, line)| starts_with_key(line.trim(), key))
            }
        };
        match next {
            Some((index, _)) => found = Some(index),
            None => break,
        }
    }
    found.map(|index| index + 1)
}

fn starts_with_key(line: &str, key: &str) -> bool {
    [key.to_owned(), format!("\"{key}\""), format!("'{key}'")]
        .iter()
        .any(|spelling| line.strip_prefix(spelling.as_str()).is_some_and(|rest| rest.trim_start().starts_with(':')))
}

/// Reads a value of known type, its scalars as text.
struct TypedReader<'a> {
    value_type: &'a ValueType,
    merged: &'a RefCell<Merged>,
}

impl<'de> DeserializeSeed<'de> for TypedReader<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.value_type {
            ValueType::Null => IgnoredAny::deserialize(deserializer).map(|_| Node::Null),
            ValueType::Tagged => IgnoredAny::deserialize(deserializer).map(|_| Node::Tagged),
            ValueType::Scalar => String::deserialize(deserializer).map(Node::Text),
            ValueType::List(items) => deserializer.deserialize_seq(ListVisitor { types: items, merged: self.merged }),
            ValueType::Map(values) => deserializer.deserialize_map(MapVisitor { types: values, merged: self.merged }),
        }
    }
}

struct ListVisitor<'a> {
    types: &'a [ValueType],
    merged: &'a RefCell<Merged>,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::with_capacity(self.types.len());
        for value_type in self.types {
            items.extend(seq.next_element_seed(TypedReader { value_type, merged: self.merged })?);
        }
        Ok(Node::List(items))
    }
}

struct MapVisitor<'a> {
    types: &'a [ValueType],
    merged: &'a RefCell<Merged>,
}

impl<'de> Visitor<'de> for MapVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::with_capacity(self.types.len());
        let mut seen = HashSet::new();
        for value_type in self.types {
            let Some(key) = map.next_key::<String>()? else { break };
            if key != MERGE && !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate entry with key {key:?}")));
            }
            entries.push((key, map.next_value_seed(TypedReader { value_type, merged: self.merged })?));
        }
        merge::merge(entries, &mut self.merged.borrow_mut()).map(Node::Map).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    fn map(entries: &[(&str, Node)]) -> Node {
        Node::Map(entries.iter().map(|(key, node)| ((*key).to_owned(), node.clone())).collect())
    }

    #[test]
    fn scalars_keep_their_text() {
        for scalar in ["1", "01", "1.50", "1e3", "0x10", "0o17", "true", "Yes", ".inf", "1_000", "-0", "a b", "12:30"] {
            assert_eq!(parse(&format!("K: {scalar}")), Ok(map(&[("K", text(scalar))])), "{scalar}");
            assert_eq!(parse(&format!("K: '{scalar}'")), Ok(map(&[("K", text(scalar))])), "quoted {scalar}");
            assert_eq!(parse(&format!("- {scalar}")), Ok(Node::List(vec![text(scalar)])), "item {scalar}");
        }
    }

    #[test]
    fn values_of_every_type_are_read() {
        let cases = [
            ("", Node::Null),
            ("# only a comment\n", Node::Null),
            ("---\n", Node::Null),
            ("A:\nB: ~\nC: null", map(&[("A", Node::Null), ("B", Node::Null), ("C", Node::Null)])),
            ("A: ''", map(&[("A", text(""))])),
            ("A: [1, ~, {b: c}]", map(&[("A", Node::List(vec![text("1"), Node::Null, map(&[("b", text("c"))])]))])),
            ("{\"a\":{\"b\":80,\"c\":[]}}", map(&[("a", map(&[("b", text("80")), ("c", Node::List(vec![]))]))])),
            ("{\n\t\"a\": {\n\t\t\"b\": \"c\"\n\t}\n}\n", map(&[("a", map(&[("b", text("c"))]))])),
            ("A: &x [1]\nB: *x", map(&[("A", Node::List(vec![text("1")])), ("B", Node::List(vec![text("1")]))])),
            ("A: &x 1e3\nB: *x", map(&[("A", text("1e3")), ("B", text("1e3"))])),
            ("A: !Ref x\nB: 1", map(&[("A", Node::Tagged), ("B", text("1"))])),
            ("A: !Ref [x, y]\nB: 1", map(&[("A", Node::Tagged), ("B", text("1"))])),
            ("1: a\ntrue: b", map(&[("1", text("a")), ("true", text("b"))])),
            ("\u{feff}A: 1\nB: 2", map(&[("A", text("1")), ("B", text("2"))])),
            ("\u{feff}# c\nA: 1\nB: 2", map(&[("A", text("1")), ("B", text("2"))])),
            ("\u{feff}%YAML 1.1\n---\nA: 1\n...\n", map(&[("A", text("1"))])),
            ("--- # c\nA: 1\n... # end\n...\n", map(&[("A", text("1"))])),
            ("--- {A: 1}", map(&[("A", text("1"))])),
            ("&a A: 1\nB: *a", map(&[("A", text("1")), ("B", text("A"))])),
        ];
        for (yaml, expected) in cases {
            assert_eq!(parse(yaml), Ok(expected), "{yaml:?}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let cases = [
            ("A: 1\nB: [1, 2\nC: 3\n", 2..=3),
            ("A: 1\n\tB: 2\n", 2..=2),
            ("A: 1\nB: 2\nA: 3\n", 1..=3),
            ("A: \"x\nB: 1\n", 1..=3),
            ("A: 1\n[a]: 1\n", 1..=2),
            ("A: *gone\n", 1..=1),
        ];
        for (yaml, lines) in cases {
            let error = parse(yaml).expect_err(yaml);
            assert!(error.line.is_some_and(|line| lines.contains(&line)), "{yaml:?}: {error:?}");
        }
        for two in ["A: 1\n---\nB: 2\n", "---\nA: 1\n---\n", "A: 1\n...\nB: 2\n"] {
            let error = parse(two).expect_err("two documents");
            assert_eq!(error.text, "more than one document: expected one, with `---` only at its start");
        }
    }

    #[test]
    fn an_alias_bomb_is_rejected() {
        let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            yaml.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(parse(&yaml).is_err());
        // Few enough aliases for the YAML library, which does not count what they expand to.
        let many = |what: &str, count| vec![what; count].join(", ");
        let yaml = format!("a: &a [{}]\nb: &b [{}]\nc: [{}]\n", many("x", 600), many("*a", 400), many("*b", 300));
        let error = parse(&yaml).expect_err("72 million values");
        assert!(error.text.contains("more than 100000 values"), "{error:?}");
        // The same with merged maps.
        let wide: Vec<String> = (0..600).map(|number| format!("k{number}: x")).collect();
        let yaml =
            format!("a: &a {{{}}}\nb: &b [{}]\nc: {{<<: [{}]}}\n", wide.join(", "), many("*a", 90), many("*b", 20));
        let error = parse(&yaml).expect_err("a million values");
        assert!(error.text.contains("more than 100000 values"), "{error:?}");
    }

    #[test]
    fn lines_are_found_by_key() {
        let yaml = "# A: 0\nA: 1\n\nLIST:\n  # back: no\n  back:\n    baseName: x\n    serverPort: 0\n  \"other\":\n    \
                    baseName: y\n'C' : 3\nFLOW: {back: {baseName: z}}\n";
        let cases: &[(&[&str], Option<usize>)] = &[
            (&["A"], Some(2)),
            (&["LIST"], Some(4)),
            (&["LIST", "back"], Some(6)),
            (&["LIST", "back", "serverPort"], Some(8)),
            (&["LIST", "other", "baseName"], Some(10)),
            (&["LIST", "other", "serverPort"], Some(9)),
            (&["LIST", "gone", "serverPort"], Some(4)),
            (&["C"], Some(11)),
            (&["FLOW", "back", "baseName"], Some(12)),
            (&["LIS"], None),
            (&["back"], None),
        ];
        for (keys, expected) in cases {
            assert_eq!(line_of(yaml, keys), *expected, "{keys:?}");
        }
        assert_eq!(line_of("{A: 1, B: 2}", &["B"]), None);
        assert_eq!(line_of("\u{feff}A: 1", &["A"]), Some(1));
        assert_eq!(line_of("A: 1\r\nB: 2\r\n", &["B"]), Some(2));
    }

    #[test]
    fn blank_values() {
        for blank in [Node::Null, text(""), text(" \t"), Node::List(vec![]), Node::Map(vec![])] {
            assert!(blank.is_blank(), "{blank:?}");
        }
        for full in [text("0"), Node::List(vec![Node::Null]), map(&[("a", Node::Null)]), Node::Tagged] {
            assert!(!full.is_blank(), "{full:?}");
        }
    }

    #[test]
    fn a_node_is_shown_on_one_line() {
        let node = parse("a: [1, ~, {b: !t c}]").expect("yaml");
        assert_eq!(node.to_string(), "{a: [1, null, {b: a value with a YAML tag}]}");
    }
}

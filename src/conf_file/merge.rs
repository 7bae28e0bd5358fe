//! Merge keys: `<<: *base` takes over the entries of a map or of a list of maps, as in YAML's "merge key" type and PyYAML's
//! `safe_load` (except 6.0.4, where the winner among the maps of a list depends on a key's length). The map's own keys
//! win, wherever they stand, then earlier maps of the list. Values are not merged recursively.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::Node;

/// The YAML library does not distinguish `<<` from `"<<"`, which is a plain key to PyYAML, but no setting or backend can have
/// that name.
pub(super) const MERGE: &str = "<<";

/// Hashes of the maps that are merged into others.
#[derive(Clone, Debug, Default)]
pub(super) struct Merged {
    hashes: HashSet<u64>,
    state: RandomState,
}

impl Merged {
    fn insert(&mut self, map: &Node) {
        self.hashes.insert(self.state.hash_one(map));
    }

    /// Whether the value is such a map or contains one.
    pub(super) fn contains(&self, value: &Node) -> bool {
        match value {
            Node::Map(entries) => {
                self.hashes.contains(&self.state.hash_one(value))
                    || entries.iter().any(|(_, value)| self.contains(value))
            }
            Node::List(items) => items.iter().any(|item| self.contains(item)),
            Node::Null | Node::Text(_) | Node::Tagged => false,
        }
    }
}

/// Resolves the merge keys of a map and records the merged maps in `merged`. Nested maps are already resolved, and only
/// [`MERGE`] may be a duplicate key. The error says what cannot be merged.
pub(super) fn merge(entries: Vec<(String, Node)>, merged: &mut Merged) -> Result<Vec<(String, Node)>, String> {
    if entries.iter().all(|(key, _)| key != MERGE) {
        return Ok(entries);
    }
    let (merges, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == MERGE);
    // Later layers win.
    let mut layers = Vec::with_capacity(merges.len() + 1);
    for (_, value) in merges {
        match value {
            Node::List(maps) => layers.extend(maps.into_iter().rev()),
            value => layers.push(value),
        }
    }
    let mut result: Vec<(String, Node)> = Vec::new();
    let mut indices: HashMap<String, usize> = HashMap::new();
    let mut put = |layer: Vec<(String, Node)>| {
        for (key, value) in layer {
            match indices.get(&key) {
                Some(index) => result[*index].1 = value,
                None => {
                    indices.insert(key.clone(), result.len());
                    result.push((key, value));
                }
            }
        }
    };
    for layer in layers {
        merged.insert(&layer);
        match layer {
            Node::Map(entries) => put(entries),
            _ => return Err(format!("{MERGE}: expected a map or a list of maps to merge")),
        }
    }
    put(own);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::super::{Node, parse};
    use proptest::prelude::*;

    fn shown(yaml: &str) -> String {
        parse(yaml).map_or_else(|error| error.text, |node| node.to_string())
    }

    /// Expected values are from PyYAML 6.0.2.
    #[test]
    fn maps_are_merged_as_in_pyyaml() {
        for (yaml, expected) in [
            ("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", "{a: {p: 1, q: 2}, b: {p: 1, q: 3}}"),
            ("a: &x {p: 1, q: 2}\nb:\n  q: 3\n  <<: *x\n", "{a: {p: 1, q: 2}, b: {p: 1, q: 3}}"),
            ("<<: [{a: 1, c: 1}, {a: 2, b: 2}]\n", "{a: 1, b: 2, c: 1}"),
            ("z: &z {a: 1}\n<<: [*z, {b: 2}]\n", "{b: 2, a: 1, z: {a: 1}}"),
            ("<<: {a: 1}\n<<: {a: 2, b: 2}\na: 3\n", "{a: 3, b: 2}"),
            ("<<: {a: 1}\n<<: {a: 2, b: 2}\n", "{a: 2, b: 2}"),
            ("<<: &y\n  <<: {z: 1}\n  a: 2\nb: 3\n", "{z: 1, a: 2, b: 3}"),
            (
                "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n",
                "{a: {x: 1, y: 1}, b: {x: 1, y: 2}, c: {x: 1, y: 2, z: 3}}",
            ),
            // Nested maps are not merged.
            ("a: &a {x: {p: 1}}\nb: {<<: *a, x: {q: 2}}\n", "{a: {x: {p: 1}}, b: {x: {q: 2}}}"),
            ("x: [{<<: {a: 1}}]\n", "{x: [{a: 1}]}"),
            ("<<: []\n", "{}"),
            ("a: <<\n", "{a: <<}"),
        ] {
            assert_eq!(shown(yaml), expected, "{yaml:?}");
        }
    }

    #[test]
    fn only_maps_can_be_merged() {
        for yaml in ["<<: 1\n", "<<:\n", "<<: [1]\n", "<<: [[{a: 1}]]\n", "<<: !t {a: 1}\n", "a: &a x\nb: {<<: *a}\n"] {
            assert!(shown(yaml).contains("<<: expected a map or a list of maps"), "{yaml:?}: {}", shown(yaml));
        }
        assert!(shown("a: 1\n<<: {b: 1}\na: 2\n").contains("duplicate entry with key \"a\""));
    }

    proptest! {
        #[test]
        fn own_keys_win_and_the_rest_is_merged(
            base in prop::collection::btree_map("[a-d]", 0..9u8, 0..4),
            own in prop::collection::btree_map("[a-d]", 0..9u8, 0..4),
            first in any::<bool>(),
        ) {
            let flow = |map: &std::collections::BTreeMap<String, u8>| {
                map.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
            };
            let (merge, own_text) = (format!("<<: {{{}}}", flow(&base)), flow(&own));
            let parts = if first { [merge, own_text] } else { [own_text, merge] };
            let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
            let Ok(Node::Map(found)) = parse(&format!("{{{}}}", parts.join(", "))) else { panic!("no map") };
            let mut expected = base;
            expected.extend(own);
            let found: std::collections::BTreeMap<_, _> = found.into_iter().map(|(key, node)| (key, node.to_string())).collect();
            prop_assert_eq!(found, expected.into_iter().map(|(key, value)| (key, value.to_string())).collect());
        }
    }
}

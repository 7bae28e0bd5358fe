//! Caches parsed parts of the previous response, so that unchanged parts are not parsed again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use twox_hash::XxHash3_128;

use crate::aws::random::random;

/// Parsed parts of the previous and the current response, keyed by a 128-bit hash of their bytes with a seed of this
/// process's own: two different parts collide with a probability of 10⁻³⁸.
pub(crate) struct ParseCache<T> {
    seed: u64,
    previous: RefCell<HashMap<u128, Arc<T>>>,
    current: RefCell<HashMap<u128, Arc<T>>>,
    buffer: RefCell<Vec<u8>>,
}

/// The largest buffer kept for reuse, in bytes: enough for a page of a scan.
const MAX_BUFFER: usize = 2 * 1024 * 1024;

impl<T> Default for ParseCache<T> {
    fn default() -> Self {
        ParseCache {
            seed: random(),
            previous: RefCell::default(),
            current: RefCell::default(),
            buffer: RefCell::default(),
        }
    }
}

impl<T> ParseCache<T> {
    /// Starts a new response, and drops what was not in the previous one.
    pub(crate) fn next_response(&self) {
        self.previous.swap(&self.current);
        self.current.borrow_mut().clear();
    }

    /// Takes the reusable read buffer, which may hold old data.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffer.take()
    }

    pub(crate) fn recycle(&self, buffer: Vec<u8>) {
        if buffer.capacity() <= MAX_BUFFER {
            self.buffer.replace(buffer);
        }
    }

    /// The parsed `part`; calls `parse` if it is in neither response. Errors are not cached.
    pub(crate) fn get_or_parse(
        &self,
        part: &[u8],
        parse: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        let key = XxHash3_128::oneshot_with_seed(self.seed, part);
        let mut current = self.current.borrow_mut();
        let parsed = match self.previous.borrow_mut().remove(&key) {
            Some(parsed) => parsed,
            None => match current.get(&key) {
                Some(parsed) => return Ok(Arc::clone(parsed)),
                None => Arc::new(parse()?),
            },
        };
        current.insert(key, Arc::clone(&parsed));
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_parsed_once_while_it_recurs() {
        let cache = ParseCache::default();
        let reads = |parts: &str| {
            cache.next_response();
            let mut read = String::new();
            for part in parts.split(' ') {
                let said = cache.get_or_parse(part.as_bytes(), || {
                    read.push_str(part);
                    if part == "bad" { Err(part.to_string()) } else { Ok(part.to_string()) }
                });
                assert_eq!(said.map_or_else(|error| error, |said| said.to_string()), part);
            }
            read
        };
        for (parts, read) in [("a b a", "ab"), ("b", ""), ("b a", "a"), ("bad", "bad"), ("bad", "bad"), ("a b", "ab")] {
            assert_eq!(reads(parts), read, "{parts}");
        }
    }
}

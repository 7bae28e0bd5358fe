//! Remembers what the parts of the last answer said, so that a part that comes again is not taken apart again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use twox_hash::XxHash3_128;

use crate::aws::random::random;

/// What the parts of the last answer said, by their bytes. Two parts are taken for the same by 128 bits of a hash with a
/// seed of this process's own: of two that differ, one pair in 10³⁸ is.
pub(crate) struct Memory<T> {
    seed: u64,
    last: RefCell<HashMap<u128, Arc<T>>>,
    now: RefCell<HashMap<u128, Arc<T>>>,
    buffer: RefCell<Vec<u8>>,
}

/// The largest buffer that is kept: what a page of a scan takes.
const LARGEST: usize = 2 * 1024 * 1024;

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Memory { seed: random(), last: RefCell::default(), now: RefCell::default(), buffer: RefCell::default() }
    }
}

impl<T> Memory<T> {
    /// A new answer begins. What was in the last one is remembered, what was only in an earlier one is not.
    pub(crate) fn turn(&self) {
        self.last.swap(&self.now);
        self.now.borrow_mut().clear();
    }

    /// A buffer to read into, with whatever the last reader left in it: its memory is used again.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffer.take()
    }

    /// Takes the buffer back.
    pub(crate) fn keep(&self, buffer: Vec<u8>) {
        if buffer.capacity() <= LARGEST {
            self.buffer.replace(buffer);
        }
    }

    /// What `part` says: `read` is asked where it was in neither answer. What cannot be read is not remembered.
    pub(crate) fn of(&self, part: &[u8], read: impl FnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        let key = XxHash3_128::oneshot_with_seed(self.seed, part);
        let mut now = self.now.borrow_mut();
        let said = match self.last.borrow_mut().remove(&key) {
            Some(said) => said,
            None => match now.get(&key) {
                Some(said) => return Ok(Arc::clone(said)),
                None => Arc::new(read()?),
            },
        };
        now.insert(key, Arc::clone(&said));
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_once_as_long_as_it_comes_again() {
        let memory = Memory::default();
        let reads = |parts: &str| {
            memory.turn();
            let mut read = String::new();
            for part in parts.split(' ') {
                let said = memory.of(part.as_bytes(), || {
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

//! Detects pagination that never ends.

use std::collections::HashSet;

/// More pages than any real response has: 10,000 slots take 3, 100,000 instances 100.
const MAX_PAGES: usize = 10_000;

#[derive(Default)]
pub(crate) struct PageTokens {
    seen: HashSet<String>,
}

impl PageTokens {
    /// Records the token of the next page. Errors: a repeated token, or too many pages; the result is then incomplete.
    pub(crate) fn follow(&mut self, token: &str) -> Result<(), String> {
        if self.seen.len() >= MAX_PAGES {
            return Err(format!("it has more than {MAX_PAGES} pages"));
        }
        if self.seen.insert(token.to_string()) { Ok(()) } else { Err("its page tokens repeat".to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_never_end_are_an_error() {
        let mut pages = PageTokens::default();
        assert_eq!(pages.follow("a"), Ok(()));
        assert_eq!(pages.follow("b"), Ok(()));
        assert!(pages.follow("a").is_err());
        let mut pages = PageTokens::default();
        for page in 0..MAX_PAGES {
            assert_eq!(pages.follow(&page.to_string()), Ok(()));
        }
        assert!(pages.follow("one more").is_err());
    }
}

//! Follows the pages of a long answer, and notices when they never end.

use std::collections::HashSet;

/// More pages than any real answer has: 10,000 slots fit into 3, 100,000 instances into 100.
const MOST_PAGES: usize = 10_000;

/// The tokens of the pages followed so far.
#[derive(Default)]
pub(crate) struct Pages {
    seen: HashSet<String>,
}

impl Pages {
    /// Notes the token of the next page. The error is a token that came before, or one too many:
    /// what was read so far is then no whole answer.
    pub(crate) fn follow(&mut self, token: &str) -> Result<(), String> {
        if self.seen.len() >= MOST_PAGES {
            return Err(format!("it has more than {MOST_PAGES} pages"));
        }
        if self.seen.insert(token.to_string()) { Ok(()) } else { Err("its pages go in a circle".to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_never_end_are_an_error() {
        let mut pages = Pages::default();
        assert_eq!(pages.follow("a"), Ok(()));
        assert_eq!(pages.follow("b"), Ok(()));
        assert!(pages.follow("a").is_err());
        let mut pages = Pages::default();
        for page in 0..MOST_PAGES {
            assert_eq!(pages.follow(&page.to_string()), Ok(()));
        }
        assert!(pages.follow("one more").is_err());
    }
}

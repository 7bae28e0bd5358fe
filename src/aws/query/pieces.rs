//! Reads a large XML response of which little changes between polls: it is cut into pieces, and a piece whose bytes were
//! in the previous response is not parsed again.
//!
//! DescribeInstances takes about 5 KB an instance, of which three fields matter and hardly one ever changes. A piece that
//! is not found, or is too long, is parsed with the rest of the document: cutting saves time and decides nothing.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use memchr::memmem::Finder;

use crate::aws::reading::parse_cache::ParseCache;
use crate::aws::reading::xml;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// The most bytes searched for the end of a piece. An instance takes 5 KB, a member of a group half a kilobyte.
const MAX_PIECE: usize = 1024 * 1024;
/// Stands in the document for a piece that was cut out.
const MARK: &[u8] = b"<hsdo-piece/>";
/// The name of the element [`MARK`].
pub(crate) const PIECE: &str = "hsdo-piece";

/// Where a piece begins and ends. What lies between is balanced, and appears nowhere else in AWS's XML, which has no
/// comments and no CDATA sections.
pub(crate) struct Cut {
    /// The first tag of a piece.
    pub(crate) from: &'static str,
    /// The last tag of a piece.
    pub(crate) to: &'static str,
    /// The path of the enclosing element. A piece found elsewhere is an error.
    pub(crate) inside: &'static str,
}

/// Matches no document, so nothing is cut.
#[cfg(any(test, fuzzing))]
pub(crate) const NOTHING: Cut = Cut { from: "<hsdo-nothing>", to: "</hsdo-nothing>", inside: "" };

/// Parses a piece, which is wrapped in an element `piece` to make it a document.
pub(crate) type ReadPiece<'a, T> = &'a dyn Fn(&mut dyn BufRead) -> Result<T, String>;

/// Walks `input` as [`xml::walk`] does, with an element [`PIECE`] in place of each piece. Returns the parsed pieces in
/// document order; `read` is called for those that `cache` does not hold.
pub(crate) fn walk<T>(
    input: &mut dyn BufRead,
    cut: &Cut,
    cache: &ParseCache<T>,
    read: ReadPiece<'_, T>,
    on_element: &mut dyn FnMut(&str, &str) -> Result<(), String>,
) -> Result<Vec<Arc<T>>, String> {
    let mut buffer = cache.buffer();
    buffer.clear();
    let (from, to) = (Finder::new(cut.from), Finder::new(cut.to));
    let (output, pieces) = (VecDeque::new(), Vec::new());
    let mut skeleton =
        BufReader::new(Skeleton { input, from, to, cache, read, buffer, start: 0, at_end: false, output, pieces });
    let mut marks = 0;
    let walked = xml::walk(&mut skeleton, &mut |path, text| {
        let parent = path.strip_suffix(PIECE).and_then(|path| path.strip_suffix('/'));
        marks += usize::from(parent == Some(cut.inside));
        on_element(path, text)
    });
    let Skeleton { buffer, pieces, .. } = skeleton.into_inner();
    cache.recycle(buffer);
    walked?;
    if marks == pieces.len() { Ok(pieces) } else { Err(format!("it has {} in an unexpected place", cut.from)) }
}

/// A document with a mark in place of each piece. Pieces are parsed as they come by.
struct Skeleton<'a, T> {
    input: &'a mut dyn BufRead,
    from: Finder<'a>,
    to: Finder<'a>,
    cache: &'a ParseCache<T>,
    read: ReadPiece<'a, T>,
    /// Input not yet processed, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Whether `input` has ended.
    at_end: bool,
    /// What the reader gets next.
    output: VecDeque<u8>,
    pieces: Vec<Arc<T>>,
}

impl<T> Skeleton<'_, T> {
    /// Processes the input up to the end of the next piece, up to its own end, or as far as a piece may reach.
    fn advance(&mut self) -> io::Result<()> {
        let mut searched = 0;
        let found = loop {
            let rest = &self.buffer[self.start..];
            if let Some(place) = self.to.find(&rest[searched..]) {
                break Some(searched + place + self.to.needle().len());
            }
            if self.at_end || rest.len() > MAX_PIECE {
                break None;
            }
            searched = (rest.len() + 1).saturating_sub(self.to.needle().len());
            self.buffer.drain(..std::mem::take(&mut self.start));
            let count = (&mut self.input).take(CHUNK as u64).read_to_end(&mut self.buffer)?;
            self.at_end = count < CHUNK;
        };
        let segment = &self.buffer[self.start..];
        let segment = &segment[..found.unwrap_or(segment.len())];
        self.start += segment.len();
        match found.and_then(|_| self.from.find(segment)) {
            None => self.output.extend(segment),
            Some(place) => {
                let (before, piece) = segment.split_at(place);
                let parse = || (self.read)(&mut b"<piece>".chain(piece).chain(&b"</piece>"[..]));
                self.pieces.push(self.cache.get_or_parse(piece, parse).map_err(io::Error::other)?);
                self.output.extend(before);
                self.output.extend(MARK);
            }
        }
        Ok(())
    }
}

impl<T> Read for Skeleton<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.output.is_empty() {
            self.advance()?;
        }
        self.output.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const CUT: Cut = Cut { from: "<id>", to: "</set>", inside: "a/item" };

    /// The texts of all `v` elements in document order, and how many pieces were parsed.
    fn values(document: &str, chunk: usize, cache: &ParseCache<Vec<String>>) -> Result<(Vec<String>, usize), String> {
        let reads = Cell::new(0);
        let read = |piece: &mut dyn BufRead| {
            reads.set(reads.get() + 1);
            let mut texts = Vec::new();
            xml::walk(piece, &mut |path, text| {
                texts.extend((path == "piece/set/v").then(|| text.to_string()));
                Ok(())
            })?;
            Ok(texts)
        };
        let mut places = Vec::new();
        let mut input = BufReader::with_capacity(chunk, Slow(document.as_bytes(), chunk));
        let pieces = walk(&mut input, &CUT, cache, &read, &mut |path, text| {
            match path {
                "a/item/hsdo-piece" => places.push(None),
                "a/item/set/v" => places.push(Some(text.to_string())),
                _ => {}
            }
            Ok(())
        })?;
        let mut pieces = pieces.iter();
        let text = |place: Option<String>| match place {
            Some(text) => vec![text],
            None => pieces.next().expect("a piece for each mark").to_vec(),
        };
        Ok((places.into_iter().flat_map(text).collect(), reads.get()))
    }

    /// Returns a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    fn item(value: &str) -> String {
        format!("<item>\n <id>i</id><set><v>{value}</v><w><v>no</v></w></set>\n</item>")
    }

    fn document(values: &[String]) -> String {
        let items: String = values.iter().map(|value| item(value)).collect();
        format!("<?xml version=\"1.0\"?>\n<a><r>1</r>{items}<t/></a>\n")
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_the_result(old in prop::collection::vec("[a-c]{0,3}", 0..6),
                                         new in prop::collection::vec("[a-c]{0,3}", 0..6), chunk in 1_usize..200) {
            let cache = ParseCache::default();
            for values_now in [&old, &new, &new] {
                cache.next_response();
                let (found, _) = values(&document(values_now), chunk, &cache).expect("a document");
                prop_assert_eq!(&found, values_now);
            }
            cache.next_response();
            prop_assert_eq!(values(&document(&new), chunk, &cache).expect("a document").1, 0, "nothing is new");
        }

        #[test]
        fn every_truncated_document_is_an_error(at in 0_usize..200, chunk in 1_usize..64) {
            let whole = document(&["1".to_string(), "2".to_string()]);
            let cut = &whole[..at.min(whole.len() - 6)];
            prop_assert!(values(cut, chunk, &ParseCache::default()).is_err(), "{}", cut);
        }
    }

    #[test]
    fn only_new_pieces_are_parsed() {
        let cache = ParseCache::default();
        let texts = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        for (now, reads) in [("1 2 3", 3), ("1 2 3", 0), ("3 1", 0), ("1 4 3 4", 1), ("2 1", 1)] {
            cache.next_response();
            assert_eq!(values(&document(&texts(now)), 50, &cache), Ok((texts(now), reads)), "{now}");
        }
    }

    #[test]
    fn an_oversized_or_odd_piece_is_parsed_with_the_rest() {
        let long = "x".repeat(MAX_PIECE);
        let longest = document(&["1".to_string(), long.clone(), "2".to_string()]);
        let odd = "<a><item><set><v>1</v></set></item><item><id>i</id><set ><v>2</v></set ></item></a>";
        for (document, expected) in [(longest.as_str(), vec!["1", &long, "2"]), (odd, vec!["1", "2"])] {
            let (found, _) = values(document, CHUNK, &ParseCache::default()).expect("a document");
            assert!(found == expected, "{} bytes", document.len());
        }
    }

    #[test]
    fn a_piece_in_an_unexpected_place_is_an_error() {
        for bad in [
            "<a><item><hsdo-piece/></item></a>",
            "<a><item><id>i</id><set/></set></item></a>",
            "<a><id>i</id><set></set></a>",
            "<a><item><b><id>i</id><set></set></b></item></a>",
        ] {
            assert!(values(bad, 9, &ParseCache::default()).is_err(), "{bad}");
        }
    }
}

//! Reads a large document of which little changes from one answer to the next: it is cut into pieces, and a piece whose
//! bytes were there in the last answer is not taken apart again.
//!
//! DescribeInstances takes some 5 KB an instance, of which three fields matter and hardly one ever changes. A piece that
//! is not found, or is too long, is read with the rest of the document: cutting saves time and decides nothing.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use memchr::memmem::Finder;

use crate::aws::reading::memory::Memory;
use crate::aws::reading::xml;

/// How much is read at a time, at least.
const CHUNK: usize = 64 * 1024;
/// The longest piece; what is longer is read with the rest of the document. An instance takes 5 KB, a member of a group
/// half a kilobyte.
const LONGEST: usize = 1024 * 1024;
/// What stands in the document for a piece that was cut out, and the name of that element.
const MARK: &[u8] = b"<hsdo-piece/>";
/// The element that stands in the document for a piece.
pub(crate) const PIECE: &str = "hsdo-piece";

/// Where a piece begins and ends. What lies between is balanced, and stands nowhere else in AWS's XML, which has no
/// comments and no CDATA sections.
pub(crate) struct Cut {
    /// The tag that it begins with, which is part of it.
    pub(crate) from: &'static str,
    /// The tag that it ends with, which is part of it.
    pub(crate) to: &'static str,
    /// The path of the element that it is part of. One that is found elsewhere is an error.
    pub(crate) inside: &'static str,
}

/// What no document has: nothing is cut.
#[cfg(any(test, fuzzing))]
pub(crate) const NOTHING: Cut = Cut { from: "<hsdo-nothing>", to: "</hsdo-nothing>", inside: "" };

/// Reads a piece; it comes as the content of an element `piece`, so that it is a document.
pub(crate) type ReadPiece<'a, T> = &'a dyn Fn(&mut dyn BufRead) -> Result<T, String>;

/// Walks `input` as [`xml::walk`] does, with an element [`PIECE`] in the place of each piece that was cut out. Gives what
/// the pieces said, in their order; `read` is asked about those that `memory` does not know.
pub(crate) fn walk<T>(
    input: &mut dyn BufRead,
    cut: &Cut,
    memory: &Memory<T>,
    read: ReadPiece<'_, T>,
    on: &mut dyn FnMut(&str, &str) -> Result<(), String>,
) -> Result<Vec<Arc<T>>, String> {
    let mut rest = Rest {
        input,
        from: Finder::new(cut.from),
        to: Finder::new(cut.to),
        memory,
        read,
        buffer: memory.buffer(),
        at: 0,
        end: 0,
        ready: 0,
        searched: 0,
        over: false,
        mark: &[],
        pieces: Vec::new(),
    };
    let mut marks = 0;
    let walked = xml::walk(&mut rest, &mut |path, text| {
        let parent = path.strip_suffix(PIECE).and_then(|path| path.strip_suffix('/'));
        marks += usize::from(parent == Some(cut.inside));
        on(path, text)
    });
    memory.keep(std::mem::take(&mut rest.buffer));
    walked?;
    if marks == rest.pieces.len() { Ok(rest.pieces) } else { Err(format!("it has {} in an odd place", cut.from)) }
}

/// A document without its pieces, which are read as they come by.
struct Rest<'a, T> {
    input: &'a mut dyn BufRead,
    from: Finder<'a>,
    to: Finder<'a>,
    memory: &'a Memory<T>,
    read: ReadPiece<'a, T>,
    /// What was read and not handed on yet goes from `at` to `end`; the first `ready` bytes of it are no piece.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    ready: usize,
    /// How much of the piece that begins at `at` was searched for its end.
    searched: usize,
    /// Whether `input` has ended.
    over: bool,
    /// What is left to hand on of the mark of a piece.
    mark: &'static [u8],
    pieces: Vec<Arc<T>>,
}

impl<T> Rest<'_, T> {
    fn more(&mut self) -> io::Result<()> {
        // A long piece that comes in many parts is not moved with each of them.
        if self.buffer.len() < self.end + CHUNK {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
        }
        if self.buffer.len() < self.end + CHUNK {
            self.buffer.resize(self.end + 2 * CHUNK, 0);
        }
        let count = self.input.read(&mut self.buffer[self.end..])?;
        self.over = count == 0;
        self.end += count;
        Ok(())
    }

    fn read_piece(&self, length: usize) -> Result<Arc<T>, String> {
        let piece = &self.buffer[self.at..self.at + length];
        self.memory.of(piece, || (self.read)(&mut b"<piece>".chain(piece).chain(&b"</piece>"[..])))
    }

    /// Finds out what comes next: `ready` bytes, or a mark; neither is the end.
    fn advance(&mut self) -> io::Result<()> {
        while self.ready == 0 && self.mark.is_empty() {
            let rest = &self.buffer[self.at..self.end];
            let from = self.from.needle().len();
            if rest.starts_with(self.from.needle()) {
                let begin = self.searched.max(from);
                if let Some(end) = self.to.find(&rest[begin..]) {
                    let length = begin + end + self.to.needle().len();
                    let said = self.read_piece(length).map_err(io::Error::other)?;
                    self.pieces.push(said);
                    (self.at, self.searched, self.mark) = (self.at + length, 0, MARK);
                } else if self.over || rest.len() > LONGEST {
                    (self.ready, self.searched) = (from, 0);
                } else {
                    self.searched = rest.len().saturating_sub(self.to.needle().len());
                    self.more()?;
                }
                continue;
            }
            match self.from.find(rest) {
                Some(place) => self.ready = place,
                None if self.over && rest.is_empty() => return Ok(()),
                None if self.over => self.ready = rest.len(),
                // The last bytes may be the first ones of a piece.
                None if rest.len() >= from => self.ready = rest.len() + 1 - from,
                None => self.more()?,
            }
        }
        Ok(())
    }
}

impl<T> Read for Rest<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<T> BufRead for Rest<'_, T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.advance()?;
        Ok(if self.mark.is_empty() { &self.buffer[self.at..self.at + self.ready] } else { self.mark })
    }

    fn consume(&mut self, count: usize) {
        if self.mark.is_empty() {
            (self.at, self.ready) = (self.at + count, self.ready - count);
        } else {
            self.mark = &self.mark[count..];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const CUT: Cut = Cut { from: "<id>", to: "</set>", inside: "a/item" };

    /// The texts of all `v` elements, pieces first read alone and then joined in their place, and how many were read.
    fn values(document: &str, chunk: usize, memory: &Memory<Vec<String>>) -> Result<(Vec<String>, usize), String> {
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
        let mut input = io::BufReader::with_capacity(chunk, Slow(document.as_bytes(), chunk));
        let pieces = walk(&mut input, &CUT, memory, &read, &mut |path, text| {
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

    /// Gives a few bytes at a time.
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
        fn with_and_without_pieces_alike(old in prop::collection::vec("[a-c]{0,3}", 0..6),
                                         new in prop::collection::vec("[a-c]{0,3}", 0..6), chunk in 1_usize..200) {
            let memory = Memory::default();
            for values_now in [&old, &new, &new] {
                memory.turn();
                let (found, _) = values(&document(values_now), chunk, &memory).expect("a document");
                prop_assert_eq!(&found, values_now);
            }
            memory.turn();
            prop_assert_eq!(values(&document(&new), chunk, &memory).expect("a document").1, 0, "nothing is new");
        }

        #[test]
        fn every_cut_of_a_document_is_an_error(at in 0_usize..200, chunk in 1_usize..64) {
            let whole = document(&["1".to_string(), "2".to_string()]);
            let cut = &whole[..at.min(whole.len() - 6)];
            prop_assert!(values(cut, chunk, &Memory::default()).is_err(), "{}", cut);
        }
    }

    #[test]
    fn only_what_is_new_is_read() {
        let memory = Memory::default();
        let texts = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        for (now, reads) in [("1 2 3", 3), ("1 2 3", 0), ("3 1", 0), ("1 4 3 4", 1), ("2 1", 1)] {
            memory.turn();
            assert_eq!(values(&document(&texts(now)), 50, &memory), Ok((texts(now), reads)), "{now}");
        }
    }

    #[test]
    fn what_cannot_be_cut_out_is_read_with_the_rest() {
        let long = "x".repeat(LONGEST);
        let longest = document(&["1".to_string(), long.clone(), "2".to_string()]);
        let odd = "<a><item><set><v>1</v></set></item><item><id>i</id><set ><v>2</v></set ></item></a>";
        for (document, expected) in [(longest.as_str(), vec!["1", &long, "2"]), (odd, vec!["1", "2"])] {
            let (found, _) = values(document, CHUNK, &Memory::default()).expect("a document");
            assert!(found == expected, "{} bytes", document.len());
        }
    }

    #[test]
    fn a_piece_in_an_odd_place_is_an_error() {
        for bad in [
            "<a><item><hsdo-piece/></item></a>",
            "<a><item><id>i</id><set/></set></item></a>",
            "<a><id>i</id><set></set></a>",
            "<a><item><b><id>i</id><set></set></b></item></a>",
        ] {
            assert!(values(bad, 9, &Memory::default()).is_err(), "{bad}");
        }
    }
}

//! What of a reading decides what is done, kept to compare the next reading with: HAProxy's counters are other ones with
//! each turn, what hsdo reads of its servers hardly ever is. Pure.
//!
//! The comparison takes a fraction of the work of reading: an answer is gone through once, as the bytes it came in, and
//! nothing of it is copied. Who is unsure says that the answers differ, and they are read.

use super::state::{CHECK, UNDER_WAY};

/// What `state::parse_stat` looks at.
const READ: [&str; 6] = ["svname", "status", "type", CHECK, "addr", "uweight"];

/// What of `show info` tells one process from another.
const WHO: [&[u8]; 2] = [b"Version: ", b"Pid: "];

/// What mattered of a reading.
#[derive(Debug, Default)]
pub(super) struct Essence {
    /// Who answered.
    who: Vec<u8>,
    /// A table a backend.
    tables: Vec<Table>,
}

/// What mattered of a reply to `show stat`.
#[derive(Debug, Default)]
struct Table {
    head: Vec<u8>,
    shape: Shape,
    /// The fields that are read, row after row, each with the comma that ends it.
    fields: Vec<u8>,
    /// The length of each of them, comma included.
    lengths: Vec<u16>,
}

/// Where the fields that are read stand in a row.
#[derive(Debug, Default)]
struct Shape {
    /// How many commas are between one of them and the next, before the first too.
    gaps: Vec<usize>,
    /// Which of them is the check's result.
    check: usize,
    /// How many commas follow the last.
    tail: usize,
}

impl Essence {
    /// Of the answers to `show info` and to `tables` times `show stat`, an answer a line of commands. None where it could
    /// not tell: a reply is no such table, lacks a column, or has a field in quotes.
    pub(super) fn of(answers: &[&[u8]], tables: usize) -> Option<Essence> {
        let mut who = Vec::new();
        let mut answers = Answers::new(answers);
        answers.take(|answer| {
            after_info(answer, |line| {
                who.extend_from_slice(line);
                Some(())
            })
        })?;
        let mut table = || {
            let mut table = Table::default();
            answers.take(|answer| table.learn(answer))?;
            Some(table)
        };
        let tables = (0..tables).map(|_| table()).collect::<Option<_>>()?;
        answers.end()?;
        Some(Essence { who, tables })
    }

    /// Whether these answers are those of a reading with the same essence.
    pub(super) fn is_that_of(&self, answers: &[&[u8]]) -> bool {
        let mut answers = Answers::new(answers);
        let mut who = self.who.as_slice();
        let same = || {
            answers.take(|answer| {
                after_info(answer, |line| {
                    who = who.strip_prefix(line)?;
                    Some(())
                })
            })?;
            self.tables.iter().try_for_each(|table| answers.take(|answer| table.after(answer)))?;
            answers.end()
        };
        same().is_some() && who.is_empty()
    }
}

/// Answers that are gone through from reply to reply.
struct Answers<'a> {
    rest: &'a [u8],
    more: std::slice::Iter<'a, &'a [u8]>,
}

impl<'a> Answers<'a> {
    fn new(answers: &'a [&'a [u8]]) -> Self {
        Answers { rest: &[], more: answers.iter() }
    }

    /// Gives `reader` what begins with the next reply; it gives back what follows that.
    fn take(&mut self, reader: impl FnOnce(&'a [u8]) -> Option<&'a [u8]>) -> Option<()> {
        if self.rest.is_empty() {
            self.rest = self.more.next()?;
        }
        self.rest = reader(self.rest)?;
        Some(())
    }

    /// Nothing is left.
    fn end(mut self) -> Option<()> {
        (self.rest.is_empty() && self.more.next().is_none()).then_some(())
    }
}

/// Gives `see` the lines of a reply to `show info` that tell who answered; what follows the reply.
fn after_info(mut answer: &[u8], mut see: impl FnMut(&[u8]) -> Option<()>) -> Option<&[u8]> {
    loop {
        let (line, rest) = answer.split_at(memchr::memchr(b'\n', answer)? + 1);
        answer = rest;
        if line.len() == 1 {
            return Some(rest);
        }
        if WHO.iter().any(|name| line.starts_with(name)) {
            see(line)?;
        }
    }
}

impl Table {
    /// Takes in a reply to `show stat`; what follows it.
    fn learn<'a>(&mut self, answer: &'a [u8]) -> Option<&'a [u8]> {
        let (head, rows) = answer.split_at(memchr::memchr(b'\n', answer)? + 1);
        self.head.extend_from_slice(head);
        self.shape = Shape::of(std::str::from_utf8(head).ok()?.trim_end_matches('\n'))?;
        self.shape.walk(rows, |bytes| {
            let field = &bytes[..=memchr::memchr(b',', bytes)?];
            self.fields.extend_from_slice(field);
            self.lengths.push(u16::try_from(field.len()).ok()?);
            Some(field.len())
        })
    }

    /// What follows this table's reply in an answer, if it begins with one of the same essence.
    fn after<'a>(&self, answer: &'a [u8]) -> Option<&'a [u8]> {
        let rows = after(answer, &self.head)?;
        let (mut fields, mut lengths) = (self.fields.as_slice(), self.lengths.iter());
        let rest = self.shape.walk(rows, |bytes| {
            let length = usize::from(*lengths.next()?);
            let (field, more) = fields.split_at_checked(length)?;
            fields = more;
            after(bytes, field).map(|_| length)
        })?;
        fields.is_empty().then_some(rest)
    }
}

impl Shape {
    fn of(head: &str) -> Option<Shape> {
        let names: Vec<&str> = head.strip_prefix("# ")?.split(',').collect();
        let place = |name: &str| names.iter().position(|other| *other == name);
        let mut places = READ.into_iter().map(place).collect::<Option<Vec<_>>>()?;
        places.sort_unstable();
        let check = places.binary_search(&place(CHECK)?).ok()?;
        let before = [0].into_iter().chain(places.iter().copied());
        let gaps = before.zip(&places).map(|(before, place)| place - before).collect();
        Some(Shape { gaps, check, tail: names.len() - 1 - places.last()? })
    }

    /// Gives `take` what stands from each of the fields on to the end of its row; it tells how long the field is, with the
    /// comma that ends it, or that this is no use. What follows the empty line at the end.
    fn walk<'a>(&self, mut rows: &'a [u8], mut take: impl FnMut(&[u8]) -> Option<usize>) -> Option<&'a [u8]> {
        loop {
            let end = memchr::memchr2(b'\n', b'"', rows)?;
            if rows[end] == b'"' {
                return None;
            }
            if end == 0 {
                return Some(&rows[1..]);
            }
            let mut place = 0;
            for (index, gap) in self.gaps.iter().enumerate() {
                place += commas(&rows[place..], *gap)?;
                let mut rest = rows.get(place..end)?;
                if index == self.check {
                    rest = rest.strip_prefix(UNDER_WAY.as_bytes()).unwrap_or(rest);
                }
                // Its comma is left for the next gap.
                place = end - rest.len() + take(rest)? - 1;
            }
            place += commas(&rows[place..], self.tail)?;
            if place != end {
                return None;
            }
            rows = &rows[end + 1..];
        }
    }
}

/// What follows `start` in `bytes`. `<[u8]>::strip_prefix`, but eight bytes at a time: musl compares one by one.
fn after<'a>(bytes: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (same, rest) = bytes.split_at_checked(start.len())?;
    let ((left, left_rest), (right, right_rest)) = (same.as_chunks::<8>(), start.as_chunks::<8>());
    let eights = left.iter().zip(right).all(|(left, right)| u64::from_ne_bytes(*left) == u64::from_ne_bytes(*right));
    let ones = left_rest.iter().zip(right_rest).all(|(left, right)| left == right);
    (eights && ones).then_some(rest)
}

/// How long `bytes` is to the end of its first `count` commas; None where it has fewer. In blocks: between two fields that
/// matter lie up to forty, most of one byte, and looking for each comma takes four times as long.
fn commas(bytes: &[u8], mut count: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut rest = bytes;
    while let Some((block, more)) = rest.split_first_chunk::<32>() {
        let here = usize::from(block.iter().map(|byte| u8::from(*byte == b',')).sum::<u8>());
        if here >= count {
            break;
        }
        (count, rest) = (count - here, more);
    }
    while let Some((eight, more)) = rest.split_first_chunk::<8>() {
        let other = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b','));
        // The highest bit of each byte that is a comma; then, in each byte, how many there are up to it.
        let commas = !(((other & !HIGH) + !HIGH) | other) & HIGH;
        let counts = (commas >> 7).wrapping_mul(ONES);
        let here = (counts >> 56) as usize;
        if here >= count {
            let enough = ((counts | HIGH) - ONES * count as u64) & HIGH;
            let place = if count == 0 { 0 } else { enough.trailing_zeros() as usize / 8 + 1 };
            return Some(bytes.len() - rest.len() + place);
        }
        (count, rest) = (count - here, more);
    }
    while count > 0 {
        let (byte, more) = rest.split_first()?;
        (count, rest) = (count - usize::from(*byte == b','), more);
    }
    Some(bytes.len() - rest.len())
}

#[cfg(test)]
#[path = "essence_tests.rs"]
mod tests;

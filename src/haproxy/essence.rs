//! What of `show stat` tells whether anything changed, kept to compare the next answer with: HAProxy's counters are other ones
//! with each turn, what counts for hsdo hardly ever is. Pure.
//!
//! The comparison takes a fraction of the work of reading: an answer is gone through once, as the bytes it came in, and
//! nothing of it is copied. Who is unsure says that the answers differ, and they are read.

use super::columns::Columns;

/// The columns of `show stat` that tell whether anything changed: who is there, where, how, and at which weight. The last one is
/// not there on 2.2, of which nothing can be told without reading.
pub(super) const READ: [&str; 5] = ["svname", "type", "status", "addr", WEIGHT];
pub(super) const WEIGHT: &str = "uweight";

/// What of `show info` tells one process from another.
const WHO: [&[u8]; 3] = [b"Version: ", b"Pid: ", b"Start_time_sec: "];

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
    columns: Columns,
    /// The fields that are read, row after row, each with the comma that ends it.
    fields: Vec<u8>,
    /// The length of each of them, comma included.
    lengths: Vec<u16>,
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
        let names = std::str::from_utf8(head).ok()?.strip_prefix("# ")?.trim_end_matches('\n');
        let names: Vec<&str> = names.split(',').collect();
        let place = |name: &str| names.iter().position(|other| *other == name);
        let places = READ.into_iter().map(place).collect::<Option<Vec<_>>>()?;
        self.columns = Columns::new(&places, names.len());
        walk(&self.columns, rows, |bytes| {
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
        let rest = walk(&self.columns, rows, |bytes| {
            let length = usize::from(*lengths.next()?);
            let (field, more) = fields.split_at_checked(length)?;
            fields = more;
            after(bytes, field).map(|_| length)
        })?;
        fields.is_empty().then_some(rest)
    }
}

/// Gives `take` what stands from each wanted field on to the end of its row; it tells how long the field is, with the comma that
/// ends it, or that this is no use. What follows the empty line at the end.
fn walk<'a>(columns: &Columns, mut rows: &'a [u8], mut take: impl FnMut(&[u8]) -> Option<usize>) -> Option<&'a [u8]> {
    loop {
        let end = memchr::memchr2(b'\n', b'"', rows)?;
        if rows[end] == b'"' {
            return None;
        }
        if end == 0 {
            return Some(&rows[1..]);
        }
        columns.pass(rows, end, &mut take)?;
        rows = &rows[end + 1..];
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

#[cfg(test)]
#[path = "essence_tests.rs"]
mod tests;

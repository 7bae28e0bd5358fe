//! Small text files that other programs write: read whole, within a bound, without the mark that some editors put first.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// How much of a file is read, in bytes; a real one has a few kilobytes.
const LIMIT: u64 = 1024 * 1024;

/// Why a file has no text.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What the system said, where it was the system.
    pub(crate) kind: Option<ErrorKind>,
    /// The same in words, or what is wrong with what was read.
    pub(crate) why: String,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault { kind: Some(error.kind()), why: error.kind().to_string() }
    }
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Fault> {
    read_up_to(path, LIMIT)
}

/// The text of a file of at most `limit` bytes, a whole number of MiB.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    let fault = |why: &str| Fault { kind: None, why: why.to_string() };
    if bytes.len() as u64 > limit {
        return Err(fault(&format!("it is larger than {} MiB", limit >> 20)));
    }
    text(bytes).map_err(fault)
}

/// The text of these bytes.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, &'static str> {
    // Without a mark, half of the bytes of a text in UTF-16 are zero.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
        return Err("it is in UTF-16, or no text: save it as UTF-8");
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not in UTF-8: save it so")?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_left_out_and_other_encodings_are_named() {
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for (bytes, expected) in [
            ("[a]\n".as_bytes().to_vec(), Ok("[a]\n")),
            ("\u{feff}[ä]\n".as_bytes().to_vec(), Ok("[ä]\n")),
            (Vec::new(), Ok("")),
            (utf_16("\u{feff}[a]", u16::to_le_bytes), Err("UTF-16")),
            (utf_16("\u{feff}[a]", u16::to_be_bytes), Err("UTF-16")),
            (utf_16("[a]", u16::to_le_bytes), Err("UTF-16")),
            (vec![b'[', 0xe4, b']'], Err("not in UTF-8")),
        ] {
            match (text(bytes), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (read, expected) => panic!("{read:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn what_the_system_says_is_told_apart_from_what_is_read() {
        assert_eq!(read(Path::new("/nonexistent")).expect_err("no file").kind, Some(ErrorKind::NotFound));
        assert_eq!(read(Path::new("/")).expect_err("no file").kind, Some(ErrorKind::IsADirectory));
        assert_eq!(read(Path::new("/dev/zero")).expect_err("no end").why, "it is larger than 1 MiB");
    }
}

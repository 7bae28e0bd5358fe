//! Reads small UTF-8 text files written by other programs, without a byte order mark.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Bytes; a real file has a few kilobytes.
const LIMIT: u64 = 1024 * 1024;

/// Why a file cannot be read as text.
#[derive(Debug)]
pub(crate) struct TextFileError {
    /// Set if the operating system failed to read it.
    pub(crate) kind: Option<ErrorKind>,
    pub(crate) why: String,
}

impl From<io::Error> for TextFileError {
    fn from(error: io::Error) -> Self {
        TextFileError { kind: Some(error.kind()), why: error.kind().to_string() }
    }
}

/// Reads a file of at most 1 MiB.
pub(crate) fn read(path: &Path) -> Result<String, TextFileError> {
    read_up_to(path, LIMIT)
}

/// Reads a file of at most `limit` bytes, a whole number of MiB.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> Result<String, TextFileError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    let fault = |why: &str| TextFileError { kind: None, why: why.to_string() };
    if bytes.len() as u64 > limit {
        return Err(fault(&format!("larger than {} MiB", limit >> 20)));
    }
    decode(bytes).map_err(fault)
}

/// Decodes UTF-8.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<String, &'static str> {
    // UTF-16 without a byte order mark contains zero bytes.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
        return Err("UTF-16 or binary data: save it as UTF-8");
    }
    let text = String::from_utf8(bytes).map_err(|_| "not valid UTF-8: save it as UTF-8")?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_stripped_and_other_encodings_are_reported() {
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for (bytes, expected) in [
            ("[a]\n".as_bytes().to_vec(), Ok("[a]\n")),
            ("\u{feff}[ä]\n".as_bytes().to_vec(), Ok("[ä]\n")),
            (Vec::new(), Ok("")),
            (utf_16("\u{feff}[a]", u16::to_le_bytes), Err("UTF-16")),
            (utf_16("\u{feff}[a]", u16::to_be_bytes), Err("UTF-16")),
            (utf_16("[a]", u16::to_le_bytes), Err("UTF-16")),
            (vec![b'[', 0xe4, b']'], Err("not valid UTF-8")),
        ] {
            match (decode(bytes), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (read, expected) => panic!("{read:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn read_errors_and_content_errors_are_distinguished() {
        assert_eq!(read(Path::new("/nonexistent")).expect_err("no file").kind, Some(ErrorKind::NotFound));
        assert_eq!(read(Path::new("/")).expect_err("no file").kind, Some(ErrorKind::IsADirectory));
        assert_eq!(read(Path::new("/dev/zero")).expect_err("no end").why, "larger than 1 MiB");
    }
}

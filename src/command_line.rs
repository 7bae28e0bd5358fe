//! What the command lines of roles and commands have in common: flags, and standard output.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use crate::error::Error;

/// Takes the value of `--config`.
pub(crate) fn set_config(config: &mut Option<PathBuf>, path: OsString) -> Result<(), Error> {
    if path.is_empty() {
        return Err(Error::Usage("--config needs a non-empty path".to_owned()));
    }
    match config.replace(PathBuf::from(path)) {
        Some(_) => Err(Error::Usage("--config is given twice: name one file".to_owned())),
        None => Ok(()),
    }
}

/// What is wrong with a flag, in one line.
pub(crate) fn usage_error(error: &lexopt::Error) -> Error {
    use lexopt::Error as Fault;
    Error::Usage(match error {
        Fault::UnexpectedOption(flag) => format!("unknown flag {flag:?}"),
        Fault::UnexpectedArgument(argument) => format!("unexpected argument {argument:?}: hsdo accepts only flags"),
        Fault::UnexpectedValue { option, value } => format!("{option} takes no value, found {value:?}"),
        Fault::MissingValue { option } => format!("{} needs a value", option.as_deref().unwrap_or("a flag")),
        Fault::NonUnicodeValue(value) => format!("{value:?} is not UTF-8"),
        Fault::ParsingFailed { .. } | Fault::Custom(_) => error.to_string().escape_debug().to_string(),
    })
}

/// Writes to standard output, ignoring a closed pipe (as from `head`).
pub fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

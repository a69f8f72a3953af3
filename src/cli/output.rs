//! Results on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use super::failure::Failure;

/// Prints one result and a line break. A closed pipe (`roomcast schema | head`) ends the program silently.
///
/// # Errors
/// [`Failure::Undone`] when standard output cannot be written to.
pub fn print(result: impl Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{result}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::Undone(format!("cannot write to standard output: {error}"))),
    }
}

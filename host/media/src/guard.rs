//! The one place where a panic inside a decoder library becomes an error.
//!
//! The limits keep hostile input away from the decoders where they can, but an index or an addition deep in a
//! library that nobody has fuzzed with just this file would still unwind through a node. Such a file is damaged,
//! and is reported so. The default panic hook still prints its line to standard error: a panic in a dependency is
//! worth reporting to its authors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::MediaError;
use crate::sniff::Format;

/// Runs one call into a decoder library. What the call borrowed must not be used after an error, which is why the
/// closures passed here own their decoder.
pub(crate) fn shielded<T>(
    format: Format,
    decode: impl FnOnce() -> Result<T, MediaError>,
) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(MediaError::corrupt(
            format,
            "the decoder gave up on its content",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_is_an_error_outside() {
        let caught = shielded(Format::Png, || -> Result<(), MediaError> {
            panic!("in a library")
        });
        assert!(matches!(
            caught,
            Err(MediaError::Corrupt {
                format: Format::Png,
                ..
            })
        ));
        assert_eq!(shielded(Format::Png, || Ok(3)).unwrap(), 3);
    }
}

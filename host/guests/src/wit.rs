//! The contract as files, for those who have no checkout.

use std::path::Path;
use std::{fs, io};

const FILES: [(&str, &str); 2] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// Writes the WIT package that this program was built with into `folder`, which may be there.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    FILES
        .iter()
        .try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

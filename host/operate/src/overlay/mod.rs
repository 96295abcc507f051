//! `msao explain --overlay`: what was kept of media, drawn over them.
//!
//! A node keeps no media. Whoever wants to see them gives the files; that a file is the medium its digest in the record says.

mod canvas;
mod draw;
mod medium;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::files;

/// A picture that was written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Written {
    /// Where.
    pub file: PathBuf,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How many of the media are grey, because no file was given for them.
    pub unseen: usize,
}

/// Draws what was kept of a record's media to `out`, a PNG. `given`: files of the media, in prompt order.
///
/// # Errors
/// What the record does not say, a file that is not the medium (with the digest that is wanted), or one that cannot be read or
/// written.
pub fn write(record: &Value, given: &[PathBuf], out: &Path) -> anyhow::Result<Written> {
    let mut media = medium::media_of(record)?;
    medium::look(&mut media, given)?;
    let image = draw::draw(&media)?;
    let png = msao_media::encode_png(&image).context("the picture cannot be encoded")?;
    files::write_with(out, |file| Ok(Write::write_all(file, &png)?))?;
    Ok(Written {
        file: out.to_owned(),
        width: image.width,
        height: image.height,
        unseen: media.len() - given.len(),
    })
}

//! `msao.json`: what a model directory asks of this host beyond what its family's own processor does.
//!
//! The Omni processor enlarges every clip to at least 128 tokens a frame pair whatever the model's files say. A model
//! trained on smaller frames says here how its clips are to be taken; a directory without the file is taken exactly
//! as Hugging Face takes it.

use std::path::Path;

use serde::Deserialize;

use crate::config::PixelBounds;
use crate::error::ProcessorError;
use crate::files::{read_json, typed};
use crate::processor::Options;
use crate::video::VideoSampling;

/// The file's name.
pub(crate) const FILE: &str = "msao.json";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serving {
    #[serde(default)]
    video: Video,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Video {
    /// Frames a second to sample.
    fps: Option<f64>,
    /// Fewest and most pixels of a frame.
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
}

/// The options that the directory asks for; the defaults where it has no such file.
pub(crate) fn options(dir: &Path) -> Result<Options, ProcessorError> {
    let path = dir.join(FILE);
    let mut options = Options::default();
    let Some(value) = read_json(&path)? else {
        return Ok(options);
    };
    let Serving { video } = typed(&value, &path, "")?;
    let refuse = |key: &str, message: String| ProcessorError::config(&path, key, message);
    if let Some(fps) = video.fps {
        if !(fps > 0.0 && fps <= 240.0) {
            return Err(refuse(
                "video.fps",
                format!("is {fps}; it must be above 0 and at most 240"),
            ));
        }
        options.sampling = VideoSampling::Fps(fps);
    }
    options.frame_bounds = match (video.min_pixels, video.max_pixels) {
        (None, None) => None,
        (Some(min), Some(max)) if min > 0 && min <= max => Some(PixelBounds { min, max }),
        (min, max) => {
            let message = format!("{min:?} to {max:?}: give both, the smaller first, above 0");
            return Err(refuse("video.min_pixels", message));
        }
    };
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, ProcessorError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        options(dir.path())
    }

    #[test]
    fn a_directory_may_say_how_clips_are_taken() {
        let options =
            read(r#"{"video": {"fps": 2, "min_pixels": 3136, "max_pixels": 401408}}"#).unwrap();
        assert_eq!(options.sampling, VideoSampling::Fps(2.0));
        let bounds = options.frame_bounds.unwrap();
        assert_eq!((bounds.min, bounds.max), (3136, 401_408));
        assert_eq!(read("{}").unwrap(), Options::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, key) in [
            (r#"{"video": {"fps": 0}}"#, "video.fps"),
            (r#"{"video": {"max_pixels": 9}}"#, "video.min_pixels"),
            (
                r#"{"video": {"min_pixels": 9, "max_pixels": 8}}"#,
                "video.min_pixels",
            ),
            (r#"{"video": {"rate": 2}}"#, "rate"),
            (r#"{"clips": {}}"#, "clips"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(FILE) && message.contains(key), "{message}");
        }
    }
}

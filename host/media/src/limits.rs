//! How large an input may be: one place for the numbers and for the comparison with them.

use crate::error::MediaError;

/// How large an input may be, encoded and decoded.
///
/// The defaults let through what a model can make use of and keep the decoders under some 2 GiB. What a
/// request may hold in all is for the caller to decide; these bounds are per file.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Encoded bytes of one file. Default 64 MiB.
    pub max_bytes: u64,
    /// Pixels of one picture or one frame. Default 33,177,600 (8K UHD, 7680 x 4320).
    pub max_pixels: u64,
    /// Frames of a clip that are kept, repetitions counted. Default 768.
    pub max_frames: usize,
    /// Seconds of a clip as stored. Default 600.
    pub max_video_seconds: f64,
    /// Seconds of a sound. Default 600.
    pub max_audio_seconds: f64,
    /// Bytes of RGB of all kept frames of a clip together. Default 1 GiB.
    pub max_decoded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 7680 * 4320,
            max_frames: 768,
            max_video_seconds: 600.0,
            max_audio_seconds: 600.0,
            max_decoded_bytes: 1 << 30,
        }
    }
}

/// The highest frame rate a stored clip may have on average. Together with `max_video_seconds` it bounds how many
/// stored frames there can be, since frames without duration would otherwise be free of charge.
const MAX_STORED_FPS: f64 = 240.0;

/// The most pixels that are ever run through a decoder for one clip: some ten minutes of 4K at 30 frames per second.
/// A kept frame costs memory, a skipped one costs time; this bounds the time.
const MAX_STORED_PIXELS: u64 = 600 * 30 * 3840 * 2160;

impl Limits {
    /// Refuses an empty input and one with more encoded bytes than allowed.
    pub(crate) fn check_bytes(&self, bytes: u64) -> Result<(), MediaError> {
        if bytes == 0 {
            return Err(MediaError::Empty);
        }
        if bytes > self.max_bytes {
            return Err(MediaError::TooManyBytes {
                bytes,
                limit: self.max_bytes,
            });
        }
        Ok(())
    }

    /// Refuses a picture or frame with more pixels than allowed.
    pub(crate) fn check_pixels(&self, width: u32, height: u32) -> Result<(), MediaError> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(MediaError::TooManyPixels {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(())
    }

    /// Refuses a sound that lasts longer than allowed.
    pub(crate) fn check_audio_seconds(&self, seconds: f64) -> Result<(), MediaError> {
        check_seconds(seconds, self.max_audio_seconds, "max_audio_seconds")
    }

    /// Refuses a clip that lasts longer than allowed, or whose stored frames would take too long to run through.
    pub(crate) fn check_stored(
        &self,
        width: u32,
        height: u32,
        frames: u64,
        seconds: f64,
    ) -> Result<(), MediaError> {
        self.check_pixels(width, height)?;
        check_seconds(seconds, self.max_video_seconds, "max_video_seconds")?;
        let by_rate = (self.max_video_seconds * MAX_STORED_FPS).max(1.0);
        let by_pixels = MAX_STORED_PIXELS / (u64::from(width) * u64::from(height)).max(1);
        let limit = by_pixels.min(by_rate as u64);
        if frames > limit {
            return Err(MediaError::TooManyStoredFrames { frames, limit });
        }
        Ok(())
    }

    /// Refuses to keep more frames, or more bytes of them, than allowed.
    pub(crate) fn check_kept(
        &self,
        width: u32,
        height: u32,
        frames: usize,
    ) -> Result<(), MediaError> {
        if frames > self.max_frames {
            return Err(MediaError::TooManyFrames {
                frames,
                limit: self.max_frames,
            });
        }
        let bytes = (u64::from(width) * u64::from(height))
            .saturating_mul(3)
            .saturating_mul(frames as u64);
        if bytes > self.max_decoded_bytes {
            return Err(MediaError::TooManyDecodedBytes {
                bytes,
                limit: self.max_decoded_bytes,
            });
        }
        Ok(())
    }
}

/// `setting` names the field of [`Limits`] for the message. A duration that is not a number is refused as endless.
fn check_seconds(seconds: f64, limit: f64, setting: &'static str) -> Result<(), MediaError> {
    if seconds <= limit {
        Ok(())
    } else {
        Err(MediaError::TooLong {
            seconds,
            limit,
            setting,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_itself_is_allowed_and_one_more_is_not() {
        let limits = Limits {
            max_bytes: 10,
            max_pixels: 12,
            max_frames: 2,
            max_decoded_bytes: 72,
            ..Limits::default()
        };
        assert!(limits.check_bytes(10).is_ok());
        assert!(matches!(
            limits.check_bytes(11),
            Err(MediaError::TooManyBytes {
                bytes: 11,
                limit: 10
            })
        ));
        assert!(matches!(limits.check_bytes(0), Err(MediaError::Empty)));
        assert!(limits.check_pixels(4, 3).is_ok());
        assert!(matches!(
            limits.check_pixels(13, 1),
            Err(MediaError::TooManyPixels { .. })
        ));
        assert!(limits.check_pixels(u32::MAX, u32::MAX).is_err());
        assert!(limits.check_kept(4, 3, 2).is_ok());
        assert!(matches!(
            limits.check_kept(4, 3, 3),
            Err(MediaError::TooManyFrames { .. })
        ));
        assert!(matches!(
            limits.check_kept(4, 4, 2),
            Err(MediaError::TooManyDecodedBytes { bytes: 96, .. })
        ));
    }

    #[test]
    fn frames_without_duration_are_bounded_too() {
        let limits = Limits {
            max_video_seconds: 1.0,
            ..Limits::default()
        };
        assert!(limits.check_stored(16, 16, 240, 0.0).is_ok());
        assert!(matches!(
            limits.check_stored(16, 16, 241, 0.0),
            Err(MediaError::TooManyStoredFrames {
                frames: 241,
                limit: 240
            })
        ));
        assert!(limits.check_stored(16, 16, 1, f64::NAN).is_err());
        let work = Limits::default();
        assert!(work.check_stored(3840, 2160, 18_000, 600.0).is_ok());
        assert!(work.check_stored(7680, 4320, 18_000, 600.0).is_err());
    }
}

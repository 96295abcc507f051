//! The settings of the image, video and audio processors.

mod read;

pub(crate) use read::load;

/// Smallest and largest number of pixels of a resized picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBounds {
    /// At least so many pixels.
    pub min: usize,
    /// At most so many pixels.
    pub max: usize,
}

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle, two source pixels wide at scale 1.
    Bilinear,
    /// Keys' cubic with a = -0.5, four source pixels wide at scale 1.
    Bicubic,
}

/// How a picture or frame becomes patches. Defaults: `Qwen2VLImageProcessor` and `Qwen2VLVideoProcessor`.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureConfig {
    /// Resize to bounds and to whole patches; else the picture must have whole patches already.
    pub resize: bool,
    /// Interpolation of the resize.
    pub filter: Filter,
    /// Bounds of the resize.
    pub bounds: PixelBounds,
    /// Factor on the 8-bit values, `None` to leave them.
    pub rescale: Option<f64>,
    /// Mean and standard deviation of each colour, of the rescaled values.
    pub normalize: Option<([f64; 3], [f64; 3])>,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Frames in a patch.
    pub temporal_patch: usize,
    /// Side in patches of the square that becomes one token.
    pub merge: usize,
}

impl PictureConfig {
    /// Sides of a resized picture are multiples of this many pixels.
    pub fn factor(&self) -> usize {
        self.patch * self.merge
    }

    /// Values in one patch of three colours.
    pub fn patch_values(&self) -> usize {
        3 * self.temporal_patch * self.patch * self.patch
    }
}

/// Which frames of a clip are kept, and how they become patches.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// How each frame becomes patches.
    pub picture: PictureConfig,
    /// Sample frames; else every frame is kept.
    pub sample: bool,
    /// Frames a second to sample.
    pub fps: Option<f64>,
    /// Frames to sample.
    pub num_frames: Option<usize>,
    /// Fewest frames that sampling by rate keeps, where the clip has them.
    pub min_frames: usize,
    /// Most frames that sampling by rate keeps.
    pub max_frames: usize,
    /// The tokens of the longest context, where frames share its pixels evenly (`cap_pixels_per_frame`).
    pub shared_tokens: Option<usize>,
}

/// How a sound becomes a log-mel spectrogram. Defaults: `WhisperFeatureExtractor`.
#[derive(Clone, Debug, PartialEq)]
pub struct SoundConfig {
    /// Mel bins.
    pub mels: usize,
    /// Samples a second.
    pub sampling_rate: usize,
    /// Samples between frames.
    pub hop: usize,
    /// Samples in a frame.
    pub n_fft: usize,
    /// Samples that a sound is padded or cut to.
    pub max_samples: usize,
}

/// The three processors' settings.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaConfig {
    /// Still pictures.
    pub image: PictureConfig,
    /// Clips.
    pub video: ClipConfig,
    /// Sounds, where the files describe them.
    pub audio: Option<SoundConfig>,
}

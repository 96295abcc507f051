//! A medium made smaller for the way to another node: what is left of it, and how its bytes lie.
//!
//! The edge decodes a medium, decides what of it the cloud should see, and ships that: [`ship_image`], [`ship_video`],
//! [`ship_audio`]. The cloud gets a medium of the full (scaled) size back, from [`open_shipment`], so that it lays out
//! the very positions that the edge did; what was left out is one colour, a still frame or silence. [`regions`] says
//! which pixels a set of grid cells covers. The same input gives the same bytes: their digest is a medium's identity.
//!
//! A medium that is sent as it came is no shipment: its own bytes are sent.
//!
//! Clients cannot send shipments: the decoders of files know them ([`Format::Shipment`](crate::Format::Shipment)) and
//! refuse them. Nodes do open each other's, and trust them no more than a file.
//!
//! # Why these codings
//!
//! Pictures are baseline JPEG, the cheapest to make and to read; of the encoder at hand, with chroma at full
//! resolution, which thin coloured text needs. Its blocks of 8 x 8 pixels are coded each for itself, so what is painted
//! over beside a kept block leaves no trace in it. Each frame of a clip is such a picture: there is no encoder here that
//! would look at several. Sounds are 16-bit FLAC, which loses nothing of 16-bit files and is never larger than plain
//! samples by more than a header: the decoder is there for files anyway, and the little of the format that is written
//! is not worth a dependency.
//!
//! # Bytes, version 1
//!
//! Integers are little-endian and without sign. What is at offset 0 to 15 is common:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `d3 4d 53 48 49 50 0d 0a`: no text, and none of the signatures of files |
//! | 8 | 1 | kind: 1 image, 2 clip, 3 sound |
//! | 9 | 1 | version: 1 |
//! | 10 | 2 | 0 |
//! | 12 | 4 | length of the header in bytes, these 16 included: where the first part begins |
//!
//! The header goes on by kind. Parts follow it in order, without gaps; the last ends with the bytes.
//!
//! A *picture record* (16 bytes) describes a part that is a JPEG:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 2 + 2 | left and top of what is there, in pixels of the canvas |
//! | 4 | 2 + 2 | its width and height in pixels, at least 1; the JPEG's own size |
//! | 8 | 3 | red, green, blue of what is not there |
//! | 11 | 1 | bit 0: inside, too, some was painted over in (about) that colour; other bits 0 |
//! | 12 | 4 | length of the JPEG in bytes, at least 1 |
//!
//! Image, one part, header of 36 bytes:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 16 | 2 + 2 | width and height of the canvas in pixels, at least 1 |
//! | 20 | 16 | picture record |
//!
//! Clip, F parts, header of 40 + 4 S + 20 F bytes:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 16 | 2 + 2 | width and height of the canvas of each frame in pixels, at least 1 |
//! | 20 | 4 | frames of the clip as its client sent it, at least 1 |
//! | 24 | 8 | their rate in frames per second, IEEE 754, finite and above 0 |
//! | 32 | 4 | S: frames sampled, at least 1 |
//! | 36 | 4 | F: frames sent, 1 to S |
//! | 40 | 4 each | S indices among the frames of the clip, never falling |
//! | | 20 each | F times: position among the sampled frames (4), rising; picture record (16) |
//!
//! Sound, one part, header of 28 + 8 G bytes:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 16 | 4 | samples of the whole sound at 16 kHz, at least 1 |
//! | 20 | 4 | G: segments sent, 1 to [`MAX_SEGMENTS`] |
//! | 24 | 4 | length of the FLAC in bytes, at least 1 |
//! | 28 | 8 each | G times: first sample, and the one after the last; rising, without overlap |
//!
//! The FLAC (mono, 16 kHz) holds the samples of all segments, one after the other.
//!
//! ```
//! use msao_media::ship::{ImageWay, Region, Rest, Shipment, open_shipment, ship_image};
//! use msao_media::{Limits, RgbImage};
//!
//! # fn main() -> Result<(), msao_media::MediaError> {
//! let image = RgbImage { width: 640, height: 480, data: vec![90; 640 * 480 * 3] };
//! let kept = [Region { x: 40, y: 60, width: 28, height: 28 }];
//! let way = ImageWay { scale: 0.5, quality: 80, rest: Rest::Crop { align_px: 8 }, kept: Some(&kept) };
//! let shipped = ship_image(&image, &way)?;
//! assert_eq!(shipped.sent.canvas, (320, 240));
//!
//! let Shipment::Image { image, sent } = open_shipment(&shipped.bytes, &Limits::default())? else { unreachable!() };
//! assert_eq!((image.width, image.height), (320, 240));
//! assert_eq!(sent.picture.region, Region { x: 40, y: 56, width: 32, height: 32 });
//! # Ok(())
//! # }
//! ```

use std::ops::Range;

use crate::audio::AudioClip;
use crate::image::RgbImage;
use crate::video::VideoClip;

mod flac;
mod open;
mod pixels;
mod region;
mod send;
mod wire;

pub use self::open::open_shipment;
pub use self::region::{Region, regions, share};
pub use self::send::{
    FrameWay, ImageWay, Rest, Shipped, VideoWay, encode_jpeg, resized, scaled_size, ship_audio,
    ship_image, ship_video,
};
pub use self::wire::MAX_SEGMENTS;
pub(crate) use self::wire::kind_of;

/// What of a picture went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPicture {
    /// The rectangle of the canvas that went over, in pixels. Outside it nothing is real.
    pub region: Region,
    /// Whether inside it, too, all but the kept regions was painted over: those alone are real then.
    pub painted: bool,
    /// Red, green and blue of what is not real: the mean of the whole picture.
    pub fill: [u8; 3],
}

impl SentPicture {
    /// Whether all of a region, so far as it lies on a canvas of this width and height, is in the rectangle that went over.
    pub fn has(&self, region: Region, canvas: (u32, u32)) -> bool {
        let Some(region) = region.within(canvas) else {
            return true;
        };
        region.x >= self.region.x
            && region.y >= self.region.y
            && region.right() <= self.region.right()
            && region.bottom() <= self.region.bottom()
    }
}

/// How an image went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentImage {
    /// Width and height in pixels of the whole picture after scaling.
    pub canvas: (u32, u32),
    /// What of it went over.
    pub picture: SentPicture,
}

/// How a frame of a clip went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentFrame {
    /// Which of the sampled frames it is, from 0.
    pub position: usize,
    /// What of it went over.
    pub picture: SentPicture,
}

/// How a clip went over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentVideo {
    /// Width and height in pixels of each whole frame after scaling.
    pub canvas: (u32, u32),
    /// How many frames were sampled, sent or not.
    pub sampled: usize,
    /// The frames that went over, rising; at least one.
    pub frames: Vec<SentFrame>,
}

/// How a sound went over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentAudio {
    /// Samples of the whole sound at 16 kHz.
    pub samples: usize,
    /// The samples that went over: rising ranges without overlap; at least one.
    pub segments: Vec<Range<usize>>,
}

/// A shipment, opened: a medium of the full size, and what of it is real.
#[derive(Clone, Debug)]
pub enum Shipment {
    /// A picture of the size of the canvas.
    Image {
        /// What did not go over is one colour.
        image: RgbImage,
        /// What is real.
        sent: SentImage,
    },
    /// All sampled frames, with the indices, number and rate of the clip's frames as its client sent it.
    Video {
        /// A frame that did not go over shows the last one before it that did, or else the first: should one of a pair
        /// that a model reads together be missing, the pair is a still picture, and not half blank.
        clip: VideoClip,
        /// What is real.
        sent: SentVideo,
    },
    /// A sound of the full length.
    Audio {
        /// What did not go over is silence.
        sound: AudioClip,
        /// What is real.
        sent: SentAudio,
    },
}

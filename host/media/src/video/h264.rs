//! H.264 out of an MP4: length-prefixed units to the byte stream that the decoder reads, one sample at a time.
//!
//! The decoder gives every picture as soon as it is decoded ([`sps::in_order_of_decoding`]), which is the order of the
//! samples, and the container's composition times say where it is shown.

mod sps;

use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource;

use self::sps::{Sps, in_order_of_decoding};
use super::colour::{Colour, Planes, to_rgb};
use super::keeper::Keeper;
use super::mp4::{self, Sample};
use super::{VideoInfo, info};
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::image::RgbImage;
use crate::limits::Limits;
use crate::sniff::Format;

/// Kinds of units (ITU-T H.264, table 7-1).
mod unit {
    pub(super) const SLICE: u8 = 1;
    pub(super) const PARTITION_A: u8 = 2;
    pub(super) const PARTITION_C: u8 = 4;
    pub(super) const IDR_SLICE: u8 = 5;
    pub(super) const SEQUENCE_PARAMETERS: u8 = 7;
    pub(super) const PICTURE_PARAMETERS: u8 = 8;
}

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// A clip whose samples are all inside the file and whose parameters the decoder can take.
pub(super) struct Movie {
    pub(super) info: VideoInfo,
    samples: Vec<Sample>,
    /// Bytes of the length in front of every unit.
    prefix: usize,
    /// Parameter sets as a byte stream; empty where they are inside the samples (`avc3`).
    parameters: Vec<u8>,
    sps: Option<Sps>,
    /// From the container, for streams that do not say.
    colour: Option<Colour>,
}

fn damaged(detail: impl Into<String>) -> MediaError {
    MediaError::corrupt(Format::Mp4, detail)
}

impl Movie {
    pub(super) fn open(bytes: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let track = mp4::read(bytes, limits)?;
        let config = Configuration::parse(&track.avcc)
            .unwrap_or_else(|| Err(damaged("its decoder configuration (avcC) is cut off")))?;
        let size = config.sps.map_or(track.size, |sps| sps.size);
        if let Some(sps) = config.sps {
            limits.check_pixels(sps.coded.0, sps.coded.1)?;
        }
        let info = info(
            Format::Mp4,
            size,
            track.samples.len() as u64,
            track.seconds,
            limits,
        )?;
        for (number, sample) in track.samples.iter().enumerate() {
            if sample_bytes(bytes, sample).is_none() {
                return Err(damaged(format!(
                    "it ends before frame {number} of {}",
                    info.frames
                )));
            }
        }
        Ok(Self {
            info,
            samples: track.samples,
            prefix: config.prefix,
            parameters: config.parameters,
            sps: config.sps,
            colour: track.colour,
        })
    }
}

fn sample_bytes<'a>(bytes: &'a [u8], sample: &Sample) -> Option<&'a [u8]> {
    let start = usize::try_from(sample.offset).ok()?;
    bytes.get(start..start.checked_add(sample.size as usize)?)
}

/// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15, 5.3.3.1).
struct Configuration {
    prefix: usize,
    parameters: Vec<u8>,
    sps: Option<Sps>,
}

impl Configuration {
    fn parse(avcc: &[u8]) -> Option<Result<Self, MediaError>> {
        let mut reader = Bytes::new(avcc);
        reader.take(4)?;
        let prefix = usize::from(reader.u8()? & 3) + 1;
        let mut parameters = Vec::new();
        let mut sps = None;
        let sequences = reader.u8()? & 0x1f;
        for _ in 0..sequences {
            let size = usize::from(reader.be16()?);
            let unit = reader.take(size)?;
            match Sps::parse(unit) {
                Ok(parsed) => sps = sps.or(Some(parsed)),
                Err(error) => return Some(Err(error)),
            }
            parameters.extend_from_slice(&START_CODE);
            parameters.extend(in_order_of_decoding(unit)?);
        }
        let pictures = reader.u8()?;
        for _ in 0..pictures {
            let size = usize::from(reader.be16()?);
            parameters.extend_from_slice(&START_CODE);
            parameters.extend_from_slice(reader.take(size)?);
        }
        Some(Ok(Self {
            prefix,
            parameters,
            sps,
        }))
    }
}

/// Decodes samples until every wanted frame is there.
pub(super) fn decode(bytes: &[u8], movie: &Movie, keeper: &mut Keeper) -> Result<(), MediaError> {
    let broken = |number: usize| {
        damaged(format!(
            "frame {number} of {} cannot be decoded",
            movie.info.frames
        ))
    };
    let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
    let mut decoder =
        Decoder::with_api_config(OpenH264API::from_source(), config).map_err(|error| {
            MediaError::unsupported(Format::Mp4, format!("this build of the decoder ({error})"))
        })?;
    let positions = display_positions(&movie.samples);
    let mut sps = movie.sps;
    let mut packet = Vec::new();
    for (number, (sample, shown)) in movie.samples.iter().zip(positions).enumerate() {
        let units = sample_bytes(bytes, sample).ok_or_else(|| broken(number))?;
        fill_packet(&mut packet, units, number == 0, movie, &mut sps)
            .unwrap_or_else(|| Err(broken(number)))?;
        let picture = decoder.decode(&packet).map_err(|_| broken(number))?;
        if keeper.wants(shown) {
            let colour = colour_of(sps, movie.colour);
            let frame = picture
                .and_then(|yuv| convert(&yuv, &movie.info, colour))
                .ok_or_else(|| broken(number))?;
            keeper.keep(shown, frame);
            if keeper.done() {
                break;
            }
        }
    }
    Ok(())
}

/// For every sample its place in the order of display.
fn display_positions(samples: &[Sample]) -> Vec<usize> {
    let mut order: Vec<(i64, usize)> = samples
        .iter()
        .map(|sample| sample.shown_at)
        .zip(0..)
        .collect();
    order.sort_unstable();
    let mut positions: Vec<(usize, usize)> = order
        .into_iter()
        .map(|(_, number)| number)
        .zip(0..)
        .collect();
    positions.sort_unstable();
    positions.into_iter().map(|(_, shown)| shown).collect()
}

/// One sample as a byte stream: the header's parameters where decoding may start, then the units of the picture and the
/// parameters among them. `None` where a length runs past the sample.
fn fill_packet(
    packet: &mut Vec<u8>,
    sample: &[u8],
    first: bool,
    movie: &Movie,
    sps: &mut Option<Sps>,
) -> Option<Result<(), MediaError>> {
    packet.clear();
    if first
        || units(sample, movie.prefix)
            .any(|unit| unit.is_some_and(|unit| kind(unit) == unit::IDR_SLICE))
    {
        packet.extend_from_slice(&movie.parameters);
    }
    for unit in units(sample, movie.prefix) {
        let unit = unit?;
        match kind(unit) {
            unit::SLICE | unit::IDR_SLICE | unit::PICTURE_PARAMETERS => {
                packet.extend_from_slice(&START_CODE);
                packet.extend_from_slice(unit);
            }
            unit::SEQUENCE_PARAMETERS => {
                match same_size(unit, movie) {
                    Ok(new) => *sps = Some(new),
                    Err(error) => return Some(Err(error)),
                }
                packet.extend_from_slice(&START_CODE);
                packet.extend(in_order_of_decoding(unit)?);
            }
            unit::PARTITION_A..=unit::PARTITION_C => {
                return Some(Err(MediaError::unsupported(
                    Format::Mp4,
                    "H.264 in data partitions",
                )));
            }
            _ => {}
        }
    }
    Some(Ok(()))
}

/// The units of a sample; one `None` at the end where a length runs past it.
fn units(sample: &[u8], prefix: usize) -> impl Iterator<Item = Option<&[u8]>> {
    let mut reader = Some(Bytes::new(sample));
    std::iter::from_fn(move || {
        let mut bytes = reader.take().filter(|bytes| !bytes.rest().is_empty())?;
        let length = bytes.take(prefix).map(|prefix| {
            prefix
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte))
        });
        let unit = length.and_then(|length| bytes.take(length));
        reader = unit.map(|_| bytes);
        Some(unit)
    })
}

fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |header| header & 0x1f)
}

/// Parameters inside the stream must not ask for pictures that were not held against the limits.
fn same_size(unit: &[u8], movie: &Movie) -> Result<Sps, MediaError> {
    let sps = Sps::parse(unit)?;
    let allowed = match movie.sps {
        Some(known) => sps.coded == known.coded && sps.size == known.size,
        None => sps.size == (movie.info.width, movie.info.height),
    };
    if allowed {
        Ok(sps)
    } else {
        Err(MediaError::unsupported(
            Format::Mp4,
            "a picture size that changes on the way",
        ))
    }
}

/// The stream's signal where it has one, else the container's.
fn colour_of(sps: Option<Sps>, container: Option<Colour>) -> Colour {
    let stream = sps.map(|sps| sps.colour);
    match (stream, container) {
        (Some(stream), Some(container)) if stream.matrix == Colour::UNSPECIFIED => Colour {
            matrix: container.matrix,
            full_range: stream.full_range || container.full_range,
        },
        (Some(stream), _) => stream,
        (None, container) => container.unwrap_or(Colour {
            matrix: Colour::UNSPECIFIED,
            full_range: false,
        }),
    }
}

fn convert(yuv: &DecodedYUV<'_>, info: &VideoInfo, colour: Colour) -> Option<RgbImage> {
    if yuv.dimensions() != (info.width as usize, info.height as usize) {
        return None;
    }
    let (y_stride, uv_stride, _) = yuv.strides();
    let planes = Planes {
        y: yuv.y(),
        u: yuv.u(),
        v: yuv.v(),
        y_stride,
        uv_stride,
    };
    to_rgb(&planes, (info.width, info.height), colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_placed_by_when_they_are_shown() {
        let samples = [0, 40, 20, 10, 30].map(|shown_at| Sample {
            shown_at,
            ..Sample::default()
        });
        assert_eq!(display_positions(&samples), [0, 4, 2, 1, 3]);
        let same = [5, 5, 5].map(|shown_at| Sample {
            shown_at,
            ..Sample::default()
        });
        assert_eq!(display_positions(&same), [0, 1, 2]);
    }

    #[test]
    fn units_end_with_the_sample() {
        let lengths = |sample: &[u8]| {
            units(sample, 2)
                .map(|unit| unit.map(<[u8]>::len))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lengths(&[0, 1, 9, 0, 0, 0, 2, 7, 7]),
            [Some(1), Some(0), Some(2)]
        );
        assert_eq!(lengths(&[0, 1, 9, 0, 2, 7]), [Some(1), None]);
        assert_eq!(lengths(&[0]), [None]);
        assert_eq!(lengths(&[]), []);
    }

    #[test]
    fn the_stream_says_before_the_container() {
        let sps = |matrix| Sps {
            colour: Colour {
                matrix,
                full_range: false,
            },
            size: (2, 2),
            coded: (16, 16),
        };
        let container = Some(Colour {
            matrix: 9,
            full_range: true,
        });
        assert_eq!(colour_of(Some(sps(1)), container).matrix, 1);
        assert_eq!(
            colour_of(Some(sps(2)), container),
            Colour {
                matrix: 9,
                full_range: true
            }
        );
        assert_eq!(colour_of(None, None).matrix, 2);
    }
}

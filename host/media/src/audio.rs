//! Sounds to mono at 16 kHz, the form in which every audio encoder here takes them.
//!
//! Channels are mixed by their mean, as `librosa` and Hugging Face do. Other rates are resampled block by block
//! while decoding ([`resample`]), so a long sound is refused after `max_audio_seconds` of it at the latest, and by
//! its header where that says how long it is.
//!
//! WAV and FLAC are exact: integers become `value / 2^(bits - 1)`. MP3 is decoded without the encoder's delay and
//! padding where the file states them (LAME tag). A sound that breaks off is an error: WAV and FLAC are held against
//! the length in their header, FLAC also against its checksum, MP3 against its frame count where it has one. An MP3
//! without a frame count that ends between two frames cannot be told from a whole one.

use std::io::Cursor;

use symphonia::core::audio::{AudioBuffer, AudioBufferRef, Signal};
use symphonia::core::codecs::{CodecParameters, Decoder, DecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, Packet};
use symphonia::core::io::{MediaSourceStream, ReadOnlySource};
use symphonia::default::codecs::{FlacDecoder, MpaDecoder, PcmDecoder};
use symphonia::default::formats::{FlacReader, MpaReader, WavReader};

use self::resample::Resampler;
use crate::error::MediaError;
use crate::guard::shielded;
use crate::limits::Limits;
use crate::sniff::{Format, MediaKind, expect};

mod container;
mod resample;

/// Samples per second of every [`AudioClip`].
pub const SAMPLE_RATE: u32 = 16_000;

/// The sampling rates that are taken, in Hz. Below, nothing of speech is left; above, no recorder goes, and the size
/// of the resampler's transform grows with the rate.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;

/// Mono samples at [`SAMPLE_RATE`].
#[derive(Clone, Debug, PartialEq)]
pub struct AudioClip {
    /// Samples in `[-1, 1]`; what a float WAV holds beyond is clipped.
    pub samples: Vec<f32>,
}

/// Decodes one sound: WAV (PCM, float, A-law, mu-law), MP3 or FLAC.
///
/// The result has `round(n * 16000 / rate)` samples for `n` stored ones.
///
/// # Errors
/// [`MediaError::TooLong`] as soon as the header or the samples decoded so far say so; otherwise any [`MediaError`]
/// but those about pixels and frames.
pub fn decode_audio(bytes: &[u8], limits: &Limits) -> Result<AudioClip, MediaError> {
    limits.check_bytes(bytes.len() as u64)?;
    let format = expect(bytes, MediaKind::Audio)?;
    let essential = container::essential(format, bytes, limits)?;
    shielded(format, || decode(format, essential, limits))
}

fn decode(format: Format, bytes: Vec<u8>, limits: &Limits) -> Result<AudioClip, MediaError> {
    // Not seekable on purpose: the reader would estimate the length of an MP3 from its first frame and cut the end.
    let stream = MediaSourceStream::new(
        Box::new(ReadOnlySource::new(Cursor::new(bytes))),
        Default::default(),
    );
    let mut reader = open(format, stream).map_err(|error| translate(format, error))?;
    let Some(track) = reader.tracks().first() else {
        return Err(MediaError::corrupt(format, "it holds no sound"));
    };
    let params = track.codec_params.clone();
    let Some(rate) = params.sample_rate else {
        return Err(MediaError::corrupt(format, "it states no sampling rate"));
    };
    check_rate(format, rate)?;
    let seconds = |frames: u64| frames as f64 / f64::from(rate);
    if let Some(frames) = params.n_frames {
        // The reader takes delay and padding from the frame count of an MP3 without looking which is larger.
        if frames > u64::MAX / 2 {
            return Err(MediaError::corrupt(
                format,
                "its tag states more padding than sound",
            ));
        }
        limits.check_audio_seconds(seconds(frames))?;
    }
    let mut decoder = make_decoder(format, &params).map_err(|error| translate(format, error))?;
    let mut resampler = Resampler::new(rate)?;
    let mut mono = Vec::new();
    let mut damaged = None;
    while let Some(packet) = next_packet(format, reader.as_mut())? {
        match decoder.decode(&packet) {
            Ok(buffer) => {
                // Damage that is followed by sound is inside it; what comes after all sound is somebody's tag.
                if let Some(error) = damaged {
                    return Err(error);
                }
                mix(&buffer, &mut mono);
                limits.check_audio_seconds(seconds(resampler.taken() + mono.len() as u64))?;
                resampler.push(&mono)?;
            }
            Err(error) if format == Format::Mp3 => damaged = Some(translate(format, error)),
            Err(error) => return Err(translate(format, error)),
        }
    }
    check_complete(format, rate, resampler.taken(), params.n_frames)?;
    if decoder.finalize().verify_ok == Some(false) {
        return Err(MediaError::corrupt(
            format,
            "its samples do not match its checksum",
        ));
    }
    Ok(AudioClip {
        samples: resampler.finish()?,
    })
}

fn check_rate(format: Format, rate: u32) -> Result<(), MediaError> {
    if RATES.contains(&rate) {
        return Ok(());
    }
    let (lowest, highest) = (RATES.start(), RATES.end());
    Err(MediaError::unsupported(
        format,
        format!("a sampling rate of {rate} Hz (from {lowest} to {highest} Hz is)"),
    ))
}

fn open(format: Format, stream: MediaSourceStream) -> Result<Box<dyn FormatReader>, Error> {
    let options = FormatOptions {
        enable_gapless: true,
        ..FormatOptions::default()
    };
    Ok(match format {
        Format::Wav => Box::new(WavReader::try_new(stream, &options)?),
        Format::Flac => Box::new(FlacReader::try_new(stream, &options)?),
        _ => Box::new(MpaReader::try_new(stream, &options)?),
    })
}

fn make_decoder(format: Format, params: &CodecParameters) -> Result<Box<dyn Decoder>, Error> {
    let options = DecoderOptions { verify: true };
    Ok(match format {
        Format::Wav => Box::new(PcmDecoder::try_new(params, &options)?),
        Format::Flac => Box::new(FlacDecoder::try_new(params, &options)?),
        _ => Box::new(MpaDecoder::try_new(params, &options)?),
    })
}

/// The next packet, or `None` at the end of the bytes.
fn next_packet(
    format: Format,
    reader: &mut dyn FormatReader,
) -> Result<Option<Packet>, MediaError> {
    match reader.next_packet() {
        Ok(packet) => Ok(Some(packet)),
        Err(Error::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(translate(format, error)),
    }
}

/// Replaces `mono` by the mean of the channels of `buffer`.
fn mix(buffer: &AudioBufferRef<'_>, mono: &mut Vec<f32>) {
    let mut planes: AudioBuffer<f32> = buffer.make_equivalent();
    buffer.convert(&mut planes);
    mono.clear();
    mono.resize(planes.frames(), 0.0);
    let channels = planes.spec().channels.count();
    for plane in planes.planes().planes() {
        mono.iter_mut()
            .zip(plane.iter())
            .for_each(|(sum, sample)| *sum += sample);
    }
    let scale = 1.0 / channels.max(1) as f32;
    for sample in mono {
        // A float WAV may hold anything; a sample that is not a number is silence.
        *sample = if sample.is_nan() {
            0.0
        } else {
            (*sample * scale).clamp(-1.0, 1.0)
        };
    }
}

/// Holds what was decoded against the length that the header states.
fn check_complete(
    format: Format,
    rate: u32,
    decoded: u64,
    stated: Option<u64>,
) -> Result<(), MediaError> {
    // Some encoders count the MP3 frame that holds the count; frames are half as long at the low rates of MPEG 2.
    let tolerance = match format {
        Format::Mp3 if rate >= 32_000 => 1152,
        Format::Mp3 => 576,
        _ => 0,
    };
    match stated {
        Some(stated) if decoded + tolerance < stated => Err(MediaError::corrupt(
            format,
            format!("it ends after {decoded} of {stated} samples"),
        )),
        _ if decoded == 0 => Err(MediaError::corrupt(format, "it holds no samples")),
        _ => Ok(()),
    }
}

fn translate(format: Format, error: Error) -> MediaError {
    match error {
        Error::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::corrupt(format, "it ends before its sound begins")
        }
        Error::Unsupported(detail) => {
            MediaError::unsupported(format, format!("this content ({detail})"))
        }
        error => MediaError::corrupt(format, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_short_of_the_header_is_damage() {
        assert!(check_complete(Format::Wav, 8_000, 99, Some(100)).is_err());
        assert!(check_complete(Format::Wav, 8_000, 100, Some(100)).is_ok());
        assert!(check_complete(Format::Mp3, 32_000, 100, Some(1252)).is_ok());
        assert!(check_complete(Format::Mp3, 32_000, 100, Some(1253)).is_err());
        assert!(check_complete(Format::Mp3, 16_000, 100, Some(1252)).is_err());
        assert!(check_complete(Format::Flac, 8_000, 5, None).is_ok());
        assert!(check_complete(Format::Flac, 8_000, 0, None).is_err());
    }
}

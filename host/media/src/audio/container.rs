//! A sound file without everything that is no sound.
//!
//! Tags, cover pictures and comments are dropped before the decoder sees them: nobody listens to them, and a picture
//! block of a few bytes that claims four gigabytes is a cheap way to ask for them. What is kept is copied, since the
//! decoder wants to own what it reads; the copy is no larger than the file.

use super::check_rate;
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::limits::Limits;
use crate::sniff::{Format, after_id3};
use crate::webp::riff_chunk;

/// The bytes that the decoder needs. What the header says that is not taken (a rate, a codec, a length) is refused here
/// already, since a reader may fall over it or ask for the first frame before it says anything.
pub(super) fn essential(
    format: Format,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, MediaError> {
    let early = || MediaError::corrupt(format, "it ends before its sound begins");
    match format {
        Format::Wav => wav(bytes),
        Format::Flac => {
            let (info, kept) = flac(bytes).ok_or_else(early)?;
            let (rate, samples) = stream_info(info).ok_or_else(early)?;
            check_rate(format, rate)?;
            limits.check_audio_seconds(samples as f64 / f64::from(rate))?;
            Ok(kept)
        }
        _ => Ok(after_id3(bytes).ok_or_else(early)?.to_vec()),
    }
}

/// `RIFF`, the format chunk and the data chunk. The data's length is what the header says; a writer that could not
/// know it (a pipe) leaves zero or all ones, and then it is what there is.
fn wav(bytes: &[u8]) -> Result<Vec<u8>, MediaError> {
    let missing = |what: &str| MediaError::corrupt(Format::Wav, format!("it has no {what} chunk"));
    let mut reader = Bytes::new(bytes);
    reader.take(12).ok_or_else(|| missing("format"))?;
    let mut format = None;
    loop {
        let mut ahead = reader;
        let Some((name, claimed)) = ahead.array::<4>().zip(ahead.le32()) else {
            return Err(missing(if format.is_some() { "data" } else { "format" }));
        };
        if &name == b"data" {
            let format: &[u8] = format.ok_or_else(|| missing("format"))?;
            check_wav_format(format).unwrap_or_else(|| Err(missing("complete format")))?;
            let present = ahead.rest();
            let unknown = claimed == u32::MAX || claimed == 0;
            let stated = if unknown {
                u32::try_from(present.len()).unwrap_or(u32::MAX)
            } else {
                claimed
            };
            let kept = present.get(..stated as usize).unwrap_or(present);
            return assemble(format, stated, kept).ok_or_else(|| missing("data"));
        }
        let (_, body) = riff_chunk(&mut reader).ok_or_else(|| missing("data"))?;
        if &name == b"fmt " {
            format = Some(body);
        }
    }
}

/// Codec and rate of a format chunk.
fn check_wav_format(format: &[u8]) -> Option<Result<(), MediaError>> {
    let mut reader = Bytes::new(format);
    let codec = reader.le16()?;
    reader.le16()?;
    let rate = reader.le32()?;
    let name = match codec {
        // PCM, float, A-law, mu-law, and the extended form of all of them.
        1 | 3 | 6 | 7 | 0xfffe => return Some(check_rate(Format::Wav, rate)),
        2 | 0x11 => "ADPCM".to_owned(),
        0x55 => "MP3 inside".to_owned(),
        codec => format!("the codec {codec:#06x}"),
    };
    Some(Err(MediaError::unsupported(
        Format::Wav,
        format!("{name} (PCM, float, A-law and mu-law are)"),
    )))
}

fn assemble(format: &[u8], stated: u32, data: &[u8]) -> Option<Vec<u8>> {
    let format_size = u32::try_from(format.len()).ok()?;
    let mut out = Vec::with_capacity(data.len() + format.len() + 29);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&u32::MAX.to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&format_size.to_le_bytes());
    out.extend_from_slice(format);
    if format_size % 2 == 1 {
        out.push(0);
    }
    out.extend_from_slice(b"data");
    out.extend_from_slice(&stated.to_le_bytes());
    out.extend_from_slice(data);
    Some(out)
}

/// The marker, the STREAMINFO block (always first) as the only one, and the frames.
fn flac(bytes: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    const LAST: u8 = 0x80;
    let mut reader = Bytes::new(after_id3(bytes)?);
    let marker = reader.take(4)?;
    let mut info = None;
    loop {
        let kind = reader.u8()?;
        let [a, b, c] = reader.array()?;
        let size = u32::from_be_bytes([0, a, b, c]);
        let body = reader.take(size as usize)?;
        info = info.or(Some(body).filter(|_| kind & !LAST == 0));
        if kind & LAST != 0 {
            break;
        }
    }
    let info = info?;
    let size = u32::try_from(info.len()).ok()?;
    let frames = reader.rest();
    let mut out = Vec::with_capacity(8 + info.len() + frames.len());
    out.extend_from_slice(marker);
    out.extend_from_slice(&(size | u32::from(LAST) << 24).to_be_bytes());
    out.extend_from_slice(info);
    out.extend_from_slice(frames);
    Some((info, out))
}

/// Sampling rate and number of samples (0 where unknown) of a STREAMINFO block.
fn stream_info(info: &[u8]) -> Option<(u32, u64)> {
    let mut reader = Bytes::new(info);
    reader.take(10)?;
    let packed = reader.be64()?;
    Some(((packed >> 44) as u32, packed & ((1 << 36) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: [u8; 16] = [1, 0, 1, 0, 0x80, 0x3e, 0, 0, 0, 0x7d, 0, 0, 2, 0, 16, 0];

    fn chunk(name: &[u8], body: &[u8]) -> Vec<u8> {
        [name, &(body.len() as u32).to_le_bytes(), body].concat()
    }

    #[test]
    fn wav_keeps_format_and_data_only() {
        let head = b"RIFF\0\0\0\0WAVE";
        let file = [
            head.as_slice(),
            &chunk(b"fmt ", &FORMAT),
            &chunk(b"LIST", &[2; 6]),
            &chunk(b"data", &[3; 4]),
        ];
        let kept = wav(&[file.concat().as_slice(), b"tail"].concat()).unwrap();
        assert_eq!(kept.len(), 12 + 24 + 12);
        assert!(kept.ends_with(&chunk(b"data", &[3; 4])));
        assert!(wav(&[head.as_slice(), &chunk(b"data", &[3; 4])].concat()).is_err());
        assert!(wav(&[head.as_slice(), &chunk(b"fmt ", &FORMAT)].concat()).is_err());
    }

    #[test]
    fn a_streamed_wav_is_as_long_as_what_there_is() {
        let mut file = [
            b"RIFF\xff\xff\xff\xffWAVE".as_slice(),
            &chunk(b"fmt ", &FORMAT),
        ]
        .concat();
        file.extend_from_slice(b"data\xff\xff\xff\xff");
        file.extend_from_slice(&[5; 10]);
        assert!(wav(&file).unwrap().ends_with(&chunk(b"data", &[5; 10])));
    }

    #[test]
    fn flac_drops_a_picture_that_claims_too_much() {
        let info = [&[0, 0, 0, 34], [7; 34].as_slice()].concat();
        let file = [b"fLaC".as_slice(), &info, &[0x86, 0, 0, 2, 9, 9], b"frames"].concat();
        let (_, kept) = flac(&file).unwrap();
        assert_eq!(kept.get(..8).unwrap(), b"fLaC\x80\0\0\x22");
        assert!(kept.ends_with(b"\x07frames"));
        assert!(flac(&[b"fLaC".as_slice(), &[0x86, 0xff, 0xff, 0xff, 1]].concat()).is_none());
    }
}

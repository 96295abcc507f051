//! What a file is, judged by its first bytes.

use std::fmt;

use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::ship::kind_of;

/// What an input is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// One picture.
    Image,
    /// Sound.
    Audio,
    /// A sequence of pictures.
    Video,
}

impl MediaKind {
    /// The formats that are taken as this kind, for messages.
    pub fn formats(self) -> &'static str {
        match self {
            Self::Image => "an image (PNG, JPEG, WebP or GIF)",
            Self::Audio => "a sound (WAV, MP3 or FLAC)",
            Self::Video => "a clip (MP4 with H.264, GIF or WebP)",
        }
    }
}

/// A format that is decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline or progressive.
    Jpeg,
    /// WebP, lossy or lossless, still or animated.
    WebP,
    /// GIF, still or animated.
    Gif,
    /// RIFF WAVE with PCM or float samples.
    Wav,
    /// MPEG audio layer III.
    Mp3,
    /// Free Lossless Audio Codec.
    Flac,
    /// ISO base media (MP4, QuickTime), whole or fragmented.
    Mp4,
    /// What one node sends another of a medium of this kind ([`crate::ship`]). Never taken for a file.
    Shipment(MediaKind),
}

impl Format {
    /// What the format is first of all. GIF and WebP are images that can also be used as clips: see [`Format::can_be`].
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Png | Self::Jpeg | Self::WebP | Self::Gif => MediaKind::Image,
            Self::Wav | Self::Mp3 | Self::Flac => MediaKind::Audio,
            Self::Mp4 => MediaKind::Video,
            Self::Shipment(kind) => kind,
        }
    }

    /// Whether a file of the format is taken as this kind.
    pub fn can_be(self, kind: MediaKind) -> bool {
        match self {
            Self::Shipment(_) => false,
            Self::Gif | Self::WebP if kind == MediaKind::Video => true,
            format => format.kind() == kind,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Wav => "WAV",
            Self::Mp3 => "MP3",
            Self::Flac => "FLAC",
            Self::Mp4 => "MP4",
            Self::Shipment(_) => "shipment",
        })
    }
}

/// What the content is, or `None` where it is nothing that is decoded here. Looks at the first bytes only, so
/// `Some` does not promise that the rest is sound.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some(Format::WebP),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            ..,
        ] => Some(Format::Wav),
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => {
            is_movie_brand(brand).then_some(Format::Mp4)
        }
        // QuickTime files from before there was a brand begin with any of these.
        [_, _, _, _, b'm', b'o', b'o', b'v', ..] | [_, _, _, _, b'm', b'd', b'a', b't', ..] => {
            Some(Format::Mp4)
        }
        _ if kind_of(bytes).is_some() => kind_of(bytes).map(Format::Shipment),
        _ => match after_id3(bytes)? {
            [b'f', b'L', b'a', b'C', ..] => Some(Format::Flac),
            [b0, b1, b2, ..] if is_layer3_header(*b0, *b1, *b2) => Some(Format::Mp3),
            _ => None,
        },
    }
}

/// The bytes after an ID3v2 tag, which MP3 files and some FLAC files begin with; all of them where there is none.
/// `None` where the tag is cut off.
pub(crate) fn after_id3(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Bytes::new(bytes);
    if reader.take(3) != Some(b"ID3") {
        return Some(bytes);
    }
    let [_, _, flags, a, b, c, d] = reader.array()?;
    // Seven bits a byte; a footer repeats the ten bytes of the header.
    let size = [a, b, c, d]
        .iter()
        .fold(0usize, |size, byte| (size << 7) | usize::from(byte & 0x7f));
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    reader.take(size + footer)?;
    Some(reader.rest())
}

/// Brands of still pictures and protected sound share the `ftyp` box and are no clips.
fn is_movie_brand(brand: &[u8]) -> bool {
    !matches!(
        brand.first_chunk::<4>(),
        Some(b"heic" | b"heix" | b"mif1" | b"msf1" | b"avif" | b"avis")
    )
}

/// Sync word, MPEG 1, 2 or 2.5, layer III, a bit rate and a sampling rate that exist.
fn is_layer3_header(b0: u8, b1: u8, b2: u8) -> bool {
    b0 == 0xff
        && b1 & 0xe0 == 0xe0
        && b1 & 0x18 != 0x08
        && b1 & 0x06 == 0x02
        && b2 & 0xf0 != 0xf0
        && b2 & 0x0c != 0x0c
}

/// The format, where it is one that can be used as `kind`.
pub(crate) fn expect(bytes: &[u8], kind: MediaKind) -> Result<Format, MediaError> {
    match sniff(bytes) {
        Some(format) if format.can_be(kind) => Ok(format),
        Some(Format::Shipment(_)) => Err(MediaError::UnknownFormat {
            found: "the content is a shipment, which only nodes send to each other".to_owned(),
            expected: kind.formats(),
        }),
        Some(format) => Err(MediaError::UnknownFormat {
            found: format!("the content is {format}"),
            expected: kind.formats(),
        }),
        None => Err(MediaError::UnknownFormat {
            found: describe(bytes),
            expected: kind.formats(),
        }),
    }
}

/// The kind of a shipment, where it is one.
pub(crate) fn expect_shipment(bytes: &[u8]) -> Result<MediaKind, MediaError> {
    let found = match sniff(bytes) {
        Some(Format::Shipment(kind)) => return Ok(kind),
        Some(format) => format!("the content is {format}"),
        None => describe(bytes),
    };
    Err(MediaError::UnknownFormat {
        found,
        expected: "a shipment from another node",
    })
}

/// What an unknown content looks like, for the message.
fn describe(bytes: &[u8]) -> String {
    let known = match bytes {
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'A',
            b'V',
            b'I',
            b' ',
            ..,
        ] => Some("AVI"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("Matroska or WebM"),
        [b'O', b'g', b'g', b'S', ..] => Some("Ogg"),
        [b'B', b'M', ..] => Some("BMP"),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some("TIFF"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("HEIC or AVIF"),
        [b'R', b'F', b'6', b'4', ..] | [b'B', b'W', b'6', b'4', ..] => Some("64-bit WAVE"),
        [b'F', b'O', b'R', b'M', ..] => Some("AIFF"),
        [b'%', b'P', b'D', b'F', ..] => Some("PDF"),
        [b'P', b'K', 3, 4, ..] => Some("a ZIP archive"),
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Some("AAC"),
        [b'I', b'D', b'3', ..] => Some("an ID3 tag without MP3 or FLAC after it"),
        _ => None,
    };
    let start = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    match known {
        Some(name) => format!("the content looks like {name}"),
        None if is_text(start) => "the content looks like text".to_owned(),
        None => {
            let hex: Vec<String> = start
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!(
                "the content is of an unknown format (it begins with {})",
                hex.join(" ")
            )
        }
    }
}

fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(_) => true,
        // A character may be cut at the end of what was looked at.
        Err(error) => error.error_len().is_none(),
    };
    text && start
        .iter()
        .all(|&byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_content() {
        let table: [(&[u8], Option<Format>); 12] = [
            (b"\x89PNG\r\n\x1a\n....", Some(Format::Png)),
            (b"\xff\xd8\xff\xe0", Some(Format::Jpeg)),
            (b"GIF89a..", Some(Format::Gif)),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some(Format::WebP)),
            (b"RIFF\0\0\0\0WAVEfmt ", Some(Format::Wav)),
            (b"\0\0\0\x18ftypisom", Some(Format::Mp4)),
            (b"\0\0\0\x18ftypheic", None),
            (b"fLaC\0\0\0\x22", Some(Format::Flac)),
            (
                b"ID3\x04\0\0\0\0\0\x02xx\xff\xfb\x90\x64",
                Some(Format::Mp3),
            ),
            (b"ID3\x04\0\0\0\0\x7f\x7fxx\xff\xfb\x90\x64", None),
            (b"\xff\xf1\x50\x80", None),
            (b"", None),
        ];
        for (bytes, format) in table {
            assert_eq!(sniff(bytes), format, "{bytes:?}");
        }
    }

    #[test]
    fn an_unknown_content_is_described() {
        let message = |bytes: &[u8]| expect(bytes, MediaKind::Video).unwrap_err().to_string();
        assert!(message(b"dear diary\n").contains("looks like text"));
        assert!(message(b"\x1a\x45\xdf\xa3").contains("Matroska"));
        assert!(message(b"\x89PNG\r\n\x1a\n").contains("PNG"));
        assert!(message(b"\x00\x01\x02").contains("00 01 02"));
        assert!(message(b"GIF").contains("MP4 with H.264"));
    }
}

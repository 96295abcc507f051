//! The sample list of the first video track of an MP4.
//!
//! Written here and not taken from a library because the counts in an MP4 are only claims: twelve bytes of a sample
//! size box promise four billion samples, and a reader that expands the list before anybody can look at the count has
//! lost. Counts are held against [`Limits`] before a list is made, and every read says whether there was enough.
//!
//! Fragmented files ([`fragment`]) add their samples to those of the movie box. Edit lists are ignored, which is right
//! for the offset that encoders with B-frames write, and shows the whole clip where somebody trimmed it in place.

mod fragment;
mod table;

use super::colour::Colour;
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::limits::Limits;
use crate::sniff::Format;

/// One coded frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Position of its first byte in the file.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) size: u32,
    /// When it is shown, in units of the track. Only the order counts.
    pub(super) shown_at: i64,
}

/// The first video track.
#[derive(Debug)]
pub(super) struct Track {
    /// Size in pixels that the sample entry gives.
    pub(super) size: (u32, u32),
    /// Body of the `avcC` box.
    pub(super) avcc: Vec<u8>,
    /// Matrix and range from a `colr` box.
    pub(super) colour: Option<Colour>,
    /// In order of decoding.
    pub(super) samples: Vec<Sample>,
    /// Length in seconds.
    pub(super) seconds: f64,
}

/// What the movie box says about the track; fragments need it too.
struct Header<'a> {
    track_id: u32,
    timescale: u32,
    size: (u32, u32),
    avcc: &'a [u8],
    colour: Option<Colour>,
    tables: Bytes<'a>,
}

fn damaged(detail: impl Into<String>) -> MediaError {
    MediaError::corrupt(Format::Mp4, detail)
}

fn short(part: &str) -> MediaError {
    damaged(format!("its {part} is cut off"))
}

/// Reads the first video track.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Track, MediaError> {
    let missing =
        || damaged("it has no movie header (moov): the recording or the transfer broke off");
    let (_, moov) = boxes(bytes)
        .find(|(name, _)| name == b"moov")
        .ok_or_else(missing)?;
    let header = find_track(moov)?;
    let (mut samples, mut duration) = table::read(&header, limits)?;
    fragment::read(bytes, moov, &header, limits, &mut samples, &mut duration)?;
    let seconds = if header.timescale == 0 {
        0.0
    } else {
        duration as f64 / f64::from(header.timescale)
    };
    if samples.is_empty() {
        return Err(damaged("its video track has no frames"));
    }
    limits.check_stored(header.size.0, header.size.1, samples.len() as u64, seconds)?;
    Ok(Track {
        size: header.size,
        avcc: header.avcc.to_vec(),
        colour: header.colour,
        samples,
        seconds,
    })
}

/// The boxes that follow each other in `bytes`, each with the position of its first byte. The last one may claim more
/// than there is: its body is what there is.
fn boxes_at(bytes: &[u8]) -> impl Iterator<Item = (usize, [u8; 4], &[u8])> {
    let mut reader = Bytes::new(bytes);
    std::iter::from_fn(move || {
        let start = bytes.len() - reader.rest().len();
        let short = u64::from(reader.be32()?);
        let name = reader.array()?;
        let body = match short {
            0 => u64::MAX,
            1 => reader.be64()?.checked_sub(16)?,
            size => size.checked_sub(8)?,
        };
        let there = reader.rest().len();
        let body = reader.take(usize::try_from(body).unwrap_or(usize::MAX).min(there))?;
        Some((start, name, body))
    })
}

fn boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    boxes_at(bytes).map(|(_, name, body)| (name, body))
}

fn child<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes)
        .find(|(name, _)| name == wanted)
        .map(|(_, body)| body)
}

/// Follows a path of nested boxes.
fn inside<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter()
        .try_fold(bytes, |bytes, name| child(bytes, name))
}

/// A box with version and flags in front of its body.
fn full_box(body: &[u8]) -> Option<(u8, u32, Bytes<'_>)> {
    let mut reader = Bytes::new(body);
    let word = reader.be32()?;
    Some(((word >> 24) as u8, word & 0x00ff_ffff, reader))
}

fn find_track(moov: &[u8]) -> Result<Header<'_>, MediaError> {
    let is_video = |trak: &&[u8]| {
        let handler = inside(trak, &[b"mdia", b"hdlr"]).and_then(|body| body.get(8..12));
        handler == Some(b"vide".as_slice())
    };
    let trak = boxes(moov)
        .filter_map(|(name, body)| (&name == b"trak").then_some(body))
        .find(is_video)
        .ok_or_else(|| MediaError::unsupported(Format::Mp4, "no video track"))?;
    let mdhd = inside(trak, &[b"mdia", b"mdhd"]).and_then(full_box);
    let timescale = mdhd.and_then(|(version, _, mut reader)| {
        reader.take(if version == 1 { 16 } else { 8 })?;
        reader.be32()
    });
    let tkhd = child(trak, b"tkhd").and_then(full_box);
    let track_id = tkhd.and_then(|(version, _, mut reader)| {
        reader.take(if version == 1 { 16 } else { 8 })?;
        reader.be32()
    });
    let stbl = inside(trak, &[b"mdia", b"minf", b"stbl"]).ok_or_else(|| short("sample table"))?;
    let entries = child(stbl, b"stsd")
        .and_then(full_box)
        .ok_or_else(|| short("sample description"))?
        .2;
    let (codec, entry) = entries
        .rest()
        .get(4..)
        .and_then(|list| boxes(list).next())
        .ok_or_else(|| short("sample description"))?;
    if !matches!(&codec, b"avc1" | b"avc3") {
        return Err(MediaError::unsupported(
            Format::Mp4,
            format!(
                "the video codec {}; convert it to H.264 (8 bits, 4:2:0)",
                codec_name(codec)
            ),
        ));
    }
    let (size, children) = visual_entry(entry).ok_or_else(|| short("sample description"))?;
    let avcc = child(children, b"avcC").ok_or_else(|| short("decoder configuration"))?;
    Ok(Header {
        track_id: track_id.ok_or_else(|| short("track header"))?,
        timescale: timescale.ok_or_else(|| short("media header"))?,
        size,
        avcc,
        colour: child(children, b"colr").and_then(colour),
        tables: Bytes::new(stbl),
    })
}

/// Size and child boxes of a `VisualSampleEntry` (ISO/IEC 14496-12, 12.1.3).
fn visual_entry(entry: &[u8]) -> Option<((u32, u32), &[u8])> {
    let mut reader = Bytes::new(entry);
    reader.take(24)?;
    let size = (u32::from(reader.be16()?), u32::from(reader.be16()?));
    reader.take(50)?;
    Some((size, reader.rest()))
}

/// Matrix and range of a `colr` box; QuickTime's `nclc` has no range.
fn colour(body: &[u8]) -> Option<Colour> {
    let mut reader = Bytes::new(body);
    let kind = reader.array::<4>()?;
    reader.take(4)?;
    let matrix = u8::try_from(reader.be16()?).ok()?;
    match &kind {
        b"nclx" => Some(Colour {
            matrix,
            full_range: reader.u8()? & 0x80 != 0,
        }),
        b"nclc" => Some(Colour {
            matrix,
            full_range: false,
        }),
        _ => None,
    }
}

fn codec_name(code: [u8; 4]) -> String {
    let printed: String = code
        .iter()
        .map(|&byte| char::from(byte))
        .filter(char::is_ascii_graphic)
        .collect();
    let known = match &code {
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => "HEVC (H.265)",
        b"vvc1" | b"vvi1" => "VVC (H.266)",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"mp4v" => "MPEG-4 Part 2",
        b"s263" | b"h263" => "H.263",
        b"jpeg" | b"mjpa" | b"mjpb" => "Motion JPEG",
        b"encv" => "unknown, as it is encrypted",
        [b'a', b'p', ..] => "ProRes",
        _ => return format!("'{printed}'"),
    };
    format!("{known} ('{printed}')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_every_kind_of_size() {
        let mut bytes = b"\0\0\0\x0aab00xy".to_vec();
        bytes.extend_from_slice(b"\0\0\0\x01cd00\0\0\0\0\0\0\0\x12zz");
        bytes.extend_from_slice(b"\0\0\0\0ef00rest");
        let found: Vec<_> = boxes(&bytes).collect();
        assert_eq!(
            found,
            [
                (*b"ab00", b"xy".as_slice()),
                (*b"cd00", b"zz"),
                (*b"ef00", b"rest")
            ]
        );
        assert_eq!(boxes(b"\0\0\0\x04ab00xy").count(), 0);
        assert_eq!(
            boxes(b"\xff\xff\xff\xffab00xy").next(),
            Some((*b"ab00", b"xy".as_slice()))
        );
        assert_eq!(boxes(b"\0\0\0\x01ab00\0\0").count(), 0);
    }

    #[test]
    fn a_codec_is_named() {
        assert_eq!(codec_name(*b"hvc1"), "HEVC (H.265) ('hvc1')");
        assert_eq!(codec_name(*b"zq\x01!"), "'zq!'");
    }
}

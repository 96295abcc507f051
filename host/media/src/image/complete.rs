//! Is the file all there? Two decoders fill what is missing with grey, or believe a size that the header denies; a
//! walk over the container's markers finds both without decoding.

use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::sniff::Format;

/// A JPEG has to reach its end-of-image marker. Decoders in the habit of showing as much as they can fill the rest
/// with grey instead of failing.
pub(super) fn check_jpeg(bytes: &[u8]) -> Result<(), MediaError> {
    match walk_jpeg(bytes) {
        Some(()) => Ok(()),
        None => Err(MediaError::corrupt(
            Format::Jpeg,
            "it ends before its end-of-image marker",
        )),
    }
}

fn walk_jpeg(bytes: &[u8]) -> Option<()> {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: u8 = 0xd9;
    let mut reader = Bytes::new(bytes);
    reader.take(2)?;
    loop {
        // Between segments and inside a scan alike: on to the next marker. A zero after the 0xff is a stuffed data
        // byte, 0xd0 to 0xd7 are restart markers, 0x01 is a marker without length, and 0xff is padding.
        let start = reader.rest().iter().position(|&byte| byte == 0xff)?;
        reader.take(start)?;
        reader.take(1)?;
        match *reader.rest().first()? {
            0xff => {}
            0x00 | 0x01 | 0xd0..=0xd8 => {
                reader.take(1)?;
            }
            END_OF_IMAGE => return Some(()),
            marker => {
                reader.take(1)?;
                let length = usize::from(reader.be16()?);
                let body = length.checked_sub(2)?;
                reader.take(body)?;
                if marker == START_OF_SCAN && reader.rest().is_empty() {
                    return None;
                }
            }
        }
    }
}

/// A WebP has to hold as many bytes as its RIFF header says, and the pictures inside must not be larger than its
/// canvas.
pub(super) fn check_webp(bytes: &[u8]) -> Result<(), MediaError> {
    walk_webp(bytes).unwrap_or_else(|| {
        Err(MediaError::corrupt(
            Format::WebP,
            "it ends before its pixels do",
        ))
    })
}

fn walk_webp(bytes: &[u8]) -> Option<Result<(), MediaError>> {
    let mut reader = Bytes::new(bytes);
    reader.take(4)?;
    let size = usize::try_from(reader.le32()?).ok()?;
    let mut chunks = Bytes::new(Bytes::new(reader.rest()).take(size)?);
    chunks.take(4)?;
    let mut canvas = None;
    while chunks.rest().len() >= 8 {
        let (name, body) = riff_chunk(&mut chunks)?;
        match &name {
            b"VP8X" => {
                let mut header = Bytes::new(body);
                header.take(4)?;
                canvas = Some((header.le24()? + 1, header.le24()? + 1));
            }
            b"VP8 " => {
                if let Some(Err(error)) = canvas.map(|canvas| check_webp_frame(body, canvas)) {
                    return Some(Err(error));
                }
            }
            _ => {}
        }
    }
    Some(Ok(()))
}

/// The name and body of the next chunk; bodies are padded to an even length.
pub(crate) fn riff_chunk<'a>(reader: &mut Bytes<'a>) -> Option<([u8; 4], &'a [u8])> {
    let name = reader.array()?;
    let size = usize::try_from(reader.le32()?).ok()?;
    let body = reader.take(size)?;
    if size % 2 == 1 {
        // The last chunk of a file often lacks its padding.
        reader.take(1);
    }
    Some((name, body))
}

/// A lossy picture states its own size, which the library believes before it compares it with what is around.
pub(crate) fn check_webp_frame(vp8: &[u8], (width, height): (u32, u32)) -> Result<(), MediaError> {
    let size = || {
        let mut header = Bytes::new(vp8);
        header.take(6)?;
        Some((
            u32::from(header.le16()? & 0x3fff),
            u32::from(header.le16()? & 0x3fff),
        ))
    };
    match size() {
        Some((w, h)) if w <= width && h <= height => Ok(()),
        Some((w, h)) => Err(MediaError::corrupt(
            Format::WebP,
            format!("a picture of {w} x {h} is inside a canvas of {width} x {height}"),
        )),
        None => Err(MediaError::corrupt(
            Format::WebP,
            "it ends before its pixels do",
        )),
    }
}

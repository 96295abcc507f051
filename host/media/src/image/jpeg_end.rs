//! Is the JPEG all there?

use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::sniff::Format;

/// A JPEG has to reach its end-of-image marker. Decoders in the habit of showing as much as they can fill the rest
/// with grey instead of failing.
pub(super) fn check(bytes: &[u8]) -> Result<(), MediaError> {
    match walk(bytes) {
        Some(()) => Ok(()),
        None => Err(MediaError::corrupt(
            Format::Jpeg,
            "it ends before its end-of-image marker",
        )),
    }
}

fn walk(bytes: &[u8]) -> Option<()> {
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

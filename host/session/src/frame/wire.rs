//! Fixed little-endian fields, read and written within bounds.

use msao_core::digest::Digest;

use super::{FrameError, Kind};

/// Reads the fields of one payload; every error names the field.
pub(super) struct Reader<'a> {
    kind: Kind,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(kind: Kind, payload: &'a [u8]) -> Self {
        Reader {
            kind,
            left: payload,
        }
    }

    pub fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let (bytes, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(FrameError::Truncated {
                kind: self.kind,
                field,
            })?;
        self.left = left;
        Ok(*bytes)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        Ok(u8::from_le_bytes(self.bytes(field)?))
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.bytes(field)?))
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.bytes(field)?))
    }

    pub fn f64(&mut self, field: &'static str) -> Result<f64, FrameError> {
        Ok(f64::from_le_bytes(self.bytes(field)?))
    }

    pub fn digest(&mut self, field: &'static str) -> Result<Digest, FrameError> {
        Ok(Digest(self.bytes(field)?))
    }

    /// `count` ids. Allocates no more than the payload holds.
    pub fn ids(&mut self, count: usize, field: &'static str) -> Result<Vec<u32>, FrameError> {
        let truncated = FrameError::Truncated {
            kind: self.kind,
            field,
        };
        let bytes = count.saturating_mul(4);
        let (ids, left) = self.left.split_at_checked(bytes).ok_or(truncated)?;
        self.left = left;
        Ok(read_ids(ids))
    }

    /// Nothing may follow the last field.
    pub fn end(self) -> Result<(), FrameError> {
        match self.left.len() {
            0 => Ok(()),
            bytes => Err(FrameError::Trailing {
                kind: self.kind,
                bytes,
            }),
        }
    }
}

/// Bytes as ids; what does not fill an id at the end is left out.
pub(super) fn read_ids(bytes: &[u8]) -> Vec<u32> {
    let (ids, _) = bytes.as_chunks::<4>();
    ids.iter().map(|id| u32::from_le_bytes(*id)).collect()
}

pub(super) fn write_ids(ids: &[u32], out: &mut Vec<u8>) {
    for id in ids {
        out.extend_from_slice(&id.to_le_bytes());
    }
}

/// Holds a length against its limit.
pub(super) fn at_most(
    kind: Kind,
    field: &'static str,
    limit: usize,
    found: usize,
) -> Result<(), FrameError> {
    if found <= limit {
        return Ok(());
    }
    Err(FrameError::TooLarge {
        kind,
        field,
        limit: limit as u64,
        found: found as u64,
    })
}

/// Refuses a field that is outside its range.
pub(super) fn must(
    kind: Kind,
    field: &'static str,
    allowed: &'static str,
    holds: bool,
) -> Result<(), FrameError> {
    if holds {
        Ok(())
    } else {
        Err(FrameError::Range {
            kind,
            field,
            allowed,
        })
    }
}

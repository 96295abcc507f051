//! Samples in movie fragments (`moof`), as streaming recorders write them.

use super::{Header, Sample, boxes, boxes_at, child, full_box, short};
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::limits::Limits;

/// What a fragment takes from the movie box or its own header where a run does not say it.
#[derive(Clone, Copy, Default)]
struct Defaults {
    duration: u32,
    size: u32,
}

/// Appends the track's samples of all fragments.
pub(super) fn read(
    bytes: &[u8],
    moov: &[u8],
    header: &Header<'_>,
    limits: &Limits,
    samples: &mut Vec<Sample>,
    duration: &mut u64,
) -> Result<(), MediaError> {
    let base = extends(moov, header.track_id).unwrap_or_default();
    for (start, _, moof) in boxes_at(bytes).filter(|(_, name, _)| name == b"moof") {
        let start = start as u64;
        for (name, traf) in boxes(moof) {
            if &name == b"traf" {
                let mut fragment = Fragment {
                    start,
                    header,
                    limits,
                    samples,
                    duration,
                };
                fragment
                    .track(traf, base)
                    .unwrap_or_else(|| Err(short("fragment")))?;
            }
        }
    }
    Ok(())
}

/// `trex`: the defaults of the track.
fn extends(moov: &[u8], track_id: u32) -> Option<Defaults> {
    boxes(child(moov, b"mvex")?)
        .filter(|(name, _)| name == b"trex")
        .find_map(|(_, body)| {
            let (_, _, mut reader) = full_box(body)?;
            let id = reader.be32()?;
            reader.be32()?;
            let found = Defaults {
                duration: reader.be32()?,
                size: reader.be32()?,
            };
            (id == track_id).then_some(found)
        })
}

struct Fragment<'a, 'h> {
    /// Position of the fragment's box, from which its offsets count.
    start: u64,
    header: &'a Header<'h>,
    limits: &'a Limits,
    samples: &'a mut Vec<Sample>,
    duration: &'a mut u64,
}

impl Fragment<'_, '_> {
    /// One `traf`. The outer `None` means that a box is cut off.
    fn track(&mut self, traf: &[u8], mut defaults: Defaults) -> Option<Result<(), MediaError>> {
        let (_, flags, mut tfhd) = full_box(child(traf, b"tfhd")?)?;
        if tfhd.be32()? != self.header.track_id {
            return Some(Ok(()));
        }
        let base = if flags & 0x01 != 0 {
            tfhd.be64()?
        } else {
            self.start
        };
        if flags & 0x02 != 0 {
            tfhd.be32()?;
        }
        if flags & 0x08 != 0 {
            defaults.duration = tfhd.be32()?;
        }
        if flags & 0x10 != 0 {
            defaults.size = tfhd.be32()?;
        }
        if let Some((version, _, mut tfdt)) = child(traf, b"tfdt").and_then(full_box) {
            let time = if version == 1 {
                tfdt.be64()?
            } else {
                u64::from(tfdt.be32()?)
            };
            // The duration runs on from here, so that a gap between fragments counts.
            *self.duration = if self.samples.is_empty() {
                0
            } else {
                time.max(*self.duration)
            };
        }
        let mut at = base;
        for (name, body) in boxes(traf) {
            if &name == b"trun" {
                let (_, flags, reader) = full_box(body)?;
                match self.run(flags, reader, base, &mut at, defaults)? {
                    Ok(()) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        Some(Ok(()))
    }

    fn run(
        &mut self,
        flags: u32,
        mut trun: Bytes<'_>,
        base: u64,
        at: &mut u64,
        defaults: Defaults,
    ) -> Option<Result<(), MediaError>> {
        let count = trun.be32()?;
        let (width, height) = self.header.size;
        let total = self.samples.len() as u64 + u64::from(count);
        if let Err(error) = self.limits.check_stored(width, height, total, 0.0) {
            return Some(Err(error));
        }
        if flags & 0x01 != 0 {
            *at = base.saturating_add_signed(i64::from(trun.be32()?.cast_signed()));
        }
        if flags & 0x04 != 0 {
            trun.be32()?;
        }
        for _ in 0..count {
            let duration = if flags & 0x100 != 0 {
                trun.be32()?
            } else {
                defaults.duration
            };
            let size = if flags & 0x200 != 0 {
                trun.be32()?
            } else {
                defaults.size
            };
            if flags & 0x400 != 0 {
                trun.be32()?;
            }
            let shift = if flags & 0x800 != 0 {
                i64::from(trun.be32()?.cast_signed())
            } else {
                0
            };
            let now = i64::try_from(*self.duration).unwrap_or(i64::MAX);
            self.samples.push(Sample {
                offset: *at,
                size,
                shown_at: now.saturating_add(shift),
            });
            *at = at.saturating_add(u64::from(size));
            *self.duration = self.duration.saturating_add(u64::from(duration));
        }
        Some(Ok(()))
    }
}

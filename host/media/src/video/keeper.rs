//! Which frames are wanted, and the ones that have come so far.

use super::VideoInfo;
use crate::error::MediaError;
use crate::image::RgbImage;
use crate::limits::Limits;
use crate::sniff::Format;

/// Collects the chosen frames in whatever order a decoder gives them.
pub(super) struct Keeper {
    /// What was chosen: ascending, repetitions included.
    indices: Vec<usize>,
    /// The same without repetitions, each with its frame once it came.
    slots: Vec<(usize, Option<RgbImage>)>,
    missing: usize,
}

impl Keeper {
    pub(super) fn new(
        info: &VideoInfo,
        indices: Vec<usize>,
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        let ascending = indices.is_sorted();
        let past = indices.iter().find(|&&index| index >= info.frames);
        if let Some(&index) = past.or(indices.first().filter(|_| !ascending)) {
            return Err(MediaError::BadChoice {
                index,
                frames: info.frames,
            });
        }
        limits.check_kept(info.width, info.height, indices.len())?;
        let mut unique = indices.clone();
        unique.dedup();
        let slots: Vec<_> = unique.into_iter().map(|index| (index, None)).collect();
        Ok(Self {
            indices,
            missing: slots.len(),
            slots,
        })
    }

    /// Whether the frame with this index was chosen and has not come yet.
    pub(super) fn wants(&self, index: usize) -> bool {
        self.slot(index)
            .and_then(|slot| self.slots.get(slot))
            .is_some_and(|(_, frame)| frame.is_none())
    }

    pub(super) fn keep(&mut self, index: usize, frame: RgbImage) {
        let slot = self.slot(index);
        if let Some((_, empty @ None)) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *empty = Some(frame);
            self.missing -= 1;
        }
    }

    fn slot(&self, index: usize) -> Option<usize> {
        self.slots
            .binary_search_by_key(&index, |(index, _)| *index)
            .ok()
    }

    /// Whether all that was chosen is there, so that nothing more needs decoding.
    pub(super) fn done(&self) -> bool {
        self.missing == 0
    }

    /// The frames, one for every index that was chosen, and the indices.
    pub(super) fn finish(self, format: Format) -> Result<(Vec<RgbImage>, Vec<usize>), MediaError> {
        let mut frames: Vec<RgbImage> = Vec::with_capacity(self.indices.len());
        let mut slots = self.slots.into_iter();
        let mut last = None;
        for &index in &self.indices {
            let again = frames.last().filter(|_| last == Some(index)).cloned();
            let frame = again.or_else(|| slots.next().and_then(|(_, frame)| frame));
            frames.push(frame.ok_or_else(|| {
                MediaError::corrupt(format, format!("it ends before frame {index}"))
            })?);
            last = Some(index);
        }
        Ok((frames, self.indices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: VideoInfo = VideoInfo {
        width: 1,
        height: 1,
        frames: 5,
        fps: 1.0,
    };

    fn dot(value: u8) -> RgbImage {
        RgbImage {
            width: 1,
            height: 1,
            data: vec![value; 3],
        }
    }

    #[test]
    fn frames_come_in_any_order_and_repeat() {
        let mut keeper = Keeper::new(&INFO, vec![0, 2, 2, 4], &Limits::default()).unwrap();
        assert!(keeper.wants(4) && !keeper.wants(3));
        for index in [4, 0, 2] {
            assert!(!keeper.done());
            keeper.keep(index, dot(index as u8));
            assert!(!keeper.wants(index));
        }
        assert!(keeper.done());
        let (frames, indices) = keeper.finish(Format::Gif).unwrap();
        assert_eq!(indices, [0, 2, 2, 4]);
        assert_eq!(frames, [dot(0), dot(2), dot(2), dot(4)]);
    }

    #[test]
    fn a_missing_frame_is_damage_and_a_bad_choice_an_error() {
        let mut keeper = Keeper::new(&INFO, vec![1, 3], &Limits::default()).unwrap();
        keeper.keep(1, dot(1));
        assert!(matches!(
            keeper.finish(Format::Gif),
            Err(MediaError::Corrupt { .. })
        ));
        let choose =
            |indices: &[usize]| Keeper::new(&INFO, indices.to_vec(), &Limits::default()).err();
        assert!(matches!(
            choose(&[5]),
            Some(MediaError::BadChoice {
                index: 5,
                frames: 5
            })
        ));
        assert!(matches!(
            choose(&[2, 1]),
            Some(MediaError::BadChoice { .. })
        ));
        assert!(choose(&[]).is_none());
    }
}

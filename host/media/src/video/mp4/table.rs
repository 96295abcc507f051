//! The sample table of a movie box: sizes, chunks and times put together to one list.

use super::{Header, Sample, child, damaged, full_box, short};
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::limits::Limits;

/// The samples in order of decoding, and how long they last together in units of the track.
pub(super) fn read(header: &Header<'_>, limits: &Limits) -> Result<(Vec<Sample>, u64), MediaError> {
    let stbl = header.tables.rest();
    let body = |name: &[u8; 4]| child(stbl, name).and_then(full_box);
    let (_, _, mut sizes) = body(b"stsz").ok_or_else(|| short("sample size table"))?;
    let common = sizes.be32().ok_or_else(|| short("sample size table"))?;
    let count = sizes.be32().ok_or_else(|| short("sample size table"))?;
    if count == 0 {
        return Ok((Vec::new(), 0));
    }
    // The one check that keeps a claimed count from becoming a list.
    limits.check_stored(header.size.0, header.size.1, u64::from(count), 0.0)?;

    let mut samples = Vec::new();
    for _ in 0..count {
        let size = if common != 0 {
            Some(common)
        } else {
            sizes.be32()
        };
        samples.push(Sample {
            size: size.ok_or_else(|| short("sample size table"))?,
            ..Sample::default()
        });
    }
    let (_, _, stsc) = body(b"stsc").ok_or_else(|| short("chunk table"))?;
    let offsets = chunk_offsets(stbl).ok_or_else(|| short("chunk offset table"))?;
    place(&mut samples, stsc, &offsets)?;

    let (_, _, stts) = body(b"stts").ok_or_else(|| short("time table"))?;
    let duration = decode_times(&mut samples, stts)?;
    if let Some((_, _, ctts)) = body(b"ctts") {
        composition_times(&mut samples, ctts)?;
    }
    Ok((samples, duration))
}

/// `stco` or `co64`: no longer than the bytes that hold it.
fn chunk_offsets(stbl: &[u8]) -> Option<Vec<u64>> {
    let wide = child(stbl, b"stco").is_none();
    let (_, _, mut reader) = full_box(child(stbl, if wide { b"co64" } else { b"stco" })?)?;
    let count = reader.be32()?;
    (0..count)
        .map(|_| {
            if wide {
                reader.be64()
            } else {
                reader.be32().map(u64::from)
            }
        })
        .collect()
}

/// Gives every sample its position: chunks follow each other, samples follow each other inside a chunk.
fn place(samples: &mut [Sample], mut stsc: Bytes<'_>, offsets: &[u64]) -> Result<(), MediaError> {
    let cut = || short("chunk table");
    let runs = stsc.be32().ok_or_else(cut)?;
    let mut run = |left: &mut u32| -> Option<(u32, u32)> {
        *left = left.checked_sub(1)?;
        let (first, per_chunk) = (stsc.be32()?, stsc.be32()?);
        stsc.be32()?;
        Some((first, per_chunk))
    };
    let mut left = runs;
    let (_, mut per_chunk) = run(&mut left).ok_or_else(cut)?;
    let mut next = run(&mut left);
    let mut rest = samples.iter_mut();
    let mut placed = 0;
    let total = rest.len();
    for (chunk, &offset) in (1u32..).zip(offsets) {
        if let Some((_, count)) = next.filter(|(first, _)| *first <= chunk) {
            per_chunk = count;
            next = run(&mut left);
        }
        let mut at = offset;
        for sample in rest.by_ref().take(per_chunk as usize) {
            sample.offset = at;
            at = at.saturating_add(u64::from(sample.size));
            placed += 1;
        }
        if placed == total {
            return Ok(());
        }
    }
    Err(damaged(format!(
        "its chunk table places {placed} of {total} frames"
    )))
}

/// Decoding times from `stts`; the sum is the duration.
fn decode_times(samples: &mut [Sample], mut stts: Bytes<'_>) -> Result<u64, MediaError> {
    let runs = stts.be32().ok_or_else(|| short("time table"))?;
    let mut rest = samples.iter_mut();
    let mut now = 0u64;
    for _ in 0..runs {
        let (count, delta) = stts
            .be32()
            .zip(stts.be32())
            .ok_or_else(|| short("time table"))?;
        for sample in rest.by_ref().take(count as usize) {
            sample.shown_at = i64::try_from(now).unwrap_or(i64::MAX);
            now = now.saturating_add(u64::from(delta));
        }
    }
    match rest.len() {
        0 => Ok(now),
        left => Err(damaged(format!("its time table leaves out {left} frames"))),
    }
}

/// Adds the offsets of `ctts`. Version 0 says unsigned, but writers of negative offsets do not all say version 1, and
/// no offset is so long that it would need the top bit.
fn composition_times(samples: &mut [Sample], mut ctts: Bytes<'_>) -> Result<(), MediaError> {
    let runs = ctts.be32().ok_or_else(|| short("composition table"))?;
    let mut rest = samples.iter_mut();
    for _ in 0..runs {
        let (count, offset) = ctts
            .be32()
            .zip(ctts.be32())
            .ok_or_else(|| short("composition table"))?;
        for sample in rest.by_ref().take(count as usize) {
            sample.shown_at = sample
                .shown_at
                .saturating_add(i64::from(offset.cast_signed()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn samples_follow_each_other_inside_their_chunks() {
        let mut samples = [10, 20, 30, 40, 50].map(|size| Sample {
            size,
            ..Sample::default()
        });
        // Two samples in the first chunk, one in every later one.
        let stsc = words(&[2, 1, 2, 1, 2, 1, 1]);
        place(&mut samples, Bytes::new(&stsc), &[100, 200, 300, 400]).unwrap();
        assert_eq!(
            samples.map(|sample| sample.offset),
            [100, 110, 200, 300, 400]
        );
        assert!(place(&mut samples, Bytes::new(&stsc), &[100, 200, 300]).is_err());
        assert!(place(&mut samples, Bytes::new(&words(&[1, 1])), &[100]).is_err());
    }

    #[test]
    fn times_run_on_and_offsets_may_be_negative() {
        let mut samples = [Sample::default(); 4];
        assert_eq!(
            decode_times(&mut samples, Bytes::new(&words(&[2, 3, 10, 1, 5]))).unwrap(),
            35
        );
        composition_times(
            &mut samples,
            Bytes::new(&words(&[2, 1, 20, 3, (-10i32).cast_unsigned()])),
        )
        .unwrap();
        assert_eq!(samples.map(|sample| sample.shown_at), [20, 0, 10, 20]);
        assert!(decode_times(&mut samples, Bytes::new(&words(&[1, 3, 10]))).is_err());
    }
}

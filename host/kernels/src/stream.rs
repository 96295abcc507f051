//! Reading memory as fast as it comes: the yardstick for kernels that stream weights.

/// The sum of all bytes' 64-bit words, wrapping; a rest below 256 bytes is left out. With AVX2 whole lines are asked for
/// ahead of their use, so that nothing but the memory holds it up.
pub fn sum_stream(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: there is AVX2.
        return unsafe { x86::sum(bytes) };
    }
    let mut lanes = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// How far ahead lines are asked for, in bytes.
    const AHEAD: usize = 2048;

    #[target_feature(enable = "avx2")]
    pub fn sum(bytes: &[u8]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for lines in bytes.as_chunks::<256>().0 {
            for (sum, half) in sums.iter_mut().zip(lines.as_chunks::<32>().0) {
                // SAFETY: there are 32 bytes; a prefetch may name any address.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(half.as_ptr().wrapping_add(AHEAD).cast());
                    *sum = _mm256_add_epi64(*sum, _mm256_loadu_si256(half.as_ptr().cast()));
                }
            }
        }
        let whole = (sums.into_iter()).fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi64(a, b));
        let lanes = [
            _mm256_extract_epi64::<0>(whole),
            _mm256_extract_epi64::<1>(whole),
            _mm256_extract_epi64::<2>(whole),
            _mm256_extract_epi64::<3>(whole),
        ];
        lanes
            .into_iter()
            .fold(0, |sum, lane| sum.wrapping_add(lane.cast_unsigned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let bytes: Vec<u8> = (0u64..1024).flat_map(u64::to_le_bytes).collect();
        assert_eq!(sum_stream(&bytes), 1023 * 1024 / 2);
        assert_eq!(sum_stream(bytes.get(..255).unwrap_or_default()), 0);
    }
}

//! Mono sound at 16 kHz and 16 bits as FLAC: of the format (RFC 9639) the fixed predictors and Rice codes.
//!
//! The encoders there are do more (stereo, adaptive predictors, every depth) and are more to depend on than these few
//! lines. The fixed predictors take some percent more bits than theirs for sounds with noise in them, and up to twice as
//! many for pure tones. Blocks are of 4096 samples; for each the predictor, the partition and the Rice parameters with
//! the fewest bits are taken, so the result is a function of the samples alone.

use crate::audio::SAMPLE_RATE;
use crate::bytes::Bytes;

/// Samples of a block; the last one may be shorter.
const BLOCK: usize = 4096;

/// The most halvings of a block into partitions that have a Rice parameter each.
const MAX_HALVINGS: u32 = 5;

/// Rice parameters that four bits can name; 15 would be an escape.
const PARAMETERS: std::ops::Range<u32> = 0..15;

/// First bytes of subframes (RFC 9639, 9.2.1): a zero, six bits of type, a zero. The order goes into the type's last bits.
const CONSTANT: u32 = 0b0000_0000;
const VERBATIM: u32 = 0b0000_0010;
const FIXED: u32 = 0b0001_0000;

/// Offset of the sampling rate in a file that begins with its STREAMINFO block, as all do.
const RATE_AT: usize = 18;

/// The sampling rate in Hz that a file gives in its header.
pub(super) fn rate(file: &[u8]) -> Option<u32> {
    let mut reader = Bytes::new(file);
    (reader.take(4)? == b"fLaC").then_some(())?;
    reader.take(RATE_AT - 4)?;
    Some(reader.be32()? >> 12)
}

/// A whole file.
pub(super) fn encode(samples: &[i16]) -> Vec<u8> {
    let mut file = header(samples.len() as u64);
    for (number, block) in (0_u32..).zip(samples.chunks(BLOCK)) {
        frame(number, block, &mut file);
    }
    file
}

/// The marker and a STREAMINFO block (RFC 9639, 8.2). Sizes of frames and the checksum of all samples are left unknown,
/// as zeros: each frame has a checksum, and the shipment says how long it is.
fn header(samples: u64) -> Vec<u8> {
    let mut out = b"fLaC\x80\0\0\x22".to_vec();
    for _ in ["shortest", "longest"] {
        out.extend((BLOCK as u16).to_be_bytes());
    }
    out.extend([0; 6]);
    let (channels_less_one, bits_less_one) = (0, 15);
    let packed = u64::from(SAMPLE_RATE) << 44
        | channels_less_one << 41
        | bits_less_one << 36
        | (samples & ((1 << 36) - 1));
    out.extend(packed.to_be_bytes());
    out.extend([0; 16]);
    out
}

/// Appends one frame (RFC 9639, 9).
fn frame(number: u32, block: &[i16], file: &mut Vec<u8>) {
    let mut out = Bits::default();
    // Sync code, blocks of one size.
    out.put(0xfff8, 16);
    // 4096 samples or 16 bits at the end of the header; 16 kHz; mono; 16 bits a sample.
    let odd = block.len() != BLOCK;
    out.put(if odd { 0b0111 } else { 0b1100 }, 4);
    out.put(0b0101_0000_1000, 12);
    out.number(number);
    if odd {
        out.put(block.len() as u32 - 1, 16);
    }
    let check = crc8(&out.bytes);
    out.put(check.into(), 8);
    subframe(block, &mut out);
    out.align();
    let check = crc16(&out.bytes);
    out.put(check.into(), 16);
    file.append(&mut out.bytes);
}

fn subframe(block: &[i16], out: &mut Bits) {
    let raw = |value: i16| u32::from(value as u16);
    let plain_bits = 16 * block.len() as u64;
    let best = (0..=4)
        .filter_map(|order| Coded::of(block, order))
        .min_by_key(|coded| coded.bits);
    match (block, best) {
        ([first, rest @ ..], _) if rest.iter().all(|sample| sample == first) => {
            out.put(CONSTANT, 8);
            out.put(raw(*first), 16);
        }
        (_, Some(coded)) if coded.bits < plain_bits => {
            out.put(FIXED | (coded.order as u32) << 1, 8);
            for &sample in block.iter().take(coded.order) {
                out.put(raw(sample), 16);
            }
            coded.write(out);
        }
        _ => {
            out.put(VERBATIM, 8);
            block.iter().for_each(|&sample| out.put(raw(sample), 16));
        }
    }
}

/// A block behind a predictor, and the cheapest way to write it.
struct Coded {
    /// Of the predictor, which is also how many samples precede the residual.
    order: usize,
    /// What the predictor misses, small numbers first: 0, -1, 1, -2, 2 are 0, 1, 2, 3, 4.
    folded: Vec<u32>,
    halvings: u32,
    /// Rice parameter of each partition.
    parameters: Vec<u32>,
    /// Of all this.
    bits: u64,
}

impl Coded {
    /// `None` where the block is too short for the predictor.
    fn of(block: &[i16], order: usize) -> Option<Self> {
        let folded = folded(block, order)?;
        let possible = block.len().trailing_zeros().min(MAX_HALVINGS);
        let halvings = (0..=possible)
            .rev()
            .find(|halvings| block.len() >> halvings > order)?;
        // Of the finest partitions, what each parameter costs; coarser ones cost the sum of those they are made of.
        let mut costs: Vec<Vec<u64>> = partitions(&folded, block.len(), order, halvings)
            .map(|part| PARAMETERS.map(|k| cost(part, k)).collect())
            .collect();
        let mut best: Option<(u64, u32, Vec<u32>)> = None;
        for halvings in (0..=halvings).rev() {
            let chosen: Vec<(u64, u32)> = costs
                .iter()
                .filter_map(|costs| costs.iter().copied().zip(PARAMETERS).min())
                .collect();
            let bits = chosen.iter().map(|(bits, _)| bits + 4).sum();
            if best.as_ref().is_none_or(|(least, ..)| bits < *least) {
                let parameters = chosen.into_iter().map(|(_, k)| k).collect();
                best = Some((bits, halvings, parameters));
            }
            costs = costs
                .chunks(2)
                .map(|pair| PARAMETERS.map(|k| sum_of(pair, k as usize)).collect())
                .collect();
        }
        let (bits, halvings, parameters) = best?;
        Some(Self {
            order,
            folded,
            halvings,
            parameters,
            bits: bits + 16 * order as u64 + 6,
        })
    }

    /// The residual (RFC 9639, 9.2.7), with Rice parameters of four bits.
    fn write(&self, out: &mut Bits) {
        let samples = self.folded.len() + self.order;
        out.put(0b00, 2);
        out.put(self.halvings, 4);
        let parts = partitions(&self.folded, samples, self.order, self.halvings);
        for (part, &k) in parts.zip(&self.parameters) {
            out.put(k, 4);
            for &value in part {
                out.unary(value >> k);
                out.put(value & ((1 << k) - 1), k);
            }
        }
    }
}

fn sum_of(costs: &[Vec<u64>], parameter: usize) -> u64 {
    costs.iter().filter_map(|costs| costs.get(parameter)).sum()
}

/// Bits of Rice codes with parameter `k`.
fn cost(part: &[u32], k: u32) -> u64 {
    let unary: u64 = part.iter().map(|&value| u64::from(value >> k)).sum();
    unary + part.len() as u64 * u64::from(k + 1)
}

/// The residual in partitions of equally many samples, of which the first lacks those that precede it.
fn partitions(
    folded: &[u32],
    samples: usize,
    order: usize,
    halvings: u32,
) -> impl Iterator<Item = &[u32]> {
    let each = samples >> halvings;
    let (first, rest) = folded
        .split_at_checked(each - order)
        .unwrap_or((folded, &[]));
    std::iter::once(first).chain(rest.chunks(each.max(1)))
}

/// The differences of this order (RFC 9639, 9.2.5), folded. At most 20 bits and a sign: they cannot overflow.
fn folded(block: &[i16], order: usize) -> Option<Vec<u32>> {
    if block.len() <= order {
        return None;
    }
    let mut values: Vec<i32> = block.iter().map(|&sample| sample.into()).collect();
    for _ in 0..order {
        let next = values.iter().skip(1);
        values = next
            .zip(&values)
            .map(|(next, value)| next - value)
            .collect();
    }
    let fold = |value: i32| ((value << 1) ^ (value >> 31)) as u32;
    Some(values.into_iter().map(fold).collect())
}

/// Bits, the highest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// What does not fill a byte yet, in the lowest bits.
    pending: u64,
    count: u32,
}

impl Bits {
    /// The lowest `bits` (at most 32) of `value`.
    fn put(&mut self, value: u32, bits: u32) {
        self.pending = self.pending << bits | u64::from(value);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.pending >> self.count) as u8);
        }
        self.pending &= (1 << self.count) - 1;
    }

    /// So many zeros and a one.
    fn unary(&mut self, zeros: u32) {
        for _ in 0..zeros / 32 {
            self.put(0, 32);
        }
        self.put(1, zeros % 32 + 1);
    }

    /// Zeros up to the next byte.
    fn align(&mut self) {
        self.put(0, (8 - self.count) % 8);
    }

    /// The number of a frame, coded as UTF-8 would code a character, and beyond its range (RFC 9639, 9.1.5): the first
    /// byte begins with as many ones as there are bytes, all others hold six bits.
    fn number(&mut self, value: u32) {
        if value < 0x80 {
            return self.put(value, 8);
        }
        // Two bytes hold 5 + 6 bits, three 4 + 12, and so on.
        let following = (1..6).find(|n| value >> (5 * n + 6) == 0).unwrap_or(6);
        let ones = (0xff << (7 - following)) & 0xff;
        self.put(ones | value >> (6 * following), 8);
        for n in (0..following).rev() {
            self.put(0x80 | (value >> (6 * n) & 0x3f), 8);
        }
    }
}

/// Polynomial x^8 + x^2 + x + 1.
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| {
            crc << 1 ^ if crc & 0x80 == 0 { 0 } else { 0x07 }
        })
    })
}

/// Polynomial x^16 + x^15 + x^2 + 1.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc: u16, _| {
            crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x8005 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, decode_audio};

    fn decoded(file: &[u8]) -> Vec<i16> {
        let sound = decode_audio(file, &Limits::default()).unwrap();
        sound
            .samples
            .iter()
            .map(|sample| (sample * 32_768.0) as i16)
            .collect()
    }

    fn survives(samples: &[i16]) {
        let file = encode(samples);
        assert_eq!(rate(&file), Some(SAMPLE_RATE));
        assert_eq!(decoded(&file), samples, "{} samples", samples.len());
    }

    /// Numbers without a pattern, of so many bits.
    fn noise(n: usize, bits: u32) -> Vec<i16> {
        let mut state = 1_u64;
        let step = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 48) as u16 as i16) >> (16 - bits)
        };
        (0..n).map(step).collect()
    }

    fn tone(n: usize) -> Vec<i16> {
        (0..n)
            .map(|i| (9_000.0 * (i as f64 * 0.13).sin() + 500.0 * (i as f64 * 0.9).sin()) as i16)
            .collect()
    }

    #[test]
    fn any_length_survives() {
        for n in (1..40).chain([255, 256, 4095, 4096, 4097, 4098, 8192, 10_000]) {
            survives(&tone(n));
            survives(&noise(n, 16));
            survives(&vec![-7; n]);
        }
    }

    #[test]
    fn any_loudness_survives() {
        for bits in 1..=16 {
            survives(&noise(5000, bits));
        }
        let edges: Vec<i16> = (0..5000)
            .map(|i| if i % 2 == 0 { i16::MIN } else { i16::MAX })
            .collect();
        survives(&edges);
        // Nearly silent, with one click: the longest unary codes.
        let mut click = vec![0; 4096];
        click[2000] = i16::MIN;
        survives(&click);
    }

    #[test]
    fn what_has_a_pattern_gets_smaller_and_what_has_none_hardly_larger() {
        let plain = 2 * 64_000;
        assert!(encode(&tone(64_000)).len() < plain * 7 / 10);
        assert!(encode(&vec![0; 64_000]).len() < plain / 100);
        assert!(encode(&noise(64_000, 16)).len() < plain * 101 / 100);
    }

    #[test]
    fn numbers_of_frames_are_coded_as_the_format_says() {
        let coded = |value| {
            let mut bits = Bits::default();
            bits.number(value);
            bits.bytes
        };
        assert_eq!(coded(0x7f), [0x7f]);
        for character in [
            '\u{80}',
            '\u{7ff}',
            '\u{800}',
            '\u{ffff}',
            '\u{10000}',
            '\u{10ffff}',
        ] {
            let utf8 = character.to_string().into_bytes();
            assert_eq!(coded(character.into()), utf8);
        }
        assert_eq!(coded(0x3ff_ffff), [0xfb, 0xbf, 0xbf, 0xbf, 0xbf]);
        assert_eq!(coded(0x400_0000), [0xfc, 0x84, 0x80, 0x80, 0x80, 0x80]);
    }

    #[test]
    fn checksums_are_the_published_ones() {
        // Check values of CRC-8/SMBUS and CRC-16/UMTS.
        assert_eq!(crc8(b"123456789"), 0xf4);
        assert_eq!(crc16(b"123456789"), 0xfee8);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn any_samples_survive(samples in prop::collection::vec(any::<i16>(), 1..600)) {
            prop_assert_eq!(decoded(&encode(&samples)), samples);
        }
    }
}

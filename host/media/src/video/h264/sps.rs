//! What a sequence parameter set says before the decoder sees it: the size, the colours, and whether the stream uses
//! something that the decoder does not (ITU-T H.264, 7.3.2.1.1 and E.1.1).

use super::super::colour::Colour;
use crate::error::MediaError;
use crate::sniff::Format;

/// Pixels of the largest picture that the decoder takes: 36,864 macroblocks (level 5.2).
const LARGEST: u64 = 36_864 * 256;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sps {
    /// Width and height in pixels after cropping.
    pub(super) size: (u32, u32),
    /// Width and height in pixels as coded, in whole macroblocks: what the decoder allocates.
    pub(super) coded: (u32, u32),
    pub(super) colour: Colour,
}

impl Sps {
    /// Reads a unit, its header byte included.
    pub(super) fn parse(unit: &[u8]) -> Result<Self, MediaError> {
        let payload = unescape(unit.get(1..).unwrap_or_default());
        read(&mut Bits {
            bytes: &payload,
            at: 0,
        })
        .unwrap_or_else(|| {
            Err(MediaError::corrupt(
                Format::Mp4,
                "its H.264 sequence parameters are cut off",
            ))
        })
    }
}

/// The unit as the decoder has to see it: with the profile changed to Scalable Baseline (83).
///
/// The decoder (openh264) holds pictures back to put them in order of display, from heuristics over picture counts
/// that fail for streams that count by one, and its way to ask for them early loses their buffers. It does neither for
/// the two baseline profiles. Profile 66 would change how reference lists are made; 83 changes nothing else, has the
/// same syntax as High, and its own extensions are in units that are never passed on.
pub(super) fn in_order_of_decoding(unit: &[u8]) -> Option<Vec<u8>> {
    const BASELINE: u8 = 66;
    const MAIN: u8 = 77;
    const EXTENDED: u8 = 88;
    const SCALABLE_BASELINE: u8 = 83;
    let [header, profile, constraints, level, rest @ ..] = unit else {
        return None;
    };
    let mut out = vec![*header, SCALABLE_BASELINE, *constraints, *level];
    match *profile {
        BASELINE => return Some(unit.to_vec()),
        MAIN | EXTENDED => out.extend(escape(&with_high_syntax(&unescape(rest))?)),
        _ => out.extend_from_slice(rest),
    }
    Some(out)
}

/// Puts what High says and Main leaves out behind the first code: 4:2:0, 8 bits, no bypass, no scaling lists.
fn with_high_syntax(payload: &[u8]) -> Option<Vec<u8>> {
    const ADDED: [bool; 7] = [false, true, false, true, true, false, false];
    let mut bits = Bits {
        bytes: payload,
        at: 0,
    };
    bits.exp()?;
    let id = bits.at;
    // The stop bit ends the payload; what follows it is padding.
    let stop = payload.len() * 8 - payload.last()?.trailing_zeros() as usize;
    bits.at = 0;
    let mut all: Vec<bool> = (0..stop).map(|_| bits.flag()).collect::<Option<_>>()?;
    all.splice(id..id, ADDED);
    let byte = |bits: &[bool]| {
        bits.iter()
            .zip((0..8).rev())
            .fold(0, |byte, (bit, at)| byte | u8::from(*bit) << at)
    };
    Some(all.chunks(8).map(byte).collect())
}

/// The opposite of [`unescape`].
fn escape(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

fn unsupported(detail: String) -> MediaError {
    MediaError::unsupported(
        Format::Mp4,
        format!("H.264 in {detail}; convert it to 8 bits, 4:2:0, progressive, at most 4096 x 2304"),
    )
}

/// The outer `None` means that the bits ended or make no sense.
fn read(bits: &mut Bits<'_>) -> Option<Result<Sps, MediaError>> {
    let profile = bits.fixed(8)?;
    bits.fixed(16)?;
    bits.exp()?;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        let chroma = bits.exp()?;
        if chroma != 1 {
            let name = ["grey", "4:2:0", "4:2:2", "4:4:4"].get(chroma as usize)?;
            return Some(Err(unsupported(format!("{name} colour sampling"))));
        }
        let depth = bits.exp()?.max(bits.exp()?);
        if depth > 0 {
            return Some(Err(unsupported(format!("{} bits", depth.checked_add(8)?))));
        }
        if bits.flag()? {
            return Some(Err(unsupported("lossless mode".to_owned())));
        }
        if bits.flag()? {
            for list in 0..8 {
                if bits.flag()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.exp()?;
    match bits.exp()? {
        0 => {
            bits.exp()?;
        }
        1 => {
            bits.flag()?;
            bits.signed()?;
            bits.signed()?;
            let cycle = bits.exp()?;
            if cycle > 255 {
                return None;
            }
            for _ in 0..cycle {
                bits.signed()?;
            }
        }
        2 => {}
        _ => return None,
    }
    bits.exp()?;
    bits.flag()?;
    let coded = (macroblocks(bits.exp()?)?, macroblocks(bits.exp()?)?);
    if u64::from(coded.0) * u64::from(coded.1) > LARGEST {
        return Some(Err(unsupported(format!(
            "pictures of {} x {}",
            coded.0, coded.1
        ))));
    }
    if !bits.flag()? {
        return Some(Err(unsupported("interlaced coding".to_owned())));
    }
    bits.flag()?;
    let mut size = coded;
    if bits.flag()? {
        // 4:2:0 and progressive: cropping counts in pairs of pixels.
        let horizontal = bits.exp()?.checked_add(bits.exp()?)?.checked_mul(2)?;
        let vertical = bits.exp()?.checked_add(bits.exp()?)?.checked_mul(2)?;
        size = (
            coded.0.checked_sub(horizontal)?,
            coded.1.checked_sub(vertical)?,
        );
        if size.0 == 0 || size.1 == 0 {
            return None;
        }
    }
    let default = Colour {
        matrix: Colour::UNSPECIFIED,
        full_range: false,
    };
    let colour = if bits.flag()? {
        colour(bits).unwrap_or(default)
    } else {
        default
    };
    Some(Ok(Sps {
        size,
        coded,
        colour,
    }))
}

fn macroblocks(minus_one: u32) -> Option<u32> {
    minus_one.checked_add(1)?.checked_mul(16)
}

/// The part of the usability information up to the colours.
fn colour(bits: &mut Bits<'_>) -> Option<Colour> {
    const EXTENDED_ASPECT: u32 = 255;
    if bits.flag()? && bits.fixed(8)? == EXTENDED_ASPECT {
        bits.fixed(32)?;
    }
    if bits.flag()? {
        bits.flag()?;
    }
    let mut colour = Colour {
        matrix: Colour::UNSPECIFIED,
        full_range: false,
    };
    if bits.flag()? {
        bits.fixed(3)?;
        colour.full_range = bits.flag()?;
        if bits.flag()? {
            bits.fixed(16)?;
            colour.matrix = bits.fixed(8)? as u8;
        }
    }
    Some(colour)
}

fn skip_scaling_list(bits: &mut Bits<'_>, length: usize) -> Option<()> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..length {
        if next != 0 {
            next = (last + i64::from(bits.signed()?)).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Takes out the byte 3 that keeps two zeros from looking like a start code.
fn unescape(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len());
    let mut zeros = 0;
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// A reader of single bits and of Exp-Golomb codes (9.1).
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    fn fixed(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    fn exp(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        ((1u32 << zeros) - 1).checked_add(self.fixed(zeros)?)
    }

    fn signed(&mut self) -> Option<i32> {
        let code = i64::from(self.exp()?);
        let half = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { half } else { -half }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes() {
        // 1, 010, 011, 00100, then 00101 as signed.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits {
            bytes: &bytes,
            at: 0,
        };
        assert_eq!(
            [bits.exp(), bits.exp(), bits.exp(), bits.exp()],
            [Some(0), Some(1), Some(2), Some(3)]
        );
        assert_eq!(bits.signed(), Some(-2));
        assert_eq!(
            Bits {
                bytes: &[0; 3],
                at: 0
            }
            .exp(),
            None
        );
        assert_eq!(
            Bits {
                bytes: &[0; 9],
                at: 0
            }
            .exp(),
            None
        );
    }

    #[test]
    fn a_parameter_set_of_a_real_encoder() {
        // x264, High profile, 1280 x 720, BT.709 signalled.
        let unit = [
            0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x6a, 0x02, 0x02,
            0x02, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x07, 0x8c, 0x18, 0xcb,
        ];
        let sps = Sps::parse(&unit).unwrap();
        assert_eq!(sps.size, (1280, 720));
        assert_eq!(
            sps.colour,
            Colour {
                matrix: 1,
                full_range: false
            }
        );
        for end in 1..9 {
            assert!(Sps::parse(&unit[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn the_changed_profile_says_the_same() {
        // x264, Main profile, 36 x 28.
        let main = [
            0x67, 0x4d, 0x40, 0x0a, 0xec, 0xa6, 0xbc, 0xf7, 0x08, 0x00, 0x00, 0x03, 0x00, 0x08,
            0x00, 0x00, 0x03, 0x01, 0x90, 0x78, 0x91, 0x2c, 0xb0,
        ];
        assert_eq!(Sps::parse(&main).unwrap().size, (36, 28));
        let changed = in_order_of_decoding(&main).unwrap();
        assert_eq!(changed.get(1), Some(&83));
        assert_eq!(Sps::parse(&changed).unwrap(), Sps::parse(&main).unwrap());
        let baseline = [0x67, 0x42, 0xc0, 0x0a, 0xda, 0x0b];
        assert_eq!(in_order_of_decoding(&baseline).unwrap(), baseline);
        assert_eq!(in_order_of_decoding(&[0x67, 0x4d]), None);
        assert_eq!(in_order_of_decoding(&[0x67, 0x4d, 0, 0, 0]), None);
    }

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(
            unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 3]),
            [0, 0, 1, 0, 0, 0, 3]
        );
    }
}

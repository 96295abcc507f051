//! A value as it lies on the disk: one byte for the format, eight of a SHA-256 over key and content, the content.
//!
//! The database has checksums of its own, but not over everything that it hands out. The key is in the sum, so that a
//! value which turns up under another key is found as well.

use msao_core::digest::Digest;

/// The format that this program writes.
const FORMAT: u8 = 1;
const SUM: usize = 8;

fn sum(key: &[u8], content: &[u8]) -> [u8; SUM] {
    let mut bytes = Vec::with_capacity(8 + key.len() + content.len());
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key);
    bytes.extend(content);
    let Digest([a, b, c, d, e, f, g, h, ..]) = Digest::of(&bytes);
    [a, b, c, d, e, f, g, h]
}

/// `content` with what is needed to trust it later.
pub(super) fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + SUM + content.len());
    sealed.push(FORMAT);
    sealed.extend(sum(key, content));
    sealed.extend(content);
    sealed
}

/// The content of what [`seal`] made, or what is wrong with it.
pub(super) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let Some((format, rest)) = sealed.split_first() else {
        return Err("it is empty");
    };
    if *format != FORMAT {
        return Err("its format is not known");
    }
    let Some((found, content)) = rest.split_at_checked(SUM) else {
        return Err("it is cut short");
    };
    if found == sum(key, content) {
        Ok(content)
    } else {
        Err("its checksum is wrong")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(
            key in prop::collection::vec(any::<u8>(), 0..20),
            content in prop::collection::vec(any::<u8>(), 0..200),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut sealed = seal(&key, &content);
            prop_assert_eq!(unseal(&key, &sealed), Ok(content.as_slice()));
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal(&key, &sealed).is_err());
        }

        #[test]
        fn a_value_under_another_key_is_found(key in any::<[u8; 4]>(), other in any::<[u8; 4]>()) {
            prop_assume!(key != other);
            prop_assert!(unseal(&other, &seal(&key, b"value")).is_err());
        }
    }
}

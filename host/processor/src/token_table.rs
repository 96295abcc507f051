//! The bytes behind each token id of a byte-level vocabulary.

/// The bytes that each id stands for.
#[derive(Debug, Default)]
pub(crate) struct TokenTable {
    bytes: Vec<u8>,
    /// By id: the end of its bytes, and what it is. Its bytes begin where those of the id before end.
    entries: Vec<(usize, Kind)>,
}

/// What an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No token has this id.
    Missing,
    Text,
    /// A special token: left out of a text meant for people.
    Special,
}

impl TokenTable {
    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of an id; empty for an id that no token has, and for special tokens if they are to be skipped.
    pub(crate) fn bytes(&self, id: u32, skip_special: bool) -> &[u8] {
        let Some((bytes, kind)) = self.entry(id) else {
            return &[];
        };
        if skip_special && kind == Kind::Special {
            &[]
        } else {
            bytes
        }
    }

    /// The bytes of an id and what it is; `None` for an id that no token has.
    pub(crate) fn entry(&self, id: u32) -> Option<(&[u8], Kind)> {
        let id = usize::try_from(id).ok()?;
        let &(end, kind) = self.entries.get(id)?;
        let start = id
            .checked_sub(1)
            .and_then(|before| self.entries.get(before))
            .map_or(0, |&(end, _)| end);
        if kind == Kind::Missing {
            None
        } else {
            self.bytes.get(start..end).map(|bytes| (bytes, kind))
        }
    }

    /// From ids, tokens as the vocabulary writes them, and what they are.
    pub(crate) fn new(mut tokens: Vec<(u32, String, Kind)>) -> Self {
        tokens.sort_by_key(|&(id, _, _)| id);
        let mut table = Self::default();
        for (id, token, kind) in tokens {
            let id = id as usize;
            if id < table.entries.len() {
                continue; // two texts for one id: the first stays
            }
            table.entries.resize(id, (table.bytes.len(), Kind::Missing));
            table.bytes.extend(token_bytes(&token));
            table.entries.push((table.bytes.len(), kind));
        }
        table
    }
}

/// The bytes of a token as it is written in the vocabulary.
///
/// Byte-level BPE writes each byte as one printable character. A token with any other character stands for itself
/// (`ByteLevel::decode_chain` of the tokenizers crate does the same).
fn token_bytes(token: &str) -> Vec<u8> {
    token
        .chars()
        .map(byte_of)
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte that a character of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`, inverted): printable
/// Latin-1 stands for itself, the other bytes have the characters from U+0100 on, in their order.
pub(crate) fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = (0..0x200)
            .filter_map(char::from_u32)
            .filter_map(byte_of)
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(token_bytes("Ġthe"), b" the");
        assert_eq!(
            token_bytes("two words"),
            b"two words",
            "a blank is in no vocabulary: the token stands for itself"
        );
    }
}

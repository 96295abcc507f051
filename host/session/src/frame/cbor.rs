//! CBOR for control messages: fields have names and new ones are passed over, so that messages can grow.
//!
//! Ids, session names and bitmaps are byte strings in it: fixed little-endian, as in the frames of tokens.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::limits::MAX_DEPTH;
use super::wire::{read_ids, write_ids};
use super::{FrameError, Kind, SessionId};

pub(super) fn read<T: DeserializeOwned>(kind: Kind, mut payload: &[u8]) -> Result<T, FrameError> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut payload, MAX_DEPTH)
        .map_err(|error| unreadable(kind, &error.to_string()))?;
    match payload.len() {
        0 => Ok(value),
        bytes => Err(FrameError::Trailing { kind, bytes }),
    }
}

pub(super) fn write<T: Serialize>(
    kind: Kind,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    ciborium::into_writer(value, out).map_err(|error| unreadable(kind, &error.to_string()))
}

/// What a peer sent may stand in the message; a log line stays short all the same.
fn unreadable(kind: Kind, why: &str) -> FrameError {
    FrameError::Cbor {
        kind,
        why: why.chars().take(200).collect(),
    }
}

/// A byte string.
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Visitor)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw(bytes) = Raw::deserialize(deserializer)?;
        let len = bytes.len();
        let bytes = bytes
            .try_into()
            .map_err(|_| de::Error::invalid_length(len, &"the 16 bytes of a session's name"))?;
        Ok(SessionId(bytes))
    }
}

/// `Vec<u32>` as a byte string.
pub(super) mod ids {
    use super::*;

    pub fn serialize<S: Serializer>(ids: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        write_ids(ids, &mut bytes);
        serializer.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
        let Raw(bytes) = Raw::deserialize(deserializer)?;
        if !bytes.len().is_multiple_of(4) {
            let expected = &"four bytes for each id";
            return Err(de::Error::invalid_length(bytes.len(), expected));
        }
        Ok(read_ids(&bytes))
    }
}

/// `Vec<u8>` as a byte string.
pub(super) mod bytes {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Raw::deserialize(deserializer).map(|Raw(bytes)| bytes)
    }
}

/// `Option<Vec<u8>>` as a byte string or null.
pub(super) mod bitmap {
    use super::*;

    pub fn serialize<S: Serializer>(
        bits: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bits {
            Some(bits) => serializer.serialize_bytes(bits),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Raw>::deserialize(deserializer)?.map(|Raw(bytes)| bytes))
    }
}

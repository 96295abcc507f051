//! The few bytes that go from `plan` to `step` and `observe`.

use alloc::vec::Vec;

/// Bytes of a memo at most.
pub const MAX_MEMO: usize = 256;

/// Something that a memo can hold.
pub trait MemoField: Sized {
    /// Bytes that it takes.
    const SIZE: usize;
    /// Appends it.
    fn put(&self, writer: &mut MemoWriter);
    /// Takes it; `None` where the bytes end or hold no such value.
    fn take(reader: &mut MemoReader) -> Option<Self>;
}

/// Collects a memo's bytes.
#[derive(Debug, Default)]
pub struct MemoWriter(Vec<u8>);

impl MemoWriter {
    /// An empty one with room for so many bytes: a memo that grows field by field is copied each time.
    pub fn with_room(bytes: usize) -> Self {
        MemoWriter(Vec::with_capacity(bytes))
    }

    /// All bytes so far.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a memo from its front.
#[derive(Debug)]
pub struct MemoReader<'a>(&'a [u8]);

impl<'a> MemoReader<'a> {
    /// Reads `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        MemoReader(bytes)
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl MemoField for $number {
            const SIZE: usize = size_of::<$number>();

            fn put(&self, writer: &mut MemoWriter) {
                writer.0.extend_from_slice(&self.to_le_bytes());
            }

            fn take(reader: &mut MemoReader) -> Option<Self> {
                let (bytes, rest) = reader.0.split_first_chunk()?;
                reader.0 = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, i32, i64, f32, f64);

impl MemoField for bool {
    const SIZE: usize = 1;

    fn put(&self, writer: &mut MemoWriter) {
        u8::from(*self).put(writer);
    }

    fn take(reader: &mut MemoReader) -> Option<Self> {
        match u8::take(reader)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<T: MemoField, const N: usize> MemoField for [T; N] {
    const SIZE: usize = N * T::SIZE;

    fn put(&self, writer: &mut MemoWriter) {
        self.iter().for_each(|value| value.put(writer));
    }

    fn take(reader: &mut MemoReader) -> Option<Self> {
        let values: Option<Vec<T>> = (0..N).map(|_| T::take(reader)).collect();
        values?.try_into().ok()
    }
}

/// Declares a struct that `plan` writes into its memo and `step` and `observe` read again. More than 256 bytes do not
/// compile.
///
/// ```
/// use msao_plugin::memo;
///
/// memo! {
///     /// What `step` goes by.
///     struct Note {
///         gamma: u32,
///         threshold: f64,
///         bins: [u16; 4],
///     }
/// }
///
/// let note = Note { gamma: 4, threshold: 0.5, bins: [0; 4] };
/// let bytes = note.encode();
/// assert_eq!(bytes.len(), 20);
/// assert_eq!(Note::decode(&bytes).map(|note| note.gamma), Some(4));
/// assert!(Note::decode(&bytes[1..]).is_none());
/// ```
#[macro_export]
macro_rules! memo {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        $visibility struct $name {
            $($(#[$field_meta])* $field_visibility $field: $type),*
        }

        impl $name {
            const SIZE: usize = 0 $(+ <$type as $crate::MemoField>::SIZE)*;
            const FITS: () = assert!(Self::SIZE <= $crate::MAX_MEMO, "a memo holds at most 256 bytes");

            /// The bytes for a plan's memo, little-endian, field after field.
            $visibility fn encode(&self) -> $crate::__private::Vec<u8> {
                let () = Self::FITS;
                let mut writer = $crate::MemoWriter::with_room(Self::SIZE);
                $($crate::MemoField::put(&self.$field, &mut writer);)*
                writer.finish()
            }

            /// Reads what `encode` wrote; `None` for anything else, such as the empty memo of a fallback plan.
            $visibility fn decode(bytes: &[u8]) -> Option<Self> {
                let mut reader = $crate::MemoReader::new(bytes);
                let memo = $name {
                    $($field: $crate::MemoField::take(&mut reader)?),*
                };
                reader.is_empty().then_some(memo)
            }
        }
    };
}

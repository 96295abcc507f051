//! Whether all numbers of a value are finite. JSON has no others: a record with one would be written and never read again.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};

/// Whether every `f32` and `f64` in `value` is finite.
pub(super) fn all_finite(value: &impl Serialize) -> bool {
    value.serialize(Look).is_ok()
}

/// There is a number that is not.
#[derive(Debug)]
struct NotFinite;

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number is not finite")
    }
}

impl std::error::Error for NotFinite {}

impl ser::Error for NotFinite {
    fn custom<T: fmt::Display>(_: T) -> Self {
        NotFinite
    }
}

/// Writes nothing, and looks at the numbers.
#[derive(Clone, Copy)]
struct Look;

type Looked = Result<(), NotFinite>;

/// What has no numbers with a fraction.
macro_rules! passed {
    ($($name:ident($($given:ty),*);)*) => {
        $(fn $name(self, $(_: $given),*) -> Looked { Ok(()) })*
    };
}

impl Serializer for Look {
    type Ok = ();
    type Error = NotFinite;
    type SerializeSeq = Look;
    type SerializeTuple = Look;
    type SerializeTupleStruct = Look;
    type SerializeTupleVariant = Look;
    type SerializeMap = Look;
    type SerializeStruct = Look;
    type SerializeStructVariant = Look;

    passed! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_f32(self, number: f32) -> Looked {
        number.is_finite().then_some(()).ok_or(NotFinite)
    }

    fn serialize_f64(self, number: f64) -> Looked {
        number.is_finite().then_some(()).ok_or(NotFinite)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Looked {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Looked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Looked {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Look, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Look, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Look, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Look, NotFinite> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Look, NotFinite> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Look, NotFinite> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Look, NotFinite> {
        Ok(self)
    }
}

/// Lists: each element is looked at.
macro_rules! elements {
    ($($name:ident::$element:ident;)*) => {$(
        impl ser::$name for Look {
            type Ok = ();
            type Error = NotFinite;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Looked {
                value.serialize(*self)
            }

            fn end(self) -> Looked {
                Ok(())
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

/// Fields: each value is looked at.
macro_rules! fields {
    ($($name:ident;)*) => {$(
        impl ser::$name for Look {
            type Ok = ();
            type Error = NotFinite;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Looked {
                value.serialize(*self)
            }

            fn end(self) -> Looked {
                Ok(())
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl ser::SerializeMap for Look {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Looked {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Looked {
        value.serialize(*self)
    }

    fn end(self) -> Looked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Serialize)]
    enum Kind {
        New(f64),
        Pair(f32, u8),
        Named { number: f64 },
    }

    #[derive(Clone, Serialize)]
    struct All {
        one: f64,
        some: Option<f32>,
        list: Vec<f32>,
        pair: (u8, f64),
        map: BTreeMap<String, f64>,
        kinds: Vec<Kind>,
    }

    #[test]
    fn a_number_is_found_wherever_it_stands() {
        let good = All {
            one: f64::MAX,
            some: Some(-1e-40),
            list: vec![0.0, 1.0],
            pair: (1, -0.0),
            map: BTreeMap::from([("a".into(), 1.0)]),
            kinds: vec![
                Kind::New(1.0),
                Kind::Pair(1.0, 2),
                Kind::Named { number: 3.0 },
            ],
        };
        assert!(all_finite(&good));
        let bad: [fn(&mut All); 8] = [
            |it| it.one = f64::NAN,
            |it| it.some = Some(f32::INFINITY),
            |it| it.list[1] = f32::NEG_INFINITY,
            |it| it.pair.1 = f64::INFINITY,
            |it| *it.map.get_mut("a").unwrap() = f64::NAN,
            |it| it.kinds[0] = Kind::New(f64::NAN),
            |it| it.kinds[1] = Kind::Pair(f32::NAN, 2),
            |it| it.kinds[2] = Kind::Named { number: f64::NAN },
        ];
        for (number, spoil) in bad.into_iter().enumerate() {
            let mut it = good.clone();
            spoil(&mut it);
            assert!(!all_finite(&it), "{number}");
        }
    }
}

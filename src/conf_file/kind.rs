//! The first look at a YAML document: what kind each value is, and that there are not too many of them. A short text of
//! aliases of aliases stands for more than any memory holds, and the YAML library counts aliases, not what they stand for.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};

/// The most values that a document may hold, keys included, those that its aliases repeat counted each time.
const MOST: usize = 100_000;

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    /// A text, a number, a truth value.
    Scalar,
    List(Vec<Kind>),
    /// The kinds of its values, in the order of its keys.
    Map(Vec<Kind>),
    /// A value with a tag of its own (`!Ref x`), whatever is in it.
    Tagged,
}

impl Kind {
    /// The kind of a whole document. Errors: it is none, or holds too many values.
    pub(super) fn of(text: &str) -> Result<Kind, serde_yaml::Error> {
        Look(&Cell::new(MOST)).deserialize(serde_yaml::Deserializer::from_str(text))
    }
}

/// Goes through a value, while there is some of the number left.
struct Look<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom(format!("it holds more than {MOST} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Look(self.0))? {
            items.push(item);
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut values = Vec::new();
        while map.next_key_seed(Look(self.0))?.is_some() {
            values.push(map.next_value_seed(Look(self.0))?);
        }
        Ok(Kind::Map(values))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Kind, A::Error> {
        let (_, variant) = data.variant::<String>()?;
        variant.newtype_variant_seed(Look(self.0))?;
        Ok(Kind::Tagged)
    }
}

//! The first pass over a YAML document: finds the type of each value and limits their number. The YAML library limits
//! aliases but not their expansion, and a short text of nested aliases can expand beyond any memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Limit of values in a document, keys included, aliases expanded.
const MAX_VALUES: usize = 100_000;

#[derive(Debug)]
pub(super) enum ValueType {
    Null,
    Scalar,
    List(Vec<ValueType>),
    /// The types of its values, in the order of its keys.
    Map(Vec<ValueType>),
    /// A value with a custom tag (`!Ref x`).
    Tagged,
}

impl ValueType {
    /// The type of a whole document. An error if it is invalid or has too many values.
    pub(super) fn of(text: &str) -> Result<ValueType, serde_yaml::Error> {
        TypeReader(&Cell::new(MAX_VALUES)).deserialize(serde_yaml::Deserializer::from_str(text))
    }
}

/// Reads the type of a value. The cell holds how many more values are allowed.
struct TypeReader<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for TypeReader<'_> {
    type Value = ValueType;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ValueType, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom(format!("more than {MAX_VALUES} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TypeReader<'_> {
    type Value = ValueType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_none<E>(self) -> Result<ValueType, E> {
        Ok(ValueType::Null)
    }

    fn visit_unit<E>(self) -> Result<ValueType, E> {
        Ok(ValueType::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<ValueType, E> {
        Ok(ValueType::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ValueType, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(TypeReader(self.0))? {
            items.push(item);
        }
        Ok(ValueType::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ValueType, A::Error> {
        let mut values = Vec::new();
        while map.next_key_seed(TypeReader(self.0))?.is_some() {
            values.push(map.next_value_seed(TypeReader(self.0))?);
        }
        Ok(ValueType::Map(values))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ValueType, A::Error> {
        let (_, variant) = data.variant::<String>()?;
        variant.newtype_variant_seed(TypeReader(self.0))?;
        Ok(ValueType::Tagged)
    }
}

//! A protocol-buffer message as a list of fields, each kept as the bytes that were read.
//!
//! A message that is decoded into a struct and written back loses every field that the struct does not
//! know. Here only what is replaced changes: all other bytes of a model, those of newer versions of the
//! format among them, are written as they stood.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use std::borrow::Cow;

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field<'a> {
    /// Its number in the message's definition.
    pub number: u32,
    kind: WireType,
    /// Its content, without the key and without the length.
    bytes: Cow<'a, [u8]>,
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message<'a> {
    /// Its fields in the order of the file.
    pub fields: Vec<Field<'a>>,
}

impl<'a> Field<'a> {
    /// A field with a length: bytes, text, or a message.
    pub fn bytes(number: u32, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { number, kind: WireType::LengthDelimited, bytes: bytes.into() }
    }

    /// A field with text.
    pub fn text(number: u32, text: &str) -> Self {
        Self::bytes(number, text.as_bytes().to_vec())
    }

    /// A field with a whole number.
    pub fn number(number: u32, value: i64) -> Self {
        let mut bytes = Vec::new();
        encode_varint(value as u64, &mut bytes);
        Self { number, kind: WireType::Varint, bytes: bytes.into() }
    }

    /// Takes the first field off the bytes of a message.
    ///
    /// # Errors
    /// What is no field, in words.
    pub fn take(bytes: &mut &'a [u8]) -> Result<Self, String> {
        let mut rest = *bytes;
        let (number, kind) = decode_key(&mut rest).map_err(|error| error.to_string())?;
        let length = match kind {
            WireType::Varint => {
                let before = rest;
                decode_varint(&mut rest).map_err(|error| error.to_string())?;
                let length = before.len() - rest.len();
                rest = before;
                length
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let length = decode_varint(&mut rest).map_err(|error| error.to_string())?;
                usize::try_from(length).map_err(|_| "a field is too long")?
            }
            WireType::StartGroup | WireType::EndGroup => return Err("it holds a group".into()),
        };
        let (content, after) = rest.split_at_checked(length).ok_or("a field goes beyond the end")?;
        *bytes = after;
        Ok(Self { number, kind, bytes: content.into() })
    }

    /// The same with bytes of its own.
    pub fn into_owned(self) -> Field<'static> {
        Field { number: self.number, kind: self.kind, bytes: self.bytes.into_owned().into() }
    }

    /// The content of a field with a length.
    pub fn content(&self) -> Option<&[u8]> {
        (self.kind == WireType::LengthDelimited).then_some(&*self.bytes)
    }

    /// The value of a whole number.
    pub fn value(&self) -> Option<i64> {
        (self.kind == WireType::Varint).then(|| decode_varint(&mut &*self.bytes).ok())?.map(|v| v as i64)
    }

    /// The value of a 32-bit float.
    pub fn float(&self) -> Option<f32> {
        let bytes = (self.kind == WireType::ThirtyTwoBit).then_some(&*self.bytes)?;
        Some(f32::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl<'a> Message<'a> {
    /// Divides bytes into fields.
    ///
    /// # Errors
    /// What is no message, in words.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            fields.push(Field::take(&mut rest)?);
        }
        Ok(Self { fields })
    }

    /// The message's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.fields.iter().map(|field| field.bytes.len() + 12).sum());
        for field in &self.fields {
            encode_key(field.number, field.kind, &mut out);
            if field.kind == WireType::LengthDelimited {
                encode_varint(field.bytes.len() as u64, &mut out);
            }
            out.extend_from_slice(&field.bytes);
        }
        out
    }

    /// The contents of all fields of that number that have a length.
    pub fn contents(&self, number: u32) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.number == number).filter_map(Field::content)
    }

    /// The last content of that number, which is the one that counts.
    pub fn content(&self, number: u32) -> Option<&[u8]> {
        self.contents(number).last()
    }

    /// The last text of that number; empty where there is none.
    pub fn text(&self, number: u32) -> String {
        self.content(number).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    /// The last whole number of that number.
    pub fn value(&self, number: u32) -> Option<i64> {
        self.fields.iter().rev().find(|field| field.number == number)?.value()
    }

    /// All whole numbers of that number, packed or one by one.
    ///
    /// # Errors
    /// When a packed list is cut short.
    pub fn values(&self, number: u32) -> Result<Vec<i64>, String> {
        let mut values = Vec::new();
        for field in self.fields.iter().filter(|field| field.number == number) {
            if let Some(mut packed) = field.content() {
                while !packed.is_empty() {
                    values.push(decode_varint(&mut packed).map_err(|error| error.to_string())? as i64);
                }
            } else {
                values.extend(field.value());
            }
        }
        Ok(values)
    }

    /// Puts one field in the place of all of its number: where the first stood, else at the end.
    pub fn set(&mut self, field: Field<'a>) {
        let number = field.number;
        let at = self.fields.iter().position(|old| old.number == number).unwrap_or(self.fields.len());
        self.fields.retain(|old| old.number != number);
        self.fields.insert(at.min(self.fields.len()), field);
    }

    /// Takes all fields of these numbers away.
    pub fn remove(&mut self, numbers: &[u32]) {
        self.fields.retain(|field| !numbers.contains(&field.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_is_written_as_it_stood() {
        // A number, a text, a float, a double, and field 900, which nobody knows.
        let mut bytes = Message {
            fields: vec![
                Field::number(1, 300),
                Field::text(2, "abc"),
                Field {
                    number: 3,
                    kind: WireType::ThirtyTwoBit,
                    bytes: 1.5f32.to_le_bytes().to_vec().into(),
                },
                Field { number: 4, kind: WireType::SixtyFourBit, bytes: vec![7; 8].into() },
                Field::text(900, "of a later version"),
            ],
        }
        .to_bytes();
        // The same number again: the last one counts, and both are kept.
        bytes.extend(Message { fields: vec![Field::number(1, -1)] }.to_bytes());
        let mut message = Message::parse(&bytes).unwrap();
        assert_eq!(message.to_bytes(), bytes);
        assert_eq!((message.value(1), message.text(2).as_str()), (Some(-1), "abc"));
        assert_eq!(message.fields[2].float(), Some(1.5));
        message.set(Field::text(2, "x"));
        let changed = message.to_bytes();
        let changed = Message::parse(&changed).unwrap();
        assert_eq!((changed.text(2).as_str(), changed.text(900).as_str()), ("x", "of a later version"));
        assert_eq!(changed.fields.len(), 6);
    }

    #[test]
    fn lists_are_read_packed_and_one_by_one() {
        let packed = Field::bytes(1, vec![1, 0xac, 0x02]);
        let message = Message { fields: vec![packed, Field::number(1, 7)] };
        assert_eq!(message.values(1).unwrap(), [1, 300, 7]);
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        for bad in [&b"\x0a\x05abc"[..], b"\x0b", b"\xff", b"\x08"] {
            assert!(Message::parse(bad).is_err(), "{bad:?}");
        }
    }
}

//! Protobuf's wire format, read from bytes that may be hostile and written into a vector.

use thiserror::Error;

/// How deeply unknown groups may nest before they are taken for an attack.
const MAX_GROUP_DEPTH: u32 = 32;

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The bytes end inside a value.
    #[error("truncated")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("varint longer than 64 bits")]
    Varint,
    /// Field number zero or above 2^29 - 1.
    #[error("field number out of range")]
    Number,
    /// A wire type that does not exist.
    #[error("unknown wire type")]
    WireType,
    /// Groups that do not match or nest too deeply.
    #[error("unbalanced group")]
    Group,
    /// A field whose wire type is not the one of its kind.
    #[error("wire type does not fit the field")]
    Mismatch,
    /// A string that is not UTF-8.
    #[error("string is not UTF-8")]
    Utf8,
    /// Messages that nest too deeply.
    #[error("nested too deeply")]
    Depth,
}

/// A value as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 3 and 4: what stands between them.
    Group(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// Number of the wire type.
    pub fn wire_type(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Group(_) => 3,
            Self::Fixed32(_) => 5,
        }
    }

    /// The bytes of a length-delimited value.
    ///
    /// # Errors
    /// [`WireError::Mismatch`] for any other value.
    pub fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Mismatch),
        }
    }

    /// The text of a length-delimited value.
    ///
    /// # Errors
    /// [`WireError::Utf8`] for text that is none, [`WireError::Mismatch`] for any other value.
    pub fn text(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8)
    }
}

/// Reads one message field by field.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field's number and value; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no message.
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = self.value(number, wire_type, 0)?;
        Ok(Some((number, value)))
    }

    /// A varint, as in a packed field.
    ///
    /// # Errors
    /// When it is cut or too long.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            if index == 9 && *byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            WireError::Truncated
        } else {
            WireError::Varint
        })
    }

    /// Four bytes, as in a packed field.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn fixed32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?;
        bytes
            .try_into()
            .map(u32::from_le_bytes)
            .map_err(|_| WireError::Truncated)
    }

    /// Eight bytes, as in a packed field.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn fixed64(&mut self) -> Result<u64, WireError> {
        let bytes = self.take(8)?;
        bytes
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| WireError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn tag(&mut self) -> Result<(u32, u8), WireError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| WireError::Number)?;
        if tag >> 3 == 0 {
            return Err(WireError::Number);
        }
        Ok((tag >> 3, (tag & 7) as u8))
    }

    fn value(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<Value<'a>, WireError> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.fixed64().map(Value::Fixed64),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                self.take(length).map(Value::Bytes)
            }
            3 => self.group(number, depth + 1).map(Value::Group),
            5 => self.fixed32().map(Value::Fixed32),
            4 => Err(WireError::Group),
            _ => Err(WireError::WireType),
        }
    }

    fn group(&mut self, number: u32, depth: u32) -> Result<&'a [u8], WireError> {
        if depth > MAX_GROUP_DEPTH {
            return Err(WireError::Group);
        }
        let start = self.rest;
        loop {
            let before = self.rest.len();
            let (inner, wire_type) = self.tag()?;
            if wire_type == 4 {
                let inside = start.get(..start.len() - before).unwrap_or_default();
                return if inner == number {
                    Ok(inside)
                } else {
                    Err(WireError::Group)
                };
            }
            self.value(inner, wire_type, depth)?;
        }
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field's tag.
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a varint field.
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, 0);
    put_varint(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written() {
        let mut bytes = Vec::new();
        put_varint_field(&mut bytes, 1, u64::MAX);
        put_bytes(&mut bytes, 2, b"abc");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.field(), Ok(Some((1, Value::Varint(u64::MAX)))));
        assert_eq!(reader.field(), Ok(Some((2, Value::Bytes(b"abc")))));
        assert_eq!(reader.field(), Ok(None));
    }

    #[test]
    fn refuses_hostile_bytes() {
        let cases: [(&[u8], WireError); 7] = [
            (&[0x80], WireError::Truncated),
            (&[0xff; 11], WireError::Varint),
            (&[0x00, 0x00], WireError::Number),
            (&[0x0a, 0x05, 0x00], WireError::Truncated),
            (&[0x0c], WireError::Group),
            (&[0x0f], WireError::WireType),
            (&[0x0b, 0x14], WireError::Group),
        ];
        for (bytes, error) in cases {
            assert_eq!(Reader::new(bytes).field(), Err(error), "{bytes:x?}");
        }
        assert_eq!(Reader::new(&[0x0b; 100]).field(), Err(WireError::Group));
    }

    #[test]
    fn skips_a_balanced_group() {
        let bytes = [0x0b, 0x10, 0x01, 0x0c, 0x18, 0x02];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.field(), Ok(Some((1, Value::Group(&[0x10, 0x01])))));
        assert_eq!(reader.field(), Ok(Some((3, Value::Varint(2)))));
    }
}

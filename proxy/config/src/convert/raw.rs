//! Serialised messages within a serialised message.
//!
//! A resource of the bootstrap, or the node, is passed on as the bytes that came
//! in: what the decoder does not know would be lost on the way through a struct.

use bytes::Bytes;

/// The values of a length-delimited field, in order. A malformed rest is left
/// out: the bytes have been decoded before.
pub(super) fn submessages(message: &[u8], field: u32) -> Vec<Bytes> {
    let mut found = Vec::new();
    for_each(message, |number, value, _| {
        if number == field
            && let Some(value) = value
        {
            found.push(Bytes::copy_from_slice(value));
        }
    });
    found
}

/// The message without one of its fields.
pub(super) fn without(message: &[u8], field: u32) -> Vec<u8> {
    let mut kept = Vec::with_capacity(message.len());
    for_each(message, |number, _, whole| {
        if number != field {
            kept.extend_from_slice(whole);
        }
    });
    kept
}

/// Calls back with each field's number, its value if it is length-delimited, and
/// all its bytes.
fn for_each<'a>(message: &'a [u8], mut visit: impl FnMut(u32, Option<&'a [u8]>, &'a [u8])) {
    let mut rest = message;
    while let Some((number, value, after)) = next(rest) {
        visit(number, value, &rest[..rest.len() - after.len()]);
        rest = after;
    }
}

type Field<'a> = (u32, Option<&'a [u8]>, &'a [u8]);

fn next(bytes: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok()?;
    match tag & 7 {
        0 => varint(rest).map(|(_, after)| (number, None, after)),
        1 => Some((number, None, rest.get(8..)?)),
        2 => {
            let (length, rest) = varint(rest)?;
            let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((number, Some(value), after))
        }
        5 => Some((number, None, rest.get(4..)?)),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_every_value_of_a_field() {
        let message = [0x0a, 2, b'h', b'i', 0x10, 1, 0x0a, 0];
        let found = submessages(&message, 1);
        assert_eq!(found, [Bytes::from_static(b"hi"), Bytes::new()]);
        assert_eq!(without(&message, 1), [0x10, 1]);
        assert_eq!(without(&message, 2), [0x0a, 2, b'h', b'i', 0x0a, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            prop_assert!(without(&bytes, 1).len() <= bytes.len());
            submessages(&bytes, 1);
        }
    }
}

//! Header blocks: written as plain literals (any bytes, no state), read in full HPACK.

use httlib_hpack::Decoder;

use crate::values::Fields;

/// Encodes fields as literals without indexing (RFC 7541, 6.2.2). Names go out as given,
/// so that a script may send an uppercase one.
#[must_use]
pub fn encode(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &fields.0 {
        out.push(0);
        for text in [name, value] {
            integer(text.len(), &mut out);
            out.extend(text.bytes());
        }
    }
    out
}

/// A seven-bit-prefix integer (RFC 7541, 5.1), Huffman bit clear.
fn integer(mut value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        out.push(u8::try_from(value).unwrap_or(0));
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(u8::try_from(value % 128).unwrap_or(0) | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// Decodes one block; each byte of a value becomes one character.
///
/// # Errors
/// When the block is malformed.
pub fn decode(decoder: &mut Decoder<'_>, block: &[u8]) -> Result<Fields, String> {
    let mut list = Vec::new();
    decoder
        .decode(&mut block.to_vec(), &mut list)
        .map_err(|e| format!("header block: {e:?}"))?;
    let text = |bytes: Vec<u8>| bytes.into_iter().map(char::from).collect::<String>();
    Ok(Fields(
        list.into_iter()
            .map(|(n, v, _)| (text(n), text(v)))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut fields = Fields::default();
        fields.push(":path", "/");
        fields.push("x-long", "v".repeat(5000));
        let got = decode(&mut Decoder::default(), &encode(&fields));
        assert_eq!(got, Ok(fields));
    }
}

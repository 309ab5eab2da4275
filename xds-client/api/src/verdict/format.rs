//! What the build script, which writes the verdict table, and the library, which reads it, must agree upon.

/// The field, message or value takes effect as in Envoy.
pub(crate) const SUPPORTED: u8 = 0;
/// It has no effect on traffic here.
pub(crate) const IGNORED: u8 = 1;
/// It would change matching, security or routing, and is refused.
pub(crate) const REJECTED: u8 = 2;
/// The message is one in which an unknown field is an error.
pub(crate) const STRICT: u8 = 3;

/// FNV-1a over parts as if they were one text.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

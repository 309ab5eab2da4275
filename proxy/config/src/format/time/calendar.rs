//! The C library's calendar: local zones and `strftime`, which the standard
//! library has not.

use std::ffi::CStr;

/// A moment taken apart into the fields of a calendar.
pub(super) struct BrokenDown(libc::tm);

impl BrokenDown {
    /// Takes a number of seconds since the epoch apart, in UTC or in the zone of
    /// this host.
    pub(super) fn new(seconds: u64, local: bool) -> Self {
        let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
        // SAFETY: a `tm` of zeros is a valid one: its pointer may be null.
        let mut parts: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live values; the `_r` forms write to
        // nothing else. On failure `parts` stays as it is.
        unsafe {
            if local {
                libc::localtime_r(&raw const seconds, &raw mut parts);
            } else {
                libc::gmtime_r(&raw const seconds, &raw mut parts);
            }
        }
        Self(parts)
    }

    /// Appends what `strftime` makes of a format; at most 1 KiB.
    pub(super) fn append(&self, out: &mut Vec<u8>, format: &CStr) {
        let mut buffer = [0_u8; 1024];
        // SAFETY: the buffer is as long as is said, the format ends with a NUL
        // and the fields are those the C library filled in.
        let length = unsafe {
            libc::strftime(
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                format.as_ptr(),
                &raw const self.0,
            )
        };
        out.extend_from_slice(&buffer[..length.min(buffer.len())]);
    }

    /// Year, month, day, hour, minute and second, as they are written.
    pub(super) fn fields(&self) -> [u64; 6] {
        [
            self.0.tm_year + 1900,
            self.0.tm_mon + 1,
            self.0.tm_mday,
            self.0.tm_hour,
            self.0.tm_min,
            self.0.tm_sec,
        ]
        .map(|field| u64::try_from(field).unwrap_or(0))
    }

    /// The second within the minute.
    pub(super) fn second(&self) -> u64 {
        self.fields()[5]
    }

    /// Seconds east of UTC.
    pub(super) fn zone_offset(&self) -> i64 {
        self.0.tm_gmtoff
    }
}

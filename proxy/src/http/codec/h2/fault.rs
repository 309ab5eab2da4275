//! Why this side ends a connection, and Envoy's words for it.

/// Which flood limit a peer passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Empty DATA, HEADERS or CONTINUATION in a row, the last one on this stream.
    EmptyFrames {
        /// Its id.
        stream: u32,
    },
    /// PRIORITY.
    Priority,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// PING or SETTINGS whose answers wait.
    Control,
    /// Frames of any kind that wait to be written.
    Outbound,
    /// Small DATA frames that nobody reads: a limit of ours.
    UnreadFrames,
}

/// Why this side ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer passed a flood limit: closed without a word.
    Flood(Flood),
    /// The head of this request is malformed: closed without a word.
    Malformed {
        /// The stream that it was to open.
        stream: u32,
        /// Its fields, and not what they say, break the rules.
        by_field: bool,
    },
    /// A rule of the protocol is broken: closed without a word.
    Broken,
    /// A rule of framing is broken: closed with a GOAWAY.
    GoAway {
        /// Its error code.
        code: u32,
        /// Its debug data.
        text: &'static str,
    },
    /// Too many streams were reset soon after they were opened.
    PrematureResets,
}

/// Envoy's words where its library's callback refuses to go on.
const CALLBACK_FAILED: &str = "codec_error:The_user_callback_function_failed";

impl Fault {
    /// Envoy's response code details for a stream that is cut.
    pub const fn details_of(self, stream: u32) -> &'static str {
        match self {
            Self::Flood(flood) => flood.details_of(stream),
            Self::Malformed {
                stream: malformed,
                by_field,
            } if malformed == stream => match by_field {
                true => "http2.invalid.header.field",
                false => "http2.violation.of.messaging.rule",
            },
            Self::Malformed { .. } | Self::Broken | Self::GoAway { .. } => CALLBACK_FAILED,
            Self::PrematureResets => "too_many_premature_resets",
        }
    }
}

impl Flood {
    const fn details_of(self, stream: u32) -> &'static str {
        match self {
            Self::EmptyFrames { stream: last } if last == stream => {
                "http2.inbound_empty_frames_flood"
            }
            Self::EmptyFrames { .. } => {
                "codec_error:Too_many_consecutive_frames_with_an_empty_payload"
            }
            Self::Priority => "codec_error:Too_many_PRIORITY_frames",
            Self::WindowUpdate => "codec_error:Too_many_WINDOW_UPDATE_frames",
            Self::Control => "codec_error:Too_many_control_frames_in_the_outbound_queue.",
            Self::Outbound => "codec_error:Too_many_frames_in_the_outbound_queue.",
            Self::UnreadFrames => "codec_error:Too_many_unread_frames",
        }
    }
}

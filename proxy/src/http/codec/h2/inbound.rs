//! What a peer may send: the limits of floods, and the rules of framing that
//! Envoy's library answers with a GOAWAY of its own words.

use std::sync::atomic::Ordering::Relaxed;

use super::fault::{Fault, Flood};
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::meter::{Meter, SMALL};
use super::options::Options;

/// The largest frame that is taken, as the default of `SETTINGS_MAX_FRAME_SIZE` has it.
const LARGEST: usize = 16_384;

/// The counts of what comes in, and the limits.
#[derive(Debug)]
pub(super) struct Inbound {
    limits: Limits,
    server: bool,
    streams: u64,
    priorities: u64,
    window_updates: u64,
    empties: u32,
    questions: u64,
    /// The stream whose header block is not ended.
    block: Option<u32>,
    /// The stream of the last frame, if that was one of a header block; else 0.
    last_head: u32,
    /// The peer knows our settings.
    acknowledged: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    control: u64,
    empties: u32,
    priorities: u64,
    window_updates: u64,
    unread: u32,
}

impl Inbound {
    pub(super) fn new(options: &Options, server: bool) -> Self {
        Self {
            limits: Limits {
                control: options.max_outbound_control_frames.into(),
                empties: options.max_consecutive_inbound_frames_with_empty_payload,
                priorities: options.max_inbound_priority_frames_per_stream.into(),
                window_updates: options
                    .max_inbound_window_update_frames_per_data_frame_sent
                    .into(),
                unread: options.max_unread_small_frames,
            },
            server,
            streams: 0,
            priorities: 0,
            window_updates: 0,
            empties: 0,
            questions: 0,
            block: None,
            last_head: 0,
            acknowledged: false,
        }
    }

    /// Takes note of a frame.
    ///
    /// # Errors
    /// The peer passed a limit or broke a rule.
    pub(super) fn take(&mut self, frame: Frame, meter: &Meter) -> Result<(), Fault> {
        if self.server {
            self.check(frame, meter)?;
        }
        self.last_head = match frame.kind {
            HEADERS => frame.stream,
            CONTINUATION => self.last_head,
            _ => 0,
        };
        match frame.kind {
            DATA | HEADERS | CONTINUATION => self.payload(frame, meter)?,
            PRIORITY => {
                self.priorities += 1;
                if self.priorities > self.limits.priorities * (1 + self.streams) {
                    return Err(Fault::Flood(Flood::Priority));
                }
            }
            RST_STREAM if self.server || (frame.len == 4 && meter.is_open(frame.stream)) => {
                meter.note_reset();
            }
            SETTINGS if frame.has(ACK) => self.acknowledged = true,
            SETTINGS | PING if !frame.has(ACK) => {
                self.questions += 1;
                if self.unanswered(meter) > self.limits.control {
                    return Err(Fault::Flood(Flood::Control));
                }
            }
            GOAWAY if frame.len >= 8 => meter.goaway.store(true, Relaxed),
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let sent = meter.data_sent.load(Relaxed);
                let allowed = 5 + 2 * (self.streams + self.limits.window_updates * sent);
                if self.window_updates > allowed {
                    return Err(Fault::Flood(Flood::WindowUpdate));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether what came last is a header block of this stream.
    pub(super) fn is_head_of(&self, stream: u32) -> bool {
        self.last_head == stream
    }

    /// Whether what came last is a header block of a stream that is open.
    pub(super) fn is_head(&self, meter: &Meter) -> bool {
        self.last_head != 0 && meter.is_open(self.last_head)
    }

    /// Whether the peer has acknowledged our settings, the limit of streams among them.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// PING and SETTINGS whose answers were not sent.
    pub(super) fn unanswered(&self, meter: &Meter) -> u64 {
        let answers = meter.answers_sent.load(Relaxed);
        self.questions.saturating_sub(answers)
    }

    /// The rules that can be told from the header of a frame.
    fn check(&mut self, frame: Frame, meter: &Meter) -> Result<(), Fault> {
        let answer = |code, text| Err(Fault::GoAway { code, text });
        if frame.len > LARGEST {
            return answer(6, "too large frame size");
        }
        match (self.block, frame.kind) {
            (Some(stream), CONTINUATION) if stream == frame.stream => {}
            (Some(_), _) => {
                return answer(
                    1,
                    "unexpected non-CONTINUATION frame or stream_id is invalid",
                );
            }
            (None, CONTINUATION) => return answer(1, "CONTINUATION: unexpected"),
            (None, _) => {}
        }
        let fits = match frame.kind {
            RST_STREAM | WINDOW_UPDATE => frame.len == 4,
            PRIORITY => frame.len == 5,
            PING => frame.len == 8,
            GOAWAY => frame.len >= 8,
            PUSH_PROMISE => frame.len >= 4,
            SETTINGS => frame.len.is_multiple_of(6) && (frame.len == 0 || !frame.has(ACK)),
            _ => true,
        };
        if !fits {
            return answer(6, "");
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.block = (!frame.has(END_HEADERS)).then_some(frame.stream);
            let opens =
                frame.kind == CONTINUATION || frame.stream > meter.last_stream.load(Relaxed);
            let under_way = self.block.filter(|_| opens).unwrap_or(0);
            meter.head_under_way.store(under_way, Relaxed);
        }
        if frame.kind == DATA && frame.stream == 0 {
            return answer(1, "DATA: stream_id == 0");
        }
        // Streams of even numbers are the server's to open, and it opens none.
        let never_opened =
            frame.stream.is_multiple_of(2) || frame.stream > meter.last_stream.load(Relaxed);
        if frame.kind == DATA && never_opened {
            return answer(1, "DATA: stream in idle");
        }
        Ok(())
    }

    fn payload(&mut self, frame: Frame, meter: &Meter) -> Result<(), Fault> {
        let ends = frame.kind != CONTINUATION && frame.has(END_STREAM);
        if frame.kind == HEADERS {
            self.streams += 1;
            if frame.stream > meter.last_stream.load(Relaxed) {
                meter.last_stream.store(frame.stream, Relaxed);
            } else {
                meter.last_trailers.store(frame.stream, Relaxed);
            }
        }
        if ends {
            meter.remember_end(frame.stream);
        }
        let len = frame.len.saturating_sub(frame.padding);
        if frame.kind == DATA
            && (1..SMALL).contains(&len)
            && meter.arrived(frame.stream) > self.limits.unread
        {
            return Err(Fault::Flood(Flood::UnreadFrames));
        }
        if len > 0 || ends {
            self.empties = 0;
            return Ok(());
        }
        self.empties += 1;
        match self.empties > self.limits.empties {
            true => Err(Fault::Flood(Flood::EmptyFrames {
                stream: frame.stream,
            })),
            false => Ok(()),
        }
    }
}

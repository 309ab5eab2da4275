//! Operators about time that passed.

use std::time::{Duration, Instant};

use outrigger_types::StreamInfo;

use super::value::Value;

/// A point in the life of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    DownstreamRxBegin,
    DownstreamRxHeadEnd,
    DownstreamRxEnd,
    DownstreamConnectionBegin,
    UpstreamConnectBegin,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxBodyBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
    /// One that nothing on this path ever sets: Envoy lets extensions name
    /// their own, and has some for connections only.
    Never,
}

impl Point {
    fn parse(name: &str) -> Self {
        match name {
            "DS_RX_BEG" => Self::DownstreamRxBegin,
            "DS_RX_HDR_END" => Self::DownstreamRxHeadEnd,
            "DS_RX_END" => Self::DownstreamRxEnd,
            "DS_CX_BEG" => Self::DownstreamConnectionBegin,
            "US_CX_BEG" => Self::UpstreamConnectBegin,
            "US_CX_END" => Self::UpstreamConnectEnd,
            "US_HS_END" => Self::UpstreamHandshakeEnd,
            "US_TX_BEG" => Self::UpstreamTxBegin,
            "US_TX_END" => Self::UpstreamTxEnd,
            "US_RX_BEG" => Self::UpstreamRxBegin,
            "US_RX_BODY_BEG" => Self::UpstreamRxBodyBegin,
            "US_RX_END" => Self::UpstreamRxEnd,
            "DS_TX_BEG" => Self::DownstreamTxBegin,
            "DS_TX_END" => Self::DownstreamTxEnd,
            _ => Self::Never,
        }
    }

    fn of(self, info: &StreamInfo) -> Option<Instant> {
        let times = &info.times;
        let upstream = &info.upstream;
        let after = |offset: Option<Duration>| offset.and_then(|d| info.start.checked_add(d));
        match self {
            Self::DownstreamRxBegin => Some(info.start),
            Self::DownstreamRxHeadEnd => after(times.downstream_rx_head),
            Self::DownstreamRxEnd => after(times.last_downstream_rx),
            Self::DownstreamConnectionBegin => Some(info.connection.start),
            Self::UpstreamConnectBegin => upstream.connect_start,
            Self::UpstreamConnectEnd => upstream.connect_end,
            Self::UpstreamHandshakeEnd => upstream.handshake_end,
            Self::UpstreamTxBegin => after(times.first_upstream_tx),
            Self::UpstreamTxEnd => after(times.last_upstream_tx),
            Self::UpstreamRxBegin => after(times.first_upstream_rx),
            Self::UpstreamRxBodyBegin => after(times.first_upstream_rx_body),
            Self::UpstreamRxEnd => after(times.last_upstream_rx),
            Self::DownstreamTxBegin => after(times.first_downstream_tx),
            Self::DownstreamTxEnd => after(times.last_downstream_tx),
            Self::Never => None,
        }
    }
}

/// `%COMMON_DURATION(START:END:PRECISION)%`
#[derive(Debug)]
pub(super) struct CommonDuration {
    start: Point,
    end: Point,
    precision: Precision,
}

#[derive(Clone, Copy, Debug)]
enum Precision {
    Milli,
    Micro,
    Nano,
}

impl CommonDuration {
    /// Reads the parameters; the precision is milliseconds if it is left out.
    pub(super) fn parse(params: &str) -> Result<Self, String> {
        let parts: Vec<_> = params.split(':').collect();
        let (start, end, precision) = match *parts {
            [start, end] => (start, end, "ms"),
            [start, end, precision] => (start, end, precision),
            _ => return Err(format!("Invalid common duration configuration: {params}.")),
        };
        Ok(Self {
            start: Point::parse(start),
            end: Point::parse(end),
            precision: match precision {
                "ms" => Precision::Milli,
                "us" => Precision::Micro,
                "ns" => Precision::Nano,
                other => return Err(format!("Invalid common duration precision: {other}.")),
            },
        })
    }

    /// The time between the points; none if one of them was not reached, or
    /// they come the other way round.
    pub(super) fn read(&self, info: &StreamInfo) -> Option<u64> {
        let passed = self
            .end
            .of(info)?
            .checked_duration_since(self.start.of(info)?)?;
        let units = match self.precision {
            Precision::Milli => passed.as_millis(),
            Precision::Micro => passed.as_micros(),
            Precision::Nano => passed.as_nanos(),
        };
        u64::try_from(units).ok()
    }
}

/// Whole milliseconds.
pub(super) fn millis<'a>(duration: Option<Duration>) -> Value<'a> {
    Value::number(duration.and_then(|d| u64::try_from(d.as_millis()).ok()))
}

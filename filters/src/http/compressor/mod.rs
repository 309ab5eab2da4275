//! The compressor filter (`envoy.filters.http.compressor`): compresses responses as the client
//! accepts it. Requests are not compressed.

mod accept;
mod config;
mod encoder;
mod stats;

use std::sync::Arc;

use filter_api::{
    Chain, CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig,
    HttpFilterFactory, Interest, LocalReply, RouteFilterConfig, WorkerContext,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use outrigger_types::{Buffer, HeaderValue, Headers, ResponseHead, StatusCode, names};

pub(crate) use config::{MESSAGE, ROUTE_MESSAGE, filter, route};

use accept::{Choice, Offer};
use config::{CompressorConfig, RouteCompressor};
use encoder::Encoder;
use stats::{CompressorStats, DirectionStats, Stats};

/// The filter's configuration.
#[derive(Debug)]
struct Compressor {
    config: Arc<CompressorConfig>,
    /// Where it counts: `http.<stat_prefix>.compressor.<name>.<library>.`
    scope: Box<str>,
    response_prefix: &'static str,
    chain: Chain,
}

/// What the compressors of a chain know of each other.
#[derive(Debug)]
struct Chained {
    config: Arc<CompressorConfig>,
    first: bool,
}

impl HttpFilterConfig for Compressor {
    fn factory(&self, worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        let scope = worker.store.scope(&self.scope);
        Box::new(Factory {
            config: self.config.clone(),
            stats: Stats::new(&scope, self.response_prefix),
            chain: self.chain.all(),
        })
    }
}

struct Factory {
    config: Arc<CompressorConfig>,
    stats: Stats,
    chain: Arc<[Arc<Chained>]>,
}

impl HttpFilterFactory for Factory {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS
            | Interest::ENCODE_HEADERS
            | Interest::ENCODE_DATA
            | Interest::ENCODE_TRAILERS
    }

    fn create(
        &self,
        route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        let route = route.and_then(|route| route.downcast_ref::<RouteCompressor>());
        let removes = route.and_then(|route| route.remove_accept_encoding);
        Some(Box::new(CompressorFilter {
            remove_accept_encoding: removes.unwrap_or(self.config.remove_accept_encoding),
            disabled: route.is_some_and(|route| route.disabled),
            config: self.config.clone(),
            stats: self.stats.clone(),
            chain: self.chain.clone(),
            accepted: None,
            encoder: None,
        }))
    }
}

/// The filter on one stream.
struct CompressorFilter {
    config: Arc<CompressorConfig>,
    stats: Stats,
    chain: Arc<[Arc<Chained>]>,
    remove_accept_encoding: bool,
    disabled: bool,
    /// The request's `accept-encoding`.
    accepted: Option<String>,
    encoder: Option<Encoder>,
}

impl CompressorFilter {
    fn is_enabled(&self, cx: &FilterContext<'_>) -> bool {
        let switch = |(key, default): &(Box<str>, bool)| {
            let runtime = cx.services.runtime();
            runtime.boolean(key, *default)
        };
        !self.disabled && self.config.enabled.as_ref().is_none_or(switch)
    }

    /// Whether a response may be worth it, were it not for the client.
    fn is_compressible(&self, head: &ResponseHead) -> bool {
        let headers = &head.headers;
        let field = |name| headers.joined(name);
        let no_transform = field(&CACHE_CONTROL).is_some_and(|v| has(&v, b"no-transform"));
        let code = head.status.as_u16();
        self.takes_type(headers)
            && !no_transform
            && self.takes_etag(headers)
            && !headers.contains(&names::CONTENT_ENCODING)
            && !self.config.uncompressible_codes.contains(&code)
    }

    fn takes_type(&self, headers: &Headers) -> bool {
        media_type(headers).is_none_or(|t| self.config.types.contain(&t))
    }

    fn takes_etag(&self, headers: &Headers) -> bool {
        let allowed =
            self.config.weaken_etag || !(self.config.disable_on_etag && headers.contains(&ETAG));
        if !allowed {
            self.stats.common.inc(CompressorStats::not_compressed_etag);
        }
        allowed
    }

    /// Whether the body is long enough, as far as its head says.
    fn is_long_enough(&self, headers: &Headers) -> bool {
        let Some(length) = headers.get_bytes(&names::CONTENT_LENGTH) else {
            return true;
        };
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|l| l.parse().ok());
        let enough = length.is_some_and(|length: u64| length >= self.config.min_length);
        if !enough {
            let counter = DirectionStats::content_length_too_small;
            self.stats.response.inc(counter);
        }
        enough
    }

    /// Whether this filter is the one that the client and the chain agree on.
    fn is_chosen(&self, headers: &Headers) -> bool {
        let stats = &self.stats.common;
        let Some(accepted) = &self.accepted else {
            stats.inc(CompressorStats::no_accept_header);
            return false;
        };
        let media_type = media_type(headers);
        let mut offers: Vec<Offer> = Vec::new();
        for other in &*self.chain {
            let encoding = other.config.library.encoding();
            let fits = |t: &String| other.config.types.contain(t);
            let known = offers.iter().any(|offer| offer.encoding == encoding);
            if !known && media_type.as_ref().is_none_or(fits) {
                offers.push(Offer {
                    encoding,
                    first: other.first,
                });
            }
        }
        let choice = accept::choose(accepted, &offers);
        let chosen = choice.encoding() == Some(self.config.library.encoding());
        stats.inc(match choice {
            Choice::Named(_) if chosen => CompressorStats::header_compressor_used,
            Choice::Named(_) => CompressorStats::header_compressor_overshadowed,
            Choice::NotValid => CompressorStats::header_not_valid,
            Choice::Identity => CompressorStats::header_identity,
            Choice::Wildcard(_) => CompressorStats::header_wildcard,
        });
        chosen
    }

    /// Says what becomes of the body.
    fn announce(&self, headers: &mut Headers) {
        headers.remove(&names::CONTENT_LENGTH);
        let encoding = HeaderValue::from_static(self.config.library.encoding());
        headers.set(names::CONTENT_ENCODING, encoding);
        let strong = headers
            .get_bytes(&ETAG)
            .filter(|etag| !matches!(etag, [b'w' | b'W', b'/', _, ..]));
        let Some(etag) = strong else { return };
        let weak = [b"W/", etag].concat();
        match HeaderValue::from_bytes(&weak) {
            Ok(weak) if self.config.weaken_etag => headers.set(ETAG, weak),
            _ => {
                headers.remove(&ETAG);
            }
        }
    }

    /// Puts what the library gives in the place of `data`; a library that fails ends the
    /// response.
    fn replace(
        &self,
        data: &mut Buffer,
        read: usize,
        made: std::io::Result<bytes::Bytes>,
    ) -> FilterStatus {
        let stats = &self.stats.response;
        let Ok(compressed) = made else {
            let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "compressor_error");
            return FilterStatus::Reply(Box::new(reply));
        };
        stats.add(DirectionStats::total_uncompressed_bytes, read as u64);
        let length = compressed.len() as u64;
        stats.add(DirectionStats::total_compressed_bytes, length);
        *data = Buffer::from(compressed);
        FilterStatus::Continue
    }
}

/// The media type without its parameters.
fn media_type(headers: &Headers) -> Option<String> {
    let whole = headers.get_bytes(&CONTENT_TYPE)?;
    let end = whole.iter().position(|b| *b == b';').unwrap_or(whole.len());
    Some(String::from_utf8_lossy(&whole[..end]).trim().to_owned())
}

/// Whether a text contains another.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Whether a list has a member, whatever its case.
fn has(list: &[u8], member: &[u8]) -> bool {
    let mut members = list.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    members.any(|m| m.eq_ignore_ascii_case(member))
}

/// Lets caches know that the response depends on what the client accepts.
fn insert_vary(headers: &mut Headers) {
    const ACCEPT_ENCODING: &[u8] = b"Accept-Encoding";
    let varies = match headers.joined(&VARY) {
        None => ACCEPT_ENCODING.to_vec(),
        // As in Envoy another case is another field.
        Some(list) if contains(&list, ACCEPT_ENCODING) => return,
        Some(list) => [&*list, b", ", ACCEPT_ENCODING].concat(),
    };
    if let Ok(varies) = HeaderValue::from_bytes(&varies) {
        headers.set(VARY, varies);
    }
}

impl HttpFilter for CompressorFilter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _end_stream: bool) -> FilterStatus {
        self.stats.request.inc(DirectionStats::not_compressed);
        let accepted = cx.request.headers.joined(&names::ACCEPT_ENCODING);
        self.accepted = accepted.map(|value| String::from_utf8_lossy(&value).into_owned());
        if self.remove_accept_encoding && self.is_enabled(cx) {
            cx.request.headers.remove(&names::ACCEPT_ENCODING);
        }
        FilterStatus::Continue
    }

    fn encode_headers(
        &mut self,
        cx: &mut FilterContext<'_>,
        head: &mut ResponseHead,
        end_stream: bool,
    ) -> FilterStatus {
        let worth = self.is_enabled(cx) && self.is_long_enough(&head.headers);
        let compressible = worth && self.is_compressible(head);
        // The client's wish counts even where nothing is to be compressed.
        if !end_stream && worth && self.is_chosen(&head.headers) && compressible {
            self.encoder = Encoder::new(self.config.library).ok();
        }
        let stats = &self.stats.response;
        if self.encoder.is_some() {
            self.announce(&mut head.headers);
            stats.inc(DirectionStats::compressed);
        } else {
            stats.inc(DirectionStats::not_compressed);
        }
        if compressible {
            insert_vary(&mut head.headers);
        }
        FilterStatus::Continue
    }

    fn encode_data(
        &mut self,
        _cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        let read = data.len();
        let made = match (&mut self.encoder, end_stream) {
            (None, _) => return FilterStatus::Continue,
            (Some(encoder), false) => encoder.compress(data),
            (Some(_), true) => match self.encoder.take() {
                Some(encoder) => encoder.finish(data),
                None => return FilterStatus::Continue,
            },
        };
        self.replace(data, read, made)
    }

    fn encode_trailers(
        &mut self,
        cx: &mut FilterContext<'_>,
        _trailers: &mut Headers,
    ) -> FilterStatus {
        let Some(encoder) = self.encoder.take() else {
            return FilterStatus::Continue;
        };
        let mut rest = Buffer::new();
        let status = self.replace(&mut rest, 0, encoder.finish(&Buffer::new()));
        cx.add_data = Some(rest);
        status
    }
}

#[cfg(test)]
mod tests;

//! The buffer filter (`envoy.filters.http.buffer`): holds a request back until
//! it is whole, so that the upstream is not kept waiting by a slow client. One that is
//! larger than the filter's limit is answered 413 by the chain, which holds it; as
//! in Envoy the piece that ends it is not held any more, and so not counted.

mod config;
#[cfg(test)]
mod tests;

use filter_api::{
    CreateContext, FilterContext, FilterStatus, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, RouteFilterConfig, WorkerContext,
};
use outrigger_types::{Buffer, HeaderValue, Headers, RequestHead, names};

pub(crate) use config::{MESSAGE, ROUTE_MESSAGE, filter, route};

use config::{BufferConfig, RouteBuffer};

impl HttpFilterConfig for BufferConfig {
    fn factory(&self, _worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(*self)
    }
}

impl HttpFilterFactory for BufferConfig {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS | Interest::DECODE_DATA | Interest::DECODE_TRAILERS
    }

    fn create(
        &self,
        route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        let max = match route.and_then(|r| r.downcast_ref::<RouteBuffer>()) {
            Some(RouteBuffer::Disabled) => return None,
            Some(RouteBuffer::Limit(config)) => config.max_request_bytes,
            None => self.max_request_bytes,
        };
        Some(Box::new(BufferFilter { max, received: 0 }))
    }
}

/// The filter on one stream.
struct BufferFilter {
    max: usize,
    received: u64,
}

impl BufferFilter {
    /// The request is whole: says how long it is, if nobody did.
    fn finish(&self, request: &mut RequestHead) -> FilterStatus {
        if !request.headers.contains(&names::CONTENT_LENGTH) {
            let length = HeaderValue::from(self.received);
            request.headers.append(names::CONTENT_LENGTH, length);
        }
        FilterStatus::Continue
    }
}

impl HttpFilter for BufferFilter {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, end_stream: bool) -> FilterStatus {
        if end_stream {
            return FilterStatus::Continue;
        }
        // The connection's limit may be smaller: this one holds.
        cx.buffer_limit = self.max;
        FilterStatus::PauseAndBuffer
    }

    fn decode_data(
        &mut self,
        cx: &mut FilterContext<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> FilterStatus {
        self.received += data.len() as u64;
        match end_stream {
            true => self.finish(cx.request),
            false => FilterStatus::PauseAndBuffer,
        }
    }

    fn decode_trailers(
        &mut self,
        cx: &mut FilterContext<'_>,
        _trailers: &mut Headers,
    ) -> FilterStatus {
        self.finish(cx.request)
    }
}

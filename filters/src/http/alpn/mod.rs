//! Istio's ALPN filter (`istio.alpn`): what TLS offers upstream is chosen by the version of
//! HTTP that the cluster is spoken to, so that a peer's sidecar can tell HTTP from other
//! bytes before it has read any.

use std::sync::Arc;

use filter_api::{
    ConfigError, CreateContext, FactoryContext, FilterContext, FilterStatus, HttpFilter,
    HttpFilterConfig, HttpFilterFactory, Interest, RouteFilterConfig, WorkerContext,
};
use outrigger_types::{Metadata, MetadataValue, Protocol};
use xds_api::pb::istio::envoy::config::filter::http::alpn::v2alpha1 as pb;

use crate::registry::decode;

pub(crate) const MESSAGE: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// What is offered, in order.
type Offer = Arc<[Box<[u8]>]>;

/// The filter's configuration: offers by version of HTTP.
#[derive(Clone, Debug, Default)]
struct Alpn(Arc<Offers>);

#[derive(Debug, Default)]
struct Offers {
    http10: Option<Offer>,
    http11: Option<Offer>,
    http2: Option<Offer>,
}

impl Offers {
    fn of(&mut self, protocol: pb::filter_config::Protocol) -> &mut Option<Offer> {
        match protocol {
            pb::filter_config::Protocol::Http10 => &mut self.http10,
            pb::filter_config::Protocol::Http11 => &mut self.http11,
            pb::filter_config::Protocol::Http2 => &mut self.http2,
        }
    }

    fn find(&self, protocol: Protocol) -> Option<&Offer> {
        let offer = match protocol {
            Protocol::Http10 => &self.http10,
            Protocol::Http11 => &self.http11,
            Protocol::Http2 => &self.http2,
        };
        offer.as_ref().filter(|names| !names.is_empty())
    }
}

pub(crate) fn filter(
    bytes: &[u8],
    _: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    let pb::FilterConfig { alpn_override } = decode(MESSAGE, bytes)?;
    let mut offers = Offers::default();
    for (index, message) in alpn_override.into_iter().enumerate() {
        let pb::filter_config::AlpnOverride {
            upstream_protocol,
            alpn_override,
        } = message;
        let protocol = pb::filter_config::Protocol::try_from(upstream_protocol).map_err(|_| {
            let path = format!("alpn_override[{index}] / upstream_protocol");
            ConfigError::field(path, format!("unknown value {upstream_protocol}"))
        })?;
        let names = alpn_override.into_iter();
        let offer: Offer = names.map(|name| name.into_bytes().into()).collect();
        // As in Envoy the first of several counts.
        offers.of(protocol).get_or_insert(offer);
    }
    Ok(Arc::new(Alpn(Arc::new(offers))))
}

impl HttpFilterConfig for Alpn {
    fn factory(&self, _: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(self.clone())
    }
}

impl HttpFilterFactory for Alpn {
    fn interest(&self) -> Interest {
        Interest::DECODE_HEADERS
    }

    fn create(
        &self,
        _: Option<&RouteFilterConfig>,
        _: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(self.clone()))
    }
}

impl HttpFilter for Alpn {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> FilterStatus {
        let downstream = cx.info.protocol.unwrap_or(Protocol::Http11);
        let cluster = cx.route.and_then(|route| route.cluster.as_deref());
        if let Some(facts) = cluster.and_then(|c| cx.services.cluster_facts(c, downstream))
            && !is_off(facts.metadata.as_deref())
            && let Some(offer) = self.0.find(facts.protocol)
        {
            cx.info.upstream_alpn = Some(offer.clone());
        }
        FilterStatus::Continue
    }
}

/// Whether a cluster's metadata keeps its own offer.
fn is_off(metadata: Option<&Metadata>) -> bool {
    let value = metadata.and_then(|all| all.get("istio")?.at(["alpn_override"]));
    matches!(value, Some(MetadataValue::String(text)) if &**text == "false")
}

#[cfg(test)]
mod tests {
    use outrigger_stats::Store;
    use prost::Message;

    use super::*;
    use crate::testing::{TestStream, factory_context};

    fn config(offers: &[(i32, &[&str])]) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
        let offer = |(protocol, names): &(i32, &[&str])| pb::filter_config::AlpnOverride {
            upstream_protocol: *protocol,
            alpn_override: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let message = pb::FilterConfig {
            alpn_override: offers.iter().map(offer).collect(),
        };
        filter(&message.encode_to_vec(), &factory_context())
    }

    /// What is offered for a stream; its cluster speaks as the downstream does.
    fn offered(stream: &mut TestStream, protocol: Protocol) -> String {
        let offers: [(i32, &[&str]); 3] = [(0, &["istio-http/1.0"]), (1, &[]), (2, &["i2", "h2"])];
        let config = config(&offers).unwrap();
        stream.info.protocol = Some(protocol);
        let mut filter = stream.filter(&*config, None).unwrap();
        filter.decode_headers(&mut stream.context(), true);
        let offer = stream.info.upstream_alpn.take();
        let names = offer.iter().flat_map(|offer| offer.iter());
        let names: Vec<_> = names.map(|name| String::from_utf8_lossy(name)).collect();
        names.join(" ")
    }

    #[test]
    fn the_version_of_the_cluster_chooses_the_offer() {
        let mut stream = TestStream::new(&Store::default(), "/");
        assert_eq!(offered(&mut stream, Protocol::Http10), "istio-http/1.0");
        assert_eq!(offered(&mut stream, Protocol::Http11), "");
        assert_eq!(offered(&mut stream, Protocol::Http2), "i2 h2");
    }

    #[test]
    fn nothing_is_offered_for_a_cluster_that_is_not_there() {
        let mut stream = TestStream::new(&Store::default(), "/");
        stream.route.cluster = Some("gone".into());
        assert_eq!(offered(&mut stream, Protocol::Http2), "");
        stream.route.cluster = None;
        assert_eq!(offered(&mut stream, Protocol::Http2), "");
    }

    #[test]
    fn metadata_of_the_cluster_turns_it_off() {
        let mut stream = TestStream::new(&Store::default(), "/");
        for (value, expected) in [("false", ""), ("true", "i2 h2")] {
            let mut metadata = Metadata::default();
            let value = MetadataValue::String(value.into());
            let fields = [("alpn_override".into(), value)].into();
            metadata.set("istio", MetadataValue::Struct(fields));
            stream.services.metadata = Some(Arc::new(metadata));
            assert_eq!(offered(&mut stream, Protocol::Http2), expected);
        }
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let error = config(&[(7, &["x"])]).unwrap_err();
        assert!(error.to_string().contains("upstream_protocol"), "{error}");
    }
}

//! Istio's metrics (`istio.stats`): taken, but nothing is reported yet.

use std::sync::Arc;

use filter_api::{
    ConfigError, CreateContext, FactoryContext, HttpFilter, HttpFilterConfig, HttpFilterFactory,
    Interest, RouteFilterConfig, WorkerContext,
};
use xds_api::pb::stats as pb;

use crate::registry::decode;

pub(crate) const MESSAGE: &str = "stats.PluginConfig";

pub(crate) fn filter(
    bytes: &[u8],
    _: &FactoryContext,
) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
    decode::<pb::PluginConfig>(MESSAGE, bytes)?;
    Ok(Arc::new(IstioStats))
}

/// Takes no part in any stream.
#[derive(Debug)]
struct IstioStats;

impl HttpFilterConfig for IstioStats {
    fn factory(&self, _: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(Self)
    }
}

impl HttpFilterFactory for IstioStats {
    fn interest(&self) -> Interest {
        Interest::NONE
    }

    fn create(
        &self,
        _: Option<&RouteFilterConfig>,
        _: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use outrigger_stats::Store;
    use prost::Message;

    use super::*;
    use crate::testing::{TestStream, factory_context};

    #[test]
    fn any_configuration_is_taken_and_nothing_done() {
        let config = pb::PluginConfig {
            disable_host_header_fallback: true,
            metrics: vec![pb::MetricConfig {
                name: "requests_total".into(),
                ..pb::MetricConfig::default()
            }],
            ..pb::PluginConfig::default()
        };
        let config = filter(&config.encode_to_vec(), &factory_context()).unwrap();
        let stream = TestStream::new(&Store::default(), "/");
        assert!(stream.filter(&*config, None).is_none());
    }
}

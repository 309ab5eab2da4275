//! Listener filters.

use prost::Message;

use super::any::Typed;
use super::path::{Within, each, optional, refuse, required};
use super::{Result, defaults};
use crate::ir::{
    ListenerFilterConfig, ListenerFilterKind, ListenerFilterPredicate, TlsInspectorConfig,
};
use crate::pb::envoy::config::listener::v3 as pb;
use crate::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use crate::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use crate::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use crate::pb::google::protobuf as wkt;

/// Converts one listener filter.
pub(super) fn listener_filter(message: pb::ListenerFilter) -> Result<ListenerFilterConfig> {
    use pb::listener_filter::ConfigType;
    let pb::ListenerFilter {
        name,
        filter_disabled,
        config_type,
    } = message;
    let kind = match config_type {
        Some(ConfigType::TypedConfig(config)) => kind(config).within("typed_config")?,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return refuse("config_discovery", "is not supported");
        }
        None => {
            let reason = format!("listener filter \"{name}\" has none");
            return refuse("typed_config", reason);
        }
    };
    Ok(ListenerFilterConfig {
        name: name.into(),
        disabled: optional("filter_disabled", filter_disabled, predicate)?,
        kind,
    })
}

fn kind(config: wkt::Any) -> Result<ListenerFilterKind> {
    let typed = Typed::unpack(config)?;
    match &*typed.name {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            let OriginalDst {} = decode(&typed)?;
            Ok(ListenerFilterKind::OriginalDst)
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            let HttpInspector {} = decode(&typed)?;
            Ok(ListenerFilterKind::HttpInspector)
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            tls_inspector(decode(&typed)?).map(ListenerFilterKind::TlsInspector)
        }
        _ => typed.unsupported("listener filter"),
    }
}

fn decode<M: Message + Default>(typed: &Typed) -> Result<M> {
    typed.decode()
}

fn tls_inspector(message: TlsInspector) -> Result<TlsInspectorConfig> {
    let TlsInspector {
        enable_ja3_fingerprinting: _,
        enable_ja4_fingerprinting: _,
        // How much Envoy reads at first says nothing of what it finds.
        initial_read_buffer_size: _,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = message;
    let size = max_client_hello_size.map_or(defaults::MAX_CLIENT_HELLO, |wrapped| wrapped.value);
    Ok(TlsInspectorConfig {
        max_client_hello_size: size as usize,
        close_on_error: close_connection_on_client_hello_parsing_errors,
    })
}

fn predicate(message: pb::ListenerFilterChainMatchPredicate) -> Result<ListenerFilterPredicate> {
    use pb::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let pb::ListenerFilterChainMatchPredicate { rule } = message;
    let all = |MatchSet { rules }| each("rules", rules, predicate);
    Ok(match required("rule", rule)? {
        Rule::AnyMatch(_) => ListenerFilterPredicate::Any,
        Rule::OrMatch(set) => ListenerFilterPredicate::Or(all(set).within("or_match")?),
        Rule::AndMatch(set) => ListenerFilterPredicate::And(all(set).within("and_match")?),
        Rule::NotMatch(rule) => {
            let inner = predicate(*rule).within("not_match")?;
            ListenerFilterPredicate::Not(Box::new(inner))
        }
        Rule::DestinationPortRange(range) => {
            ListenerFilterPredicate::DestinationPort(range.start, range.end)
        }
    })
}

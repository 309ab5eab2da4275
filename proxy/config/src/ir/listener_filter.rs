//! Listener filters (`config.listener.v3.ListenerFilter`): what looks at a connection
//! before its filter chain is chosen.

use std::sync::Arc;

/// One listener filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFilterConfig {
    /// Its name, which serves people alone.
    pub name: Arc<str>,
    /// For which connections it does nothing.
    pub disabled: Option<ListenerFilterPredicate>,
    /// What it does.
    pub kind: ListenerFilterKind,
}

/// What a listener filter does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// Restores the address that a redirected connection was meant for.
    OriginalDst,
    /// Reads name and protocols from the ClientHello.
    TlsInspector(TlsInspectorConfig),
    /// Tells the version of HTTP.
    HttpInspector,
}

/// `tls_inspector.v3.TlsInspector`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInspectorConfig {
    /// Most bytes of a ClientHello with its record headers. Default 16 KiB.
    pub max_client_hello_size: usize,
    /// What is no ClientHello ends the connection. Off by default.
    pub close_on_error: bool,
}

/// Which connections a listener filter leaves alone
/// (`ListenerFilterChainMatchPredicate`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerFilterPredicate {
    /// All.
    Any,
    /// Those that one of these holds for.
    Or(Vec<Self>),
    /// Those that all of these hold for.
    And(Vec<Self>),
    /// Those that it does not hold for.
    Not(Box<Self>),
    /// Those to a port from the first to below the second.
    DestinationPort(i32, i32),
}

impl ListenerFilterPredicate {
    /// Whether it holds for a connection to `port`; none where the address has no port.
    pub fn matches(&self, port: Option<u16>) -> bool {
        match self {
            Self::Any => true,
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(port)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(port)),
            Self::Not(rule) => !rule.matches(port),
            Self::DestinationPort(start, end) => {
                port.is_some_and(|port| (*start..*end).contains(&i32::from(port)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_are_about_the_port() {
        use ListenerFilterPredicate::{And, Any, DestinationPort, Not, Or};
        let range = || DestinationPort(80, 90);
        assert!(Any.matches(None) && !range().matches(None));
        let at =
            |rule: &ListenerFilterPredicate| [79, 80, 89, 90].map(|port| rule.matches(Some(port)));
        assert_eq!(at(&range()), [false, true, true, false]);
        assert_eq!(at(&Not(Box::new(range()))), [true, false, false, true]);
        let either = Or(vec![range(), DestinationPort(79, 80)]);
        assert_eq!(at(&either), [true, true, true, false]);
        let both = And(vec![range(), DestinationPort(85, 100)]);
        assert_eq!(at(&both), [false, false, true, false]);
    }
}

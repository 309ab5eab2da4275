//! The route of a stream, and the filters that come of it.

use std::sync::Arc;
use std::time::Instant;

use filter_api::{CreateContext, RouteFilterConfig, RouteInfo, Services};
use outrigger_types::{RequestHead, StreamInfo, UpstreamInfo};

use crate::http::conn_manager::Hcm;
use crate::http::filter_chain::{Made, Routing};
use crate::router::matcher::RouteMatch;
use crate::upstream::facts::note_cluster;

/// The choice of the route.
pub(super) struct StreamRouting {
    hcm: Arc<Hcm>,
    /// The route in force.
    pub(super) matched: Option<RouteMatch>,
    /// The first choice, once there was another: it says which filters are off,
    /// as in Envoy.
    first: Option<Box<Option<RouteMatch>>>,
    route: Option<RouteInfo>,
    /// A number that is the stream's own, for shares and weights.
    pub(super) random: u64,
}

impl StreamRouting {
    /// No choice yet.
    pub(super) fn new(hcm: Arc<Hcm>) -> Self {
        Self {
            hcm,
            matched: None,
            first: None,
            route: None,
            random: rand::random(),
        }
    }

    /// Chooses the route of a request.
    pub(super) fn choose(&mut self, request: &RequestHead, info: &mut StreamInfo) {
        let runtime = self.hcm.worker.runtime();
        let table = self.hcm.routes();
        let began = Instant::now();
        self.matched = table.and_then(|table| table.find(request, info, &runtime, self.random));
        info.route_resolutions += 1;
        info.route_resolution_time += began.elapsed();
        self.route = self.matched.as_ref().map(RouteMatch::info);
        let Some(matched) = &self.matched else {
            return;
        };
        info.virtual_host = matched.vhost.name.clone();
        info.virtual_host_metadata = matched.vhost.metadata.clone();
        if let Some(route) = &matched.route {
            info.route_name = route.name.clone();
            info.route_metadata = route.metadata.clone();
        }
        // What does not exist is not logged as the cluster.
        let cluster = matched.cluster.as_ref();
        if let Some(cluster) = cluster.and_then(|name| self.hcm.worker.cluster(name)) {
            note_cluster(&mut info.upstream, &cluster);
        }
    }

    /// What each level of the route in force says of a filter.
    fn overrides(&self, name: &str) -> Vec<RouteFilterConfig> {
        let matched = self.matched.iter();
        let levels = matched.flat_map(|matched| matched.filter_overrides(name));
        levels.filter_map(|level| level.config.clone()).collect()
    }

    fn is_disabled(&self, name: &str) -> Option<bool> {
        let decided_by = self
            .first
            .as_ref()
            .map_or(self.matched.as_ref(), |first| (**first).as_ref());
        Some(decided_by?.filter_override(name)?.disabled)
    }
}

impl Routing for StreamRouting {
    fn route(&self) -> Option<&RouteInfo> {
        self.route.as_ref()
    }

    fn refresh(&mut self, request: &RequestHead, info: &mut StreamInfo) {
        let before = self.matched.take();
        self.first.get_or_insert_with(|| Box::new(before));
        info.virtual_host = self.hcm.empty_name();
        info.route_name = self.hcm.empty_name();
        info.virtual_host_metadata = None;
        info.route_metadata = None;
        info.upstream = UpstreamInfo::default();
        self.choose(request, info);
    }

    fn next_filter(&self, from: usize) -> Option<Made> {
        let slots = self.hcm.filters().iter().enumerate().skip(from);
        for (index, slot) in slots {
            if self.is_disabled(&slot.name).unwrap_or(slot.disabled) {
                continue;
            }
            let found = self
                .matched
                .as_ref()
                .and_then(|m| m.filter_override(&slot.name));
            let config = found.and_then(|o| o.config.as_ref());
            let overrides = || self.overrides(&slot.name);
            let cx = CreateContext {
                services: &*self.hcm.worker,
                overrides: &overrides,
            };
            if let Some(filter) = slot.factory.create(config, &cx) {
                return Some((index, filter, slot.factory.interest()));
            }
        }
        None
    }
}

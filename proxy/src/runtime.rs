//! The layered runtime: static layers of the bootstrap, and what `/runtime_modify`
//! sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use filter_api::RuntimeSnapshot;
use outrigger_config::ir::{RuntimeLayerConfig, RuntimeLayerKind};
use outrigger_config::re2;
use outrigger_stats::{Slab, Store};

outrigger_stats::stat_set! {
    /// `runtime.`
    pub struct RuntimeStats {
        counters {
            deprecated_feature_use,
            load_error,
            load_success,
            override_dir_exists,
            override_dir_not_exists,
        }
        gauges {
            admin_overrides_active,
            deprecated_feature_seen_since_process_start,
            num_keys,
            num_layers,
        }
    }
}

/// The largest program of an expression that is compiled from now on.
const RE2_ERROR_LEVEL: &str = "re2.max_program_size.error_level";

/// Applies the keys that hold for the process as a whole. Today that is
/// `re2.max_program_size.error_level`, 100 unless set.
pub fn apply_to_process(runtime: &RuntimeSnapshot) {
    let size = runtime.integer(RE2_ERROR_LEVEL, u64::from(re2::DEFAULT_MAX_PROGRAM_SIZE));
    re2::set_max_program_size(u32::try_from(size).unwrap_or(u32::MAX));
}

/// Values by key.
pub type Values = BTreeMap<Box<str>, Box<str>>;

/// All layers.
pub struct Runtime {
    layers: Vec<(Arc<str>, Values)>,
    /// Index of the admin layer, if there is one.
    admin: Option<usize>,
    stats: Slab<RuntimeStats>,
}

impl Runtime {
    /// The layers of the bootstrap.
    pub fn new(config: &[RuntimeLayerConfig], store: &Store) -> Self {
        let mut runtime = Self {
            layers: Vec::new(),
            admin: None,
            stats: store.scope("runtime.").slab(),
        };
        for layer in config {
            let values = match &layer.kind {
                RuntimeLayerKind::Static(values) => values.clone(),
                RuntimeLayerKind::Admin => {
                    runtime.admin = Some(runtime.layers.len());
                    Values::new()
                }
            };
            runtime.layers.push((layer.name.clone(), values));
        }
        runtime.note_loaded();
        runtime
    }

    /// Counts that the layers were read; there is no directory of overrides.
    fn note_loaded(&self) {
        self.stats.inc(RuntimeStats::load_success);
        self.stats.inc(RuntimeStats::override_dir_not_exists);
    }

    /// The layers in order, with what each holds.
    pub fn layers(&self) -> &[(Arc<str>, Values)] {
        &self.layers
    }

    /// Sets values in the admin layer; an empty one removes the key.
    ///
    /// # Errors
    /// When there is no admin layer.
    pub fn modify(&mut self, changes: &[(String, String)]) -> Result<(), &'static str> {
        let index = self.admin.ok_or("No admin layer specified")?;
        let values = &mut self.layers[index].1;
        for (key, value) in changes {
            if value.is_empty() {
                values.remove(key.as_str());
            } else {
                values.insert(key.as_str().into(), value.as_str().into());
            }
        }
        let active = i64::from(!values.is_empty());
        self.stats
            .gauge_set(RuntimeStats::admin_overrides_active, active);
        Ok(())
    }

    /// All layers as one, the last winning.
    pub fn snapshot(&self) -> Arc<RuntimeSnapshot> {
        let mut values = Values::new();
        for (_, layer) in &self.layers {
            values.extend(layer.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.stats
            .gauge_set(RuntimeStats::num_keys, count(values.len()));
        self.stats
            .gauge_set(RuntimeStats::num_layers, count(self.layers.len()));
        self.note_loaded();
        Arc::new(RuntimeSnapshot::new(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, kind: RuntimeLayerKind) -> RuntimeLayerConfig {
        RuntimeLayerConfig {
            name: name.into(),
            kind,
        }
    }

    #[test]
    fn the_last_layer_wins() {
        let base =
            RuntimeLayerKind::Static([("a".into(), "1".into()), ("b".into(), "2".into())].into());
        let config = [layer("base", base), layer("admin", RuntimeLayerKind::Admin)];
        let mut runtime = Runtime::new(&config, &Store::default());
        runtime.modify(&[("a".into(), "9".into())]).unwrap();
        let snapshot = runtime.snapshot();
        assert_eq!(
            (snapshot.get("a"), snapshot.get("b")),
            (Some("9"), Some("2"))
        );
        runtime.modify(&[("a".into(), String::new())]).unwrap();
        assert_eq!(runtime.snapshot().get("a"), Some("1"));
    }

    #[test]
    fn there_may_be_no_admin_layer() {
        let config = [layer("base", RuntimeLayerKind::Static(Values::new()))];
        assert!(
            Runtime::new(&config, &Store::default())
                .modify(&[])
                .is_err()
        );
    }
}

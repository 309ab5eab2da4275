//! The layered runtime as filters see it: one flat, immutable snapshot.

use std::collections::BTreeMap;

/// A share of a whole, as `type.v3.FractionalPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FractionalPercent {
    /// How many.
    pub numerator: u32,
    /// Of how many: 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl FractionalPercent {
    /// None of them.
    pub const ZERO: Self = Self {
        numerator: 0,
        denominator: 100,
    };
    /// All of them.
    pub const ALL: Self = Self {
        numerator: 100,
        denominator: 100,
    };

    /// Whether a uniformly random number falls into the share.
    pub fn picks(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

/// A share whose value a runtime key may override
/// (`core.v3.RuntimeFractionalPercent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFraction {
    /// The value when the key is not set.
    pub default: FractionalPercent,
    /// The key; empty for none.
    pub key: Box<str>,
}

impl RuntimeFraction {
    /// The share in force.
    pub fn resolve(&self, runtime: &RuntimeSnapshot) -> FractionalPercent {
        if self.key.is_empty() {
            return self.default;
        }
        runtime.fraction(&self.key, self.default)
    }
}

/// All layers of the runtime, the last one winning, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeSnapshot {
    values: BTreeMap<Box<str>, Box<str>>,
    /// Values that are a numerator and a denominator.
    shares: BTreeMap<Box<str>, FractionalPercent>,
}

impl RuntimeSnapshot {
    /// A snapshot of these values. One that is the JSON of a `FractionalPercent` is a
    /// share.
    pub fn new(values: BTreeMap<Box<str>, Box<str>>) -> Self {
        let shares = values
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), share(v)?)));
        Self {
            shares: shares.collect(),
            values,
        }
    }

    /// The raw value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|v| &**v)
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(k, v)| (&**k, &**v))
    }

    /// The value as an unsigned integer; `default` if it is absent or none.
    pub fn integer(&self, key: &str, default: u64) -> u64 {
        self.number(key).map_or(default, |n| n as u64)
    }

    /// The value as a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite() && *n >= 0.0)
    }

    /// The value as a boolean; `default` if it is absent or neither.
    pub fn boolean(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some("true") => true,
            Some("false") => false,
            _ => default,
        }
    }

    /// The value as a share. A plain integer means per cent, as in Envoy.
    pub fn fraction(&self, key: &str, default: FractionalPercent) -> FractionalPercent {
        if let Some(share) = self.shares.get(key) {
            return *share;
        }
        match self.number(key) {
            Some(n) => FractionalPercent {
                numerator: (n as u32).min(100),
                denominator: 100,
            },
            None => default,
        }
    }
}

/// Reads `{"numerator":N,"denominator":"HUNDRED"}`; either may be left out.
fn share(json: &str) -> Option<FractionalPercent> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let numerator = match fields.get("numerator") {
        Some(n) => u32::try_from(n.as_f64()? as u64).ok()?,
        None => 0,
    };
    let denominator = match fields.get("denominator").map(|d| d.as_str()) {
        None | Some(Some("HUNDRED")) => 100,
        Some(Some("TEN_THOUSAND")) => 10_000,
        Some(Some("MILLION")) => 1_000_000,
        Some(_) => return None,
    };
    Some(FractionalPercent {
        numerator,
        denominator,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_may_have_its_own_denominator() {
        let json = r#"{"denominator":"TEN_THOUSAND","numerator":5}"#;
        let runtime = RuntimeSnapshot::new([("a".into(), json.into())].into());
        let share = runtime.fraction("a", FractionalPercent::ALL);
        assert_eq!((share.numerator, share.denominator), (5, 10_000));
        let bad = RuntimeSnapshot::new([("a".into(), r#"{"denominator":"X"}"#.into())].into());
        assert_eq!(
            bad.fraction("a", FractionalPercent::ALL),
            FractionalPercent::ALL
        );
    }

    #[test]
    fn a_key_overrides_the_default() {
        let runtime = RuntimeSnapshot::new([("a".into(), "30".into())].into());
        let at = |key: &str| RuntimeFraction {
            default: FractionalPercent::ALL,
            key: key.into(),
        };
        assert_eq!(
            at("a").resolve(&runtime),
            FractionalPercent {
                numerator: 30,
                denominator: 100
            }
        );
        assert_eq!(at("b").resolve(&runtime), FractionalPercent::ALL);
        assert!(at("a").resolve(&runtime).picks(129) && !at("a").resolve(&runtime).picks(30));
    }
}

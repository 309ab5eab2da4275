//! What is different on every run and means nothing: dates, ids, ports, elapsed times.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

/// Headers whose value is replaced whole, and by what.
const HEADERS: &[(&str, &str)] = &[
    ("date", "{date}"),
    ("x-envoy-upstream-service-time", "{ms}"),
];

static UUID: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").ok()
});
static LOOPBACK: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"127\.0\.0\.1([:_])([0-9]{2,5})").ok());

/// Replaces what a run made up: the ports of this case by their names.
#[derive(Debug, Clone, Default)]
pub struct Normaliser {
    ports: BTreeMap<String, String>,
}

impl Normaliser {
    /// For a case with these ports, as name and number.
    #[must_use]
    pub fn new(ports: &BTreeMap<String, u16>) -> Self {
        Self {
            ports: ports
                .iter()
                .map(|(name, port)| (port.to_string(), name.clone()))
                .collect(),
        }
    }

    /// A text with ids and ports replaced.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        if let Some(uuid) = &*UUID {
            out = uuid.replace_all(&out, "{uuid}").into_owned();
        }
        if let Some(loopback) = &*LOOPBACK {
            let name = |found: &regex::Captures<'_>| {
                let port = self.ports.get(&found[2]).map_or("port", String::as_str);
                format!("127.0.0.1{}{{{port}}}", &found[1])
            };
            out = loopback.replace_all(&out, name).into_owned();
        }
        out
    }

    /// A time left, rounded up so that what has passed since does not show.
    fn rounded(value: &str) -> String {
        match value.parse::<u64>() {
            Ok(ms) => {
                let step = if ms > 2000 { 1000 } else { 100 };
                ms.div_ceil(step).saturating_mul(step).to_string()
            }
            Err(_) => value.to_owned(),
        }
    }

    /// A header field as one line.
    #[must_use]
    pub fn field(&self, name: &str, value: &str) -> String {
        let whole = HEADERS
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        let value = match whole {
            Some((_, mark)) => (*mark).to_owned(),
            None if name == "x-envoy-expected-rq-timeout-ms" => Self::rounded(value),
            None if value.len() > 600 => crate::values::show_bytes(value.as_bytes()),
            None => self.text(
                &value
                    .escape_default()
                    .to_string()
                    .replace("\\\"", "\"")
                    .replace("\\'", "'"),
            ),
        };
        format!("{name}: {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ports_get_their_names_and_others_none() {
        let ports = BTreeMap::from([("upstream.a".to_owned(), 12345)]);
        let got = Normaliser::new(&ports).text("127.0.0.1:12345 from 127.0.0.1:40000");
        assert_eq!(got, "127.0.0.1:{upstream.a} from 127.0.0.1:{port}");
    }

    #[test]
    fn an_id_in_any_place_is_replaced() {
        let got = Normaliser::default().text("id=01234567-89ab-cdef-0123-456789abcdef;");
        assert_eq!(got, "id={uuid};");
    }

    #[test]
    fn the_date_is_replaced_by_name() {
        assert_eq!(Normaliser::default().field("date", "today"), "date: {date}");
    }
}

//! Which encoding a client and the filters of a chain agree on (RFC 9110 section 12.5.3).

/// What the request's `accept-encoding` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// No compression, by the client's wish.
    Identity,
    /// The client takes any encoding: it is the first of the chain.
    Wildcard(&'static str),
    /// One that the client names.
    Named(&'static str),
    /// None that there is.
    NotValid,
}

impl Choice {
    /// The encoding that is to be used.
    pub(super) const fn encoding(self) -> Option<&'static str> {
        match self {
            Self::Wildcard(encoding) | Self::Named(encoding) => Some(encoding),
            Self::Identity | Self::NotValid => None,
        }
    }
}

/// One encoding that a filter of the chain offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Its name.
    pub(super) encoding: &'static str,
    /// It is taken before others that the client likes as much.
    pub(super) first: bool,
}

/// Chooses among what the filters of the chain offer, in their order.
pub(super) fn choose(accepted: &str, offers: &[Offer]) -> Choice {
    let mut offers: Vec<Offer> = offers.to_vec();
    let mut wishes: Vec<(&str, f32)> = Vec::new();
    for token in accepted.split(',').filter(|token| !token.is_empty()) {
        let (name, parameters) = token.split_once(';').unwrap_or((token, ""));
        let name = name.trim();
        let weight = match parameters.split_once('=') {
            Some((key, value)) if key.trim().eq_ignore_ascii_case("q") => {
                let Ok(weight) = value.trim().parse() else {
                    continue;
                };
                weight
            }
            _ => 1.0,
        };
        wishes.push((name, weight));
        if weight == 0.0 {
            offers.retain(|offer| offer.encoding != name);
        }
    }
    if wishes.is_empty() || offers.is_empty() {
        return Choice::NotValid;
    }
    let offered = |name: &str| offers.iter().find(|offer| offer.encoding == name);
    let mut best: Option<(&str, f32)> = None;
    for (name, weight) in wishes {
        let known = matches!(name, "identity" | "*") || offered(name).is_some();
        if !known || weight <= 0.0 {
            continue;
        }
        let better = best.is_none_or(|(held, most)| {
            let preferred = |name| offered(name).is_some_and(|offer| offer.first);
            weight > most || weight == most && preferred(name) && !preferred(held)
        });
        if better {
            best = Some((name, weight));
        }
    }
    match best {
        None => Choice::NotValid,
        Some(("identity", _)) => Choice::Identity,
        Some(("*", _)) => Choice::Wildcard(offers[0].encoding),
        Some((name, _)) => offered(name).map_or(Choice::NotValid, |o| Choice::Named(o.encoding)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn offer(encoding: &'static str) -> Offer {
        Offer {
            encoding,
            first: false,
        }
    }

    #[test]
    fn the_highest_weight_wins_then_the_clients_order() {
        let offers = [offer("br"), offer("zstd"), offer("gzip")];
        let of = |accepted| choose(accepted, &offers);
        assert_eq!(of("gzip, br"), Choice::Named("gzip"));
        assert_eq!(of("gzip;q=0.5, br;q=0.8, zstd;q=0.1"), Choice::Named("br"));
        assert_eq!(of("deflate, gzip ; Q = 0.1"), Choice::Named("gzip"));
        assert_eq!(of("*"), Choice::Wildcard("br"));
        assert_eq!(of("br;q=0, *"), Choice::Wildcard("zstd"));
        assert_eq!(of("identity, gzip;q=0.5"), Choice::Identity);
        for none in ["", "deflate", "gzip;q=0", "gzip;q=x", ",,"] {
            assert_eq!(of(none), Choice::NotValid, "{none}");
        }
    }

    #[test]
    fn a_filter_that_is_to_be_first_wins_a_tie() {
        let first = Offer {
            encoding: "br",
            first: true,
        };
        let offers = [offer("gzip"), first];
        assert_eq!(choose("gzip, br", &offers), Choice::Named("br"));
        assert_eq!(choose("gzip, br;q=0.9", &offers), Choice::Named("gzip"));
    }
}

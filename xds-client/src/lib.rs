//! xDS client: ADS, state-of-the-world and delta, generic over the resource.

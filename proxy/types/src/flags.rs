//! Response flags: why a response is what it is, in two or three letters.

macro_rules! flags {
    ($($name:ident = $short:literal, $long:literal;)*) => {
        /// One reason, under Envoy's short and long names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ResponseFlag {
            $(#[doc = concat!("`", $short, "`: ", $long)] $name,)*
        }

        impl ResponseFlag {
            /// Every flag, in the order in which Envoy prints them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As `%RESPONSE_FLAGS%` prints it.
            pub const fn short(self) -> &'static str {
                match self { $(Self::$name => $short,)* }
            }

            /// As `%RESPONSE_FLAGS_LONG%` prints it.
            pub const fn long(self) -> &'static str {
                match self { $(Self::$name => $long,)* }
            }
        }
    };
}

flags! {
    FailedLocalHealthCheck = "LH", "FailedLocalHealthCheck";
    NoHealthyUpstream = "UH", "NoHealthyUpstream";
    UpstreamRequestTimeout = "UT", "UpstreamRequestTimeout";
    LocalReset = "LR", "LocalReset";
    UpstreamRemoteReset = "UR", "UpstreamRemoteReset";
    UpstreamConnectionFailure = "UF", "UpstreamConnectionFailure";
    UpstreamConnectionTermination = "UC", "UpstreamConnectionTermination";
    UpstreamOverflow = "UO", "UpstreamOverflow";
    NoRouteFound = "NR", "NoRouteFound";
    DelayInjected = "DI", "DelayInjected";
    FaultInjected = "FI", "FaultInjected";
    RateLimited = "RL", "RateLimited";
    UnauthorizedExternalService = "UAEX", "UnauthorizedExternalService";
    RateLimitServiceError = "RLSE", "RateLimitServiceError";
    DownstreamConnectionTermination = "DC", "DownstreamConnectionTermination";
    UpstreamRetryLimitExceeded = "URX", "UpstreamRetryLimitExceeded";
    StreamIdleTimeout = "SI", "StreamIdleTimeout";
    InvalidEnvoyRequestHeaders = "IH", "InvalidEnvoyRequestHeaders";
    DownstreamProtocolError = "DPE", "DownstreamProtocolError";
    UpstreamMaxStreamDurationReached = "UMSDR", "UpstreamMaxStreamDurationReached";
    ResponseFromCacheFilter = "RFCF", "ResponseFromCacheFilter";
    NoFilterConfigFound = "NFCF", "NoFilterConfigFound";
    DurationTimeout = "DT", "DurationTimeout";
    UpstreamProtocolError = "UPE", "UpstreamProtocolError";
    NoClusterFound = "NC", "NoClusterFound";
    OverloadManager = "OM", "OverloadManagerTerminated";
    DnsResolutionFailed = "DF", "DnsResolutionFailed";
    DropOverLoad = "DO", "DropOverload";
    DownstreamRemoteReset = "DR", "DownstreamRemoteReset";
    UnconditionalDropOverload = "UDO", "UnconditionalDropOverload";
}

/// A set of flags that keeps the order in which they were set: that is how Envoy
/// prints them. No stream has more than a few; what goes beyond is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags {
    set: [Option<ResponseFlag>; 6],
}

impl ResponseFlags {
    /// Adds a flag, unless it is there.
    pub fn set(&mut self, flag: ResponseFlag) {
        if !self.has(flag)
            && let Some(free) = self.set.iter_mut().find(|f| f.is_none())
        {
            *free = Some(flag);
        }
    }

    /// Whether the flag is in the set.
    pub fn has(self, flag: ResponseFlag) -> bool {
        self.set.contains(&Some(flag))
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.set[0].is_none()
    }

    /// The flags in the order in which they were set.
    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        self.set.into_iter().flatten()
    }
}

impl std::fmt::Display for ResponseFlags {
    /// Short names joined by `,`; `-` for none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, flag) in self.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_in_the_order_of_setting() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "URX,UF");
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        assert_eq!(flags.iter().count(), 2);
    }
}

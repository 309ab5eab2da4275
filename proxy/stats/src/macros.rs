//! `stat_set!`: declares a set of stats and its typed handles.

/// Declares a set of stats: a unit struct with one constant per stat, each a typed
/// handle ([`CounterId`](crate::CounterId) and so on) that is an index known at compile
/// time.
///
/// Every section may be left out, but their order is counters, gauges, histograms,
/// text. A stat whose name is no identifier is given one:
/// `no_filter_chain = "no_filter_chain.match"`. Histograms name their unit: `ms`, `us`,
/// `bytes`, `percent` or `none`. A set has at most 64 gauges.
///
/// ```
/// outrigger_stats::stat_set! {
///     /// What a listener counts.
///     pub struct ListenerStats {
///         counters {
///             /// Connections accepted.
///             downstream_cx_total,
///             tls_1_3 = "ssl.versions.TLSv1.3",
///         }
///         histograms { downstream_cx_length_ms: ms }
///     }
/// }
/// ```
#[macro_export]
macro_rules! stat_set {
    (
        $(#[$meta:meta])*
        $vis:vis struct $set:ident {
            $(counters { $($(#[$cm:meta])* $counter:ident $(= $cname:literal)?),* $(,)? })?
            $(gauges { $($(#[$gm:meta])* $gauge:ident $(= $gname:literal)?),* $(,)? })?
            $(histograms { $($(#[$hm:meta])* $histogram:ident $(= $hname:literal)? : $unit:ident),* $(,)? })?
            $(text { $($(#[$tm:meta])* $text:ident $(= $tname:literal)?),* $(,)? })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $set;

        const _: () = {
            #[allow(non_camel_case_types)]
            #[repr(u16)]
            enum CounterIndex { $($($counter,)*)? Len }
            #[allow(non_camel_case_types)]
            #[repr(u16)]
            enum GaugeIndex { $($($gauge,)*)? Len }
            #[allow(non_camel_case_types)]
            #[repr(u16)]
            enum HistogramIndex { $($($histogram,)*)? Len }
            #[allow(non_camel_case_types)]
            #[repr(u16)]
            enum TextIndex { $($($text,)*)? Len }

            #[allow(non_upper_case_globals)]
            impl $set {
                $($(
                    $(#[$cm])*
                    #[doc = concat!("Counter `", $crate::stat_set!(@name $counter $($cname)?), "`.")]
                    pub const $counter: $crate::CounterId<$set> =
                        $crate::CounterId::at(CounterIndex::$counter as u16);
                )*)?
                $($(
                    $(#[$gm])*
                    #[doc = concat!("Gauge `", $crate::stat_set!(@name $gauge $($gname)?), "`.")]
                    pub const $gauge: $crate::GaugeId<$set> =
                        $crate::GaugeId::at(GaugeIndex::$gauge as u16);
                )*)?
                $($(
                    $(#[$hm])*
                    #[doc = concat!("Histogram `", $crate::stat_set!(@name $histogram $($hname)?), "`.")]
                    pub const $histogram: $crate::HistogramId<$set> =
                        $crate::HistogramId::at(HistogramIndex::$histogram as u16);
                )*)?
                $($(
                    $(#[$tm])*
                    #[doc = concat!("Text readout `", $crate::stat_set!(@name $text $($tname)?), "`.")]
                    pub const $text: $crate::TextId<$set> =
                        $crate::TextId::at(TextIndex::$text as u16);
                )*)?
            }

            // A stat nobody writes yet is still shown, at zero, as Envoy shows it.
            const _: [$crate::CounterId<$set>; CounterIndex::Len as usize] =
                [$($($set::$counter,)*)?];
            const _: [$crate::GaugeId<$set>; GaugeIndex::Len as usize] = [$($($set::$gauge,)*)?];
            const _: [$crate::HistogramId<$set>; HistogramIndex::Len as usize] =
                [$($($set::$histogram,)*)?];
            const _: [$crate::TextId<$set>; TextIndex::Len as usize] = [$($($set::$text,)*)?];
            const _: () = assert!(GaugeIndex::Len as usize <= 64, "a set has at most 64 gauges");

            impl $crate::StatSet for $set {
                const META: &'static $crate::SetMeta = &$crate::SetMeta {
                    counters: &[$($($crate::stat_set!(@name $counter $($cname)?),)*)?],
                    gauges: &[$($($crate::stat_set!(@name $gauge $($gname)?),)*)?],
                    histograms: &[$($((
                        $crate::stat_set!(@name $histogram $($hname)?),
                        $crate::stat_set!(@unit $unit),
                    ),)*)?],
                    texts: &[$($($crate::stat_set!(@name $text $($tname)?),)*)?],
                };
            }
        };
    };
    (@name $ident:ident) => { stringify!($ident) };
    (@name $ident:ident $name:literal) => { $name };
    (@unit ms) => { $crate::Unit::Milliseconds };
    (@unit us) => { $crate::Unit::Microseconds };
    (@unit bytes) => { $crate::Unit::Bytes };
    (@unit percent) => { $crate::Unit::Percent };
    (@unit none) => { $crate::Unit::Unspecified };
}

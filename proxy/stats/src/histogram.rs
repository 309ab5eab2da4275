//! Log-linear histograms: ninety bins a decade, two significant digits, as circllhist has
//! them, so that percentiles agree with Envoy's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cell::bump;

/// Upper bounds of the buckets shown when no setting matches, in the histogram's unit.
pub const DEFAULT_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles that Envoy computes.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// Bins of a decade.
const DECADE: usize = 90;
/// Decades a `u64` spans.
const DECADES: usize = 20;

/// What a histogram's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No unit.
    Unspecified,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// A percentage, recorded in millionths (one whole is 1 000 000) and shown as a fraction.
    Percent,
    /// Recorded in microseconds and shown in seconds, for our own families.
    Seconds,
}

impl Unit {
    /// The power of ten by which shown values are less than recorded ones.
    fn shift(self) -> i32 {
        match self {
            Self::Unspecified | Self::Bytes | Self::Milliseconds | Self::Microseconds => 0,
            Self::Percent | Self::Seconds => 6,
        }
    }
}

type Decade = [AtomicU64; DECADE];

/// The cells of one histogram: a decade's bins are made when a sample falls in them.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    decades: OnceLock<Box<Decades>>,
}

#[derive(Debug, Default)]
struct Decades {
    zero: AtomicU64,
    bins: [OnceLock<Box<Decade>>; DECADES],
}

/// The decade and the bin in it of a sample that is not zero.
#[inline]
fn locate(value: u64) -> (usize, usize) {
    let exp = value.ilog10() as usize;
    let leading = if exp == 0 {
        value * 10
    } else {
        value / 10u64.pow(exp as u32 - 1)
    };
    (exp, leading as usize - 10)
}

impl Cells {
    /// Records one sample; one writer.
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        let decades = self.decades.get_or_init(Box::default);
        if value == 0 {
            return bump(&decades.zero, 1);
        }
        let (exp, bin) = locate(value);
        let decade =
            decades.bins[exp].get_or_init(|| Box::new([const { AtomicU64::new(0) }; DECADE]));
        bump(&decade[bin], 1);
    }

    /// Adds what was recorded to `data`.
    pub(crate) fn add_to(&self, data: &mut HistogramData) {
        let Some(decades) = self.decades.get() else {
            return;
        };
        data.add(0, decades.zero.load(Relaxed));
        for (exp, decade) in decades.bins.iter().enumerate() {
            let Some(decade) = decade.get() else { continue };
            for (bin, count) in decade.iter().enumerate() {
                data.add((1 + exp * DECADE + bin) as u16, count.load(Relaxed));
            }
        }
    }
}

/// One bin with its samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Least value in the bin.
    pub lower: f64,
    /// Width of the bin; 0 for the bin of zero.
    pub width: f64,
    /// Samples in it.
    pub count: u64,
}

/// Samples by bin, in the order of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramData {
    bins: Vec<(u16, u64)>,
}

impl HistogramData {
    /// Adds samples to the bin at `index`.
    fn add(&mut self, index: u16, count: u64) {
        if count == 0 {
            return;
        }
        match self.bins.binary_search_by_key(&index, |bin| bin.0) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.wrapping_add(count),
            Err(at) => self.bins.insert(at, (index, count)),
        }
    }

    /// Adds one sample, in the unit it is recorded in.
    pub fn record(&mut self, value: u64) {
        let index = match value {
            0 => 0,
            _ => {
                let (exp, bin) = locate(value);
                1 + exp * DECADE + bin
            }
        };
        self.add(index as u16, 1);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        for &(index, count) in &other.bins {
            self.add(index, count);
        }
    }

    /// The samples that are here and not in `earlier`, a former state of this one.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut data = Self::default();
        for &(index, count) in &self.bins {
            let old = earlier.bins.binary_search_by_key(&index, |bin| bin.0);
            data.add(
                index,
                count.wrapping_sub(old.map_or(0, |at| earlier.bins[at].1)),
            );
        }
        data
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|bin| bin.1).sum()
    }

    /// The bins that hold samples, in order, in the shown unit.
    pub fn bins(&self, unit: Unit) -> impl Iterator<Item = Bin> + '_ {
        self.bins
            .iter()
            .map(move |&(index, count)| bin(index, count, unit))
    }

    /// Sum of the samples, each taken for the middle of its bin (the one that makes the
    /// relative error least).
    pub fn sum(&self, unit: Unit) -> f64 {
        self.bins(unit)
            .map(|bin| {
                let top = bin.lower + bin.width;
                let middle = match bin.lower {
                    0.0 => 0.0,
                    bottom => bottom + bin.width * (bottom / (bottom + top)),
                };
                middle * bin.count as f64
            })
            .fold(0.0, |sum, part| sum + part)
    }

    /// The value at each of `quantiles` (ascending): that of the sample whose rank is the
    /// quantile's share of all, rounded up, the samples of a bin lying evenly inside it.
    /// NaN where there are no samples.
    pub fn quantiles(&self, unit: Unit, quantiles: &[f64]) -> Vec<f64> {
        let total = self.count() as f64;
        let bins: Vec<_> = self.bins(unit).collect();
        let (mut at, mut below) = (0, 0u64);
        let value = |q: &f64| {
            if bins.is_empty() {
                return f64::NAN;
            }
            let rank = ((q * total).ceil() as u64).max(1);
            while at + 1 < bins.len() && below + bins[at].count < rank {
                below += bins[at].count;
                at += 1;
            }
            let bin = bins[at];
            bin.lower + (rank - below) as f64 / (bin.count + 1) as f64 * bin.width
        };
        quantiles.iter().map(value).collect()
    }

    /// For each upper bound, the samples in the bins that begin at or below it.
    pub fn cumulative(&self, unit: Unit, bounds: &[f64]) -> Vec<u64> {
        let below = |bound: &f64| {
            self.bins(unit)
                .take_while(|bin| bin.lower <= *bound)
                .map(|bin| bin.count)
                .sum()
        };
        bounds.iter().map(below).collect()
    }
}

fn bin(index: u16, count: u64, unit: Unit) -> Bin {
    let Some(index) = usize::from(index).checked_sub(1) else {
        return Bin {
            lower: 0.0,
            width: 0.0,
            count,
        };
    };
    let exp = (index / DECADE) as i32 - unit.shift();
    let power = if exp < 0 {
        1.0 / 10f64.powi(-exp)
    } else {
        10f64.powi(exp)
    };
    // In this order, since Envoy shows the last bit: 230 is 229.99999999999997 there.
    let digits = (index % DECADE + 10) as f64;
    Bin {
        lower: digits / 10.0 * power,
        width: power / 10.0,
        count,
    }
}

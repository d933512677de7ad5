//! The histograms in which openraft counts the sizes of its batches, with the names that it calls and no others. The
//! crate of this name keeps tables for sixteen resolutions, 25 MiB in every coordinator, of which openraft uses one.
//! Here a bucket is found by arithmetic, and a histogram takes memory for what it has counted.
//!
//! A power of two is cut into four buckets. Values below eight have a bucket each and are exact; of a larger value
//! the bucket is known, so that a percentile is off by less than a quarter of it.
//!
//! openraft built with other features, or a later one, may call a function that is not here: that does not compile.
//! Then add the function, or remove the line in `[patch.crates-io]`.

use std::fmt;
use std::iter;
use std::marker::PhantomData;

/// Buckets of a power of two.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 2;

/// How often values were seen. `T` is what the other crate attaches to a window of time; here there are no windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// By bucket, up to the largest that was seen.
    counts: Vec<u64>,
    total: u64,
    windows: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Histogram::new()
    }
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Histogram { counts: Vec::new(), total: 0, windows: PhantomData }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// `value` was seen `times`.
    pub fn record_n(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        let bucket = bucket_of(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
        self.total = self.total.saturating_add(times);
    }

    /// How many values were seen.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that `share` (0 to 1) of all values do not exceed, as well as its bucket tells; 0 without values.
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            if rank <= below.saturating_add(*count) {
                // As if the values of a bucket lay at equal distances.
                let part = (rank - below) as f64 / (*count as f64 + 1.0);
                let width = width_of(bucket);
                return first_of(bucket) + ((width as f64 * part) as u64).min(width - 1);
            }
            below = below.saturating_add(*count);
        }
        0
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Rises with the value.
fn bucket_of(value: u64) -> usize {
    let Some(power) = value.checked_ilog2().filter(|power| *power >= STEP_BITS) else {
        return value as usize;
    };
    let shift = power - STEP_BITS;
    shift as usize * STEPS + (value >> shift) as usize
}

/// The smallest value of a bucket.
fn first_of(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS) as u64) << shift
}

/// How many values a bucket has.
fn width_of(bucket: usize) -> u64 {
    1 << (bucket / STEPS).saturating_sub(1)
}

/// Values that so many of a hundred, or of a thousand, do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(out, "{samples} values; p0.1 {p0_1}, p1 {p1}, p5 {p5}, p10 {p10}, p50 {p50}, p90 {p90}, ")?;
        write!(out, "p99 {p99}, p99.9 {p99_9}")
    }
}

/// Histograms as bars of text, one under the other.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    pub fn new() -> Self {
        AsciiChart::default()
    }

    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, name: impl ToString, histogram: Histogram) -> Self {
        self.0.push((name.to_string(), histogram));
        self
    }

    /// A line for each bucket that counted something.
    pub fn detailed(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|out| {
            for (name, histogram) in &self.0 {
                writeln!(out, "{name}: {} values", histogram.total())?;
                let largest = histogram.counts.iter().copied().max().unwrap_or(0);
                for (bucket, count) in histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let bar: String = iter::repeat_n('#', bar_length(*count, largest)).collect();
                    let (first, last) = (first_of(bucket), first_of(bucket) + (width_of(bucket) - 1));
                    writeln!(out, "{first:>20} - {last:<20} {count:>12} {bar}")?;
                }
            }
            Ok(())
        })
    }
}

const BAR_MAX: u128 = 40;

/// What counted at all is seen.
fn bar_length(count: u64, largest: u64) -> usize {
    (u128::from(count) * BAR_MAX).div_ceil(u128::from(largest.max(1))) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST_BUCKET: usize = 251;

    #[test]
    fn buckets_follow_each_other_without_a_gap_from_zero_to_the_largest_value() {
        for bucket in 0..=LARGEST_BUCKET {
            let (first, last) = (first_of(bucket), first_of(bucket) + (width_of(bucket) - 1));
            assert_eq!((bucket_of(first), bucket_of(last)), (bucket, bucket), "{first} to {last}");
            match last.checked_add(1) {
                Some(next) => assert_eq!(bucket_of(next), bucket + 1, "{next}"),
                None => assert_eq!(bucket, LARGEST_BUCKET),
            }
        }
        assert_eq!(bucket_of(u64::MAX), LARGEST_BUCKET);
    }

    #[test]
    fn small_values_are_exact_and_nothing_is_nothing() {
        let mut seen = Histogram::<()>::new();
        assert_eq!((seen.total(), seen.percentile(0.5)), (0, 0));
        seen.record_n(9, 0);
        assert_eq!(seen, Histogram::default());
        for value in 0..8 {
            seen.record(value);
        }
        for value in 0..8 {
            assert_eq!(seen.percentile((value + 1) as f64 / 8.0), value);
        }
    }

    #[test]
    fn every_percentile_is_within_a_quarter_of_the_exact_one() {
        // Of three shapes: even, few large ones, and two heaps far apart.
        let shapes: [fn(u64) -> u64; 3] =
            [|n| n, |n| 1_000_000_000 / (n + 1), |n| if n % 10 == 0 { 3_000_000 + n } else { 40 + n % 7 }];
        for (shape, value) in shapes.iter().enumerate() {
            let mut exact: Vec<u64> = (0..10_000).map(value).collect();
            let mut seen = Histogram::<()>::new();
            exact.iter().for_each(|value| seen.record(*value));
            exact.sort_unstable();
            for thousandth in 0..=1_000 {
                let share = f64::from(thousandth) / 1_000.0;
                let rank = ((share * exact.len() as f64).ceil() as usize).max(1);
                let (found, right) = (seen.percentile(share), exact[rank - 1]);
                assert!(found.abs_diff(right) * 4 <= right, "shape {shape}, {share}: {found}, exact {right}");
            }
        }
    }

    #[test]
    fn the_statistics_are_the_percentiles_of_their_names() {
        let mut seen = Histogram::<()>::new();
        seen.record_n(1, 900);
        seen.record_n(6, 100);
        let PercentileStats { samples, p0_1, p10, p50, p90, p99, p99_9, p1, p5 } = seen.percentile_stats();
        assert_eq!((samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9), (1_000, 1, 1, 1, 1, 1, 1, 6, 6));
        let text = seen.percentile_stats().to_string();
        assert!(text.starts_with("1000 values; p0.1 1") && text.ends_with("p90 1, p99 6, p99.9 6"), "{text}");
        let mut most = Histogram::<()>::new();
        most.record_n(u64::MAX, u64::MAX);
        most.record(u64::MAX);
        assert_eq!((most.total(), bucket_of(most.percentile(1.0))), (u64::MAX, LARGEST_BUCKET));
    }

    #[test]
    fn a_chart_has_a_line_for_every_bucket_that_counted() {
        let mut seen = Histogram::new();
        seen.record_n(3, 80);
        seen.record(9);
        let text = AsciiChart::new().add("sizes", seen).detailed().to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["sizes:", "81", "values"]);
        assert_eq!(lines[1], ["3", "-", "3", "80", &"#".repeat(40)]);
        assert_eq!(lines[2], ["8", "-", "9", "1", "#"]);
        assert_eq!(lines.len(), 3);
    }
}

//! What a figure did over a soak: its least, middle and greatest value, how fast it grows, and whether that has a
//! bound. Knows no clock and no process. Called by the soak.

use serde::Serialize;

/// Pairs of samples are compared, so their number is limited; more are thinned out evenly.
const COMPARED_MAX: usize = 600;
/// Less after the warm-up says nothing about growth: caches fill for minutes.
const JUDGED_MIN: usize = 30;
const JUDGED_SECONDS_MIN: f64 = 900.0;

/// How a figure may grow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Rule {
    /// Shown, not judged.
    Free,
    /// By `per_hour` at most; a rise of less than `grain` over the run is noise, whatever its slope.
    Grows { per_hour: f64, grain: f64 },
    /// As `Grows`, and never above `most`.
    GrowsBelow { per_hour: f64, grain: f64, most: f64 },
}

/// What was seen of one figure of one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub host: String,
    pub figure: &'static str,
    pub rule: Rule,
    /// Seconds since the start, ascending, and the value.
    pub samples: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    NotJudged,
    /// There are too few samples, or of too short a time, to tell growth from a warm-up.
    TooShort,
    Bounded,
    Grows,
    TooMuch,
}

impl Verdict {
    pub fn is_good(self) -> bool {
        match self {
            Verdict::NotJudged | Verdict::Bounded | Verdict::TooShort => true,
            Verdict::Grows | Verdict::TooMuch => false,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Verdict::NotJudged => "",
            Verdict::TooShort => "too short to judge",
            Verdict::Bounded => "bounded",
            Verdict::Grows => "GROWS",
            Verdict::TooMuch => "TOO MUCH",
        }
    }
}

/// A series in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub host: String,
    pub figure: &'static str,
    pub samples: usize,
    pub min: f64,
    pub median: f64,
    pub max: f64,
    /// Of the samples after the warm-up.
    pub slope_per_hour: f64,
    /// From the median of the second quarter to that of the last.
    pub rise: f64,
    pub rule: Rule,
    pub verdict: Verdict,
}

impl Series {
    /// `None` without a sample.
    ///
    /// The first quarter is warm-up. A figure grows without bound when, of the rest, the median of the slopes between
    /// any two samples (Theil and Sen's estimate, which up to 29 % of outliers do not move) is above the rule's, and
    /// the last quarter lies above the second by more than the rule's grain.
    pub fn summary(&self) -> Option<Summary> {
        let values: Vec<f64> = self.samples.iter().map(|(_, value)| *value).collect();
        let median_of_all = median(values.clone())?;
        let quarter = self.samples.len() / 4;
        let after = &self.samples[quarter..];
        let slope_per_hour = slope(after) * 3600.0;
        let values_of = |part: &[(f64, f64)]| median(part.iter().map(|(_, value)| *value).collect());
        let rise = match (values_of(&self.samples[quarter..2 * quarter]), values_of(&self.samples[3 * quarter..])) {
            (Some(second), Some(last)) => last - second,
            _ => 0.0,
        };
        let max = values.iter().copied().fold(f64::MIN, f64::max);
        Some(Summary {
            host: self.host.clone(),
            figure: self.figure,
            samples: values.len(),
            min: values.iter().copied().fold(f64::MAX, f64::min),
            median: median_of_all,
            max,
            slope_per_hour,
            rise,
            rule: self.rule,
            verdict: judge(self.rule, is_long(after), slope_per_hour, rise, max),
        })
    }
}

fn is_long(samples: &[(f64, f64)]) -> bool {
    let (Some((from, _)), Some((to, _))) = (samples.first(), samples.last()) else { return false };
    samples.len() >= JUDGED_MIN && to - from >= JUDGED_SECONDS_MIN
}

fn judge(rule: Rule, is_long: bool, slope_per_hour: f64, rise: f64, max: f64) -> Verdict {
    let (per_hour, grain) = match rule {
        Rule::Free => return Verdict::NotJudged,
        Rule::GrowsBelow { most, .. } if max > most => return Verdict::TooMuch,
        Rule::Grows { per_hour, grain } | Rule::GrowsBelow { per_hour, grain, .. } => (per_hour, grain),
    };
    if !is_long {
        Verdict::TooShort
    } else if slope_per_hour > per_hour && rise > grain {
        Verdict::Grows
    } else {
        Verdict::Bounded
    }
}

/// The median of the slopes between any two samples, a second; 0 for fewer than two.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let step = samples.len().div_ceil(COMPARED_MAX).max(1);
    let thinned: Vec<(f64, f64)> = samples.iter().copied().step_by(step).collect();
    let mut slopes = Vec::with_capacity(thinned.len() * thinned.len().saturating_sub(1) / 2);
    for (i, (t0, v0)) in thinned.iter().enumerate() {
        slopes.extend(thinned[i + 1..].iter().filter(|(t1, _)| t1 > t0).map(|(t1, v1)| (v1 - v0) / (t1 - t0)));
    }
    median(slopes).unwrap_or(0.0)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule::Grows { per_hour: 1.0, grain: 0.5 };

    /// An hour of samples every ten seconds.
    fn an_hour(of: impl Fn(f64) -> f64) -> Summary {
        let samples = (0..360).map(|i| (f64::from(i) * 10.0, of(f64::from(i) * 10.0))).collect();
        Series { host: "host-a".into(), figure: "x", rule: RULE, samples }.summary().unwrap()
    }

    #[test]
    fn a_slow_leak_under_noise_is_found_and_its_slope_told() {
        let noise = |t: f64| if (t as u64 / 10).is_multiple_of(2) { 0.4 } else { -0.4 };
        let leaking = an_hour(|t| 12.0 + 3.0 * t / 3600.0 + noise(t));
        assert_eq!(leaking.verdict, Verdict::Grows, "{leaking:?}");
        assert!((leaking.slope_per_hour - 3.0).abs() < 0.2, "{leaking:?}");
    }

    #[test]
    fn what_warms_up_comes_to_rest_or_has_a_spike_is_bounded() {
        let warm = an_hour(|t| 12.0 + 8.0 * (t / 600.0).min(1.0));
        assert_eq!(warm.verdict, Verdict::Bounded, "{warm:?}");
        let spike = an_hour(|t| if (1800.0..1900.0).contains(&t) { 80.0 } else { 12.0 });
        assert_eq!((spike.verdict, spike.max), (Verdict::Bounded, 80.0), "{spike:?}");
        let sawtooth = an_hour(|t| t % 700.0 / 100.0);
        assert_eq!(sawtooth.verdict, Verdict::Bounded, "{sawtooth:?}");
    }

    #[test]
    fn a_short_run_is_not_judged_by_its_growth_but_by_what_is_too_much() {
        let samples: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i), f64::from(i))).collect();
        let rule = Rule::GrowsBelow { per_hour: 1.0, grain: 0.5, most: 30.0 };
        let mut series = Series { host: "host-a".into(), figure: "x", rule, samples };
        assert_eq!(series.summary().unwrap().verdict, Verdict::TooShort);
        let many =
            Series { samples: (0..600).map(|i| (f64::from(i), f64::from(i) / 100.0)).collect(), ..series.clone() };
        assert_eq!(many.summary().unwrap().verdict, Verdict::TooShort, "ten minutes");
        series.samples.push((20.0, 31.0));
        assert_eq!(series.summary().unwrap().verdict, Verdict::TooMuch);
        series.samples.clear();
        assert_eq!(series.summary(), None);
    }
}

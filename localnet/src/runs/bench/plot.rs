//! Draws how the gaps of a fault are distributed, a line for each system: SVG that a browser shows in light and in
//! dark and that loads nothing. Time runs from left to right on a log scale; a line stands at the share of rounds
//! whose gap was not longer.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::{Fault, Results, Row};
use crate::hosts::make_dir;
use crate::net::write_file;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
/// Edges of the field in which the lines are drawn.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 28.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = HEIGHT - 56.0;

/// One for each system; the dashes tell them apart without colours.
const CLASSES: [&str; 2] = ["first", "second"];
const STYLE: &str = "
  .paper { fill: #ffffff; } text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; } .grid { stroke: #d0d7de; }
  path { fill: none; stroke-width: 2.5; } .first { stroke: #0b63c5; }
  .second { stroke: #c2410c; stroke-dasharray: 7 4; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #30363d; }
    .first { stroke: #58a6ff; } .second { stroke: #f0883e; }
  }
";

/// `folder/bench-FAULT.svg` shows each fault that the systems were struck by.
pub fn write_all(folder: &Path, systems: &[(&str, Results)]) -> Result<()> {
    make_dir(folder)?;
    let Some((_, first)) = systems.first() else { return Ok(()) };
    for (fault, _) in &first.rows {
        let rows = systems.iter().flat_map(|(name, results)| results.rows.iter().map(move |row| (*name, row)));
        let of_fault = rows.filter(|(_, (of, _))| of == fault).map(|(name, (_, row))| (name, row));
        write_file(&folder.join(format!("bench-{}.svg", fault.name())), &draw(*fault, &of_fault.collect::<Vec<_>>()))?;
    }
    Ok(())
}

fn title(fault: Fault) -> &'static str {
    match fault {
        Fault::Host => "Host lost",
        Fault::Node => "Chain node killed",
        Fault::Handover => "Planned handover",
        Fault::CoordinatorStop => "Coordinator stopped (SIGSTOP)",
        Fault::CoordinatorKill => "Coordinator killed",
        Fault::Cut => "Host cut off",
        Fault::CutIn => "Host cut off inwards",
        Fault::HostSyncs90 => "Host lost, slow syncs (90 ms)",
        Fault::HostSyncs200 => "Host lost, slow syncs (200 ms)",
        Fault::SlowFollower => "Slow follower",
        Fault::NodeStop => "Chain node stopped (SIGSTOP)",
        Fault::SignerKill => "Signer killed",
        Fault::StandbyHost => "Standby's host lost",
        Fault::GuardAndNodeStop => "Guard and chain node stopped (SIGSTOP)",
        Fault::ArbiterHost => "Arbiter's host lost",
        Fault::CoordinatorStop20 => "Coordinator stopped for 20 s (SIGSTOP)",
        Fault::Cut20 => "Holder's host cut off for 20 s",
        Fault::HostStop => "Holder's host stopped for 30 s (SIGSTOP)",
    }
}

/// Writing to a String cannot fail, so nothing is made of its results.
fn draw(fault: Fault, systems: &[(&str, &Row)]) -> String {
    let axis = Axis::around(systems.iter().flat_map(|(_, row)| row.gaps_ms.iter().copied()));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\">\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"26\">{}: time until another host signs</text>\n",
        title(fault)
    );
    for percent in [0, 25, 50, 75, 100] {
        let y = y_of(f64::from(percent) / 100.0);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let (x, y) = (LEFT - 8.0, y + 4.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{percent} %</text>");
    }
    for ms in axis.ticks() {
        let (x, y) = (axis.x_of(ms), BOTTOM + 20.0);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", readable(ms));
    }
    let (middle, below) = ((LEFT + RIGHT) / 2.0, HEIGHT - 14.0);
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">gap, log scale; line: share of rounds up to it</text>"
    );
    for (i, ((name, row), class)) in systems.iter().zip(CLASSES).enumerate() {
        let (y, to, text_x) = (46.0 + 20.0 * i as f64, LEFT + 36.0, LEFT + 46.0);
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{LEFT} {y}H{to}\"/>");
        let both = match row.overlap {
            0 => "never two signers".to_string(),
            overlap => format!("two signers at once: {overlap} signatures overlap"),
        };
        let (y, rounds) = (y + 4.0, row.rounds);
        let _ = writeln!(svg, "<text x=\"{text_x}\" y=\"{y}\">{name}, {rounds} rounds, {both}</text>");
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{}\"/>", steps(&row.gaps_ms, &axis));
    }
    svg + "</svg>\n"
}

/// The line of sorted gaps: up at each of them.
fn steps(gaps_ms: &[f64], axis: &Axis) -> String {
    let mut path = format!("M{LEFT} {BOTTOM}");
    for (i, gap) in gaps_ms.iter().enumerate() {
        let share = (i + 1) as f64 / gaps_ms.len() as f64;
        let _ = write!(path, "H{:.1}V{:.1}", axis.x_of(*gap), y_of(share));
    }
    path + &format!("H{RIGHT}")
}

fn y_of(share: f64) -> f64 {
    BOTTOM - share * (BOTTOM - TOP)
}

/// A log scale, in ms, from one tick to another.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn around(gaps_ms: impl Iterator<Item = f64> + Clone) -> Axis {
        let least = gaps_ms.clone().fold(f64::INFINITY, f64::min).clamp(1.0, 1e9);
        let most = gaps_ms.fold(0.0, f64::max).clamp(1.0, 1e9);
        let from = all_ticks().filter(|tick| *tick < least).last().unwrap_or(0.5);
        Axis { from, to: all_ticks().find(|tick| *tick > most).unwrap_or(most) }
    }

    fn x_of(&self, ms: f64) -> f64 {
        let share = (ms.max(self.from) / self.from).ln() / (self.to / self.from).ln();
        LEFT + share * (RIGHT - LEFT)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        all_ticks().filter(|tick| (self.from..=self.to).contains(tick))
    }
}

fn all_ticks() -> impl Iterator<Item = f64> {
    (-1..10).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
}

fn readable(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_by_one_round_at_each_gap_and_stays_in_the_field() {
        let gaps = [100.0, 200.0, 1000.0, 1000.0];
        let axis = Axis::around(gaps.into_iter());
        assert_eq!((axis.from, axis.to), (50.0, 2000.0));
        let path = steps(&gaps, &axis);
        let heights: Vec<&str> = path.split('V').skip(1).map(|step| step.split('H').next().unwrap()).collect();
        let field = BOTTOM - TOP;
        let expected: Vec<String> = (1..=4).map(|n| format!("{:.1}", BOTTOM - field * f64::from(n) / 4.0)).collect();
        assert_eq!(heights, expected, "{path}");
        assert!(axis.x_of(100.0) > LEFT && axis.x_of(1000.0) < RIGHT);
        assert_eq!(axis.ticks().map(readable).collect::<Vec<_>>().join(" "), "50 ms 100 ms 200 ms 500 ms 1 s 2 s");
    }
}

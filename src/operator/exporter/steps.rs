//! The last move on the status page: a bar for each step, from the moment before to its own, and the same in words
//! beside it.

use super::html::Html;
use super::page::{NAME_MAX, SENTENCE_MAX};
use crate::cluster::wire::proto::Timeline;
use crate::operator::explain::{Part, in_ms, in_words, parts};

/// This version knows of fewer.
const STEPS_MAX: usize = 16;
/// Of the chart, in its own units.
const WIDTH: u64 = 1000;
/// What took no time is still seen.
const BAR_MIN: u64 = 6;

pub(super) fn section(html: &mut Html, last: Option<&Timeline>) {
    html.raw(
        "<section data-part=\"steps\" aria-labelledby=\"steps\">\n<h2 id=\"steps\">The last move, step by step</h2>\n",
    );
    match last {
        None => drop(html.raw("<p>This host has seen none since its coordinator was started.</p>\n")),
        Some(timeline) => chart(html, timeline),
    }
    html.raw("</section>\n");
}

fn chart(html: &mut Html, timeline: &Timeline) {
    let Timeline { epoch, from, to, reason, moments: _ } = timeline;
    let parts = parts(timeline);
    html.raw("<p>");
    if !from.is_empty() {
        html.text(from, NAME_MAX).raw(" <span aria-hidden=\"true\">→</span><span class=\"heard\"> to </span> ");
    }
    html.text(to, NAME_MAX).raw(" under epoch ").number(*epoch).raw(", as this host saw it: ");
    html.text(in_words(reason), SENTENCE_MAX).raw("</p>\n<ol class=\"steps\">\n");
    let whole = parts.iter().map(|part| part.until_ns).max().unwrap_or(0).max(1);
    parts.iter().take(STEPS_MAX).for_each(|part| row(html, part, whole));
    html.raw("</ol>\n");
}

fn row(html: &mut Html, part: &Part, whole_ns: u64) {
    let place = |ns: u64| (u128::from(ns) * u128::from(WIDTH) / u128::from(whole_ns)) as u64;
    let width = place(part.until_ns).saturating_sub(place(part.from_ns)).clamp(BAR_MIN, WIDTH);
    let at = place(part.from_ns).min(WIDTH - width);
    html.raw("<li><span class=\"step\">").text(part.step, NAME_MAX).raw("</span> ");
    html.raw("<svg viewBox=\"0 0 1000 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"whole\" ");
    html.raw("width=\"1000\" height=\"8\"/><rect class=\"part\" height=\"8\" x=\"").number(at);
    html.raw("\" width=\"").number(width).raw("\"/></svg> <span class=\"took\">");
    html.raw("+").text(&in_ms(part.took_ns()), NAME_MAX);
    html.raw("</span> <span class=\"when\">").text(part.what, SENTENCE_MAX);
    if !part.because.is_empty() {
        html.raw(if part.what.is_empty() { "" } else { ": " }).text(part.because, SENTENCE_MAX);
    }
    html.raw("</span></li>\n");
}

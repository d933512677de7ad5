//! The status page: one HTML document, read-only and complete in itself, made of what the coordinator has published. It
//! looks the same whether a browser runs its script or not; the script only fetches the page again and puts in what
//! differs. Every word of it that is no literal may come from another member, and is escaped and bounded.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::html::Html;
use super::{Overview, steps};
use crate::base::ids::Role;
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{MemberState, MemberStatus, Move, TenureStage};
use crate::operator::explain::{Why, active_holder, ago, finished, in_words, is_good_news, notes, or_dash, signed};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Longest name, state or address.
pub(super) const NAME_MAX: usize = 64;
/// Longest sentence.
pub(super) const SENTENCE_MAX: usize = 400;
const MEMBERS_MAX: usize = 32;
const NOTES_MAX: usize = 6;
const WARNINGS_MAX: usize = 32;
/// The newest.
const MOVES_MAX: usize = 25;

/// Nothing is loaded but the page itself, and nothing runs but its own two blocks. The icon stands in the page.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |block: &str| STANDARD.encode(digest(&SHA256, block.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri \
         'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("plain ASCII")
});

/// The whole document. With `hung`, the coordinator has not come round for too long, and what it said last is old.
pub(super) fn render(overview: &Overview, hung: bool) -> String {
    let Overview { status, moves, at, last_move, .. } = overview;
    let why = Why::of(status, moves, *at);
    let page = Page { overview, why, hung };
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    html.text(&page.verdict().words, NAME_MAX * 2).raw(" · ").text(&status.cluster, NAME_MAX);
    html.raw("</title>\n<link rel=\"icon\" href=\"").raw(ICON).raw("\">\n");
    html.raw("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n<style>").raw(STYLE);
    html.raw("</style>\n</head>\n<body>\n");
    page.head(&mut html);
    html.raw("<main>\n<p id=\"lost\" class=\"alarm\" role=\"alert\" hidden></p>\n");
    page.alarms(&mut html);
    page.verdict_section(&mut html);
    page.warnings(&mut html);
    page.hosts(&mut html);
    steps::section(&mut html, last_move.as_ref());
    page.moves(&mut html);
    html.raw("</main>\n");
    foot(&mut html);
    html.raw("<script>").raw(SCRIPT).raw("</script>\n</body>\n</html>\n");
    html.into_string()
}

/// A dot in a ring.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' \
                    cy='8' r='6.5' fill='none' stroke='%23777' stroke-width='2'/%3E%3Ccircle cx='8' cy='8' r='3.5' \
                    fill='%231a7f4b'/%3E%3C/svg%3E";

struct Page<'a> {
    overview: &'a Overview,
    why: Why,
    hung: bool,
}

/// The one line that is read first.
struct Verdict {
    class: &'static str,
    sign: &'static str,
    words: String,
}

impl Page<'_> {
    fn verdict(&self) -> Verdict {
        let status = &self.overview.status;
        if self.hung {
            return Verdict { class: "unknown", sign: "?", words: "It is not known who signs".to_owned() };
        }
        match (active_holder(status), status.holder.as_str()) {
            (Some(holder), _) => Verdict { class: "good", sign: "●", words: format!("{} signs", holder.id) },
            (None, "") => Verdict { class: "bad", sign: "✕", words: "Nobody signs".to_owned() },
            (None, holder) => {
                let moving = status.members.iter().any(|member| member.id == holder && !member.phase.is_empty());
                let (class, sign) = if moving { ("moving", "◐") } else { ("bad", "✕") };
                let words =
                    if moving { format!("{holder} is taking it; nobody signs") } else { "Nobody signs".to_owned() };
                Verdict { class, sign, words }
            }
        }
    }

    fn head(&self, html: &mut Html) {
        let Overview { status, at, .. } = self.overview;
        html.raw("<header data-part=\"head\">\n<h1>").text(&status.cluster, NAME_MAX).raw("</h1>\n<p>seen by <b>");
        html.text(&status.member, NAME_MAX).raw("</b> at ");
        moment(html, *at);
        html.raw("</p>\n</header>\n");
    }

    /// What makes everything below it worth less.
    fn alarms(&self, html: &mut Html) {
        let Overview { status, at, .. } = self.overview;
        html.raw("<div data-part=\"alarms\" role=\"alert\">");
        if self.hung {
            html.raw("<p class=\"alarm\">! The coordinator of ").text(&status.member, NAME_MAX);
            html.raw(" hangs: it has said nothing since ");
            moment(html, *at);
            html.raw(". What stands below is old.</p>");
        }
        if let Some(since) = status.paused_since_ns.map(WallTime::from_nanos) {
            html.raw("<p class=\"alarm\">‖ PAUSED since ");
            moment(html, since);
            html.raw(": the baton does not move; <code>baton resume</code> ends it.</p>");
        }
        html.raw("</div>\n");
    }

    fn verdict_section(&self, html: &mut Html) {
        let status = &self.overview.status;
        let Verdict { class, sign, words } = self.verdict();
        html.raw("<section class=\"verdict ")
            .raw(class)
            .raw("\" data-part=\"verdict\" data-class=\"verdict ")
            .raw(class);
        html.raw("\" aria-labelledby=\"verdict\">\n<h2 id=\"verdict\" aria-live=\"polite\">");
        html.raw("<span class=\"sign\" aria-hidden=\"true\">").raw(sign).raw("</span> ").text(&words, NAME_MAX * 2);
        html.raw("</h2>\n");
        let [holder, _, failover] = self.why.sentences();
        html.raw("<p>").text(holder, SENTENCE_MAX).raw("</p>\n<p>").text(failover, SENTENCE_MAX).raw("</p>\n");
        if let Some(signed) = signed(status, self.overview.at) {
            html.raw("<p>").text(&signed, SENTENCE_MAX).raw("</p>\n");
        }
        let reachable = status.members.iter().filter(|member| member.reachable).count() as u64;
        html.raw("<dl>\n<div><dt>Quorum</dt><dd>").raw(if status.quorum { "✓ yes" } else { "✕ NO" });
        html.raw(", ").number(reachable).raw(" of ").number(status.members.len() as u64).raw("</dd></div>\n");
        html.raw("<div><dt>Holder</dt><dd>").text(&or_none(&status.holder), NAME_MAX);
        html.raw("</dd></div>\n<div><dt>Epoch</dt><dd>").number(status.epoch);
        html.raw("</dd></div>\n<div><dt>Leader</dt><dd>").text(&or_none(&status.leader), NAME_MAX);
        html.raw("</dd></div>\n<div><dt>Term</dt><dd>").number(status.term);
        html.raw("</dd></div>\n<div><dt>Lease</dt><dd>").number(u64::from(status.lease_ms)).raw(" ms</dd></div>\n");
        html.raw("</dl>\n</section>\n");
    }

    fn warnings(&self, html: &mut Html) {
        let Overview { status, at, .. } = self.overview;
        let warnings = self.why.warnings(status, *at);
        html.raw("<section data-part=\"warnings\" aria-labelledby=\"warnings\" aria-live=\"polite\">\n");
        html.raw("<h2 id=\"warnings\">Warnings</h2>\n");
        if warnings.is_empty() {
            html.raw("<p class=\"fine\"><span aria-hidden=\"true\">✓</span> Nothing is wrong.</p>\n</section>\n");
            return;
        }
        html.raw("<ul class=\"warnings\">\n");
        for warning in warnings.iter().take(WARNINGS_MAX) {
            html.raw("<li>").text(warning, SENTENCE_MAX).raw("</li>\n");
        }
        html.raw("</ul>\n");
        more(html, warnings.len(), WARNINGS_MAX);
        html.raw("</section>\n");
    }

    /// The roles are said once more, since a narrow screen gets no table from the style.
    fn hosts(&self, html: &mut Html) {
        let status = &self.overview.status;
        html.raw("<section data-part=\"hosts\" aria-labelledby=\"hosts\">\n<h2 id=\"hosts\">Hosts</h2>\n");
        html.raw("<table role=\"table\" aria-labelledby=\"hosts\">\n<thead role=\"rowgroup\"><tr role=\"row\">");
        for head in ["Host", "State", "Height", "Links", "Guard", "Lease"] {
            html.raw("<th role=\"columnheader\" scope=\"col\">").raw(head).raw("</th>");
        }
        html.raw("</tr></thead>\n<tbody role=\"rowgroup\">\n");
        for member in status.members.iter().take(MEMBERS_MAX) {
            self.host(html, member);
        }
        html.raw("</tbody>\n</table>\n");
        more(html, status.members.len(), MEMBERS_MAX);
        html.raw("</section>\n");
    }

    fn host(&self, html: &mut Html, member: &MemberStatus) {
        let status = &self.overview.status;
        let arbiter = member.role == Role::Arbiter.as_str();
        let (class, sign) = standing(member);
        html.raw("<tr role=\"row\" class=\"")
            .raw(class)
            .raw("\"><th role=\"rowheader\" scope=\"row\"><span class=\"sign\" ");
        html.raw("aria-hidden=\"true\">").raw(sign).raw("</span> <span class=\"name\">").text(&member.id, NAME_MAX);
        html.raw("</span> <small>").text(&member.role, NAME_MAX);
        html.raw(if member.id == status.member { ", this host" } else { "" }).raw("</small></th>");
        cell(html, "State", false);
        if member.reachable {
            html.text(&or_dash(&member.state), NAME_MAX);
            if !member.phase.is_empty() {
                html.raw(" <b>").text(&member.phase, NAME_MAX).raw("</b>");
            }
        } else {
            html.raw("unreachable");
        }
        html.raw("</span></td>");
        // What a host said before it fell silent would pass for what is so.
        let told = |told: bool| told && member.reachable;
        if cell(html, "Height", !told(member.height > 0)) {
            html.number(member.height);
            if !arbiter {
                html.raw(if member.synced { " <small>synced</small>" } else { " <small>NOT synced</small>" });
            }
        }
        html.raw("</span></td>");
        for (head, word) in [("Links", &member.links), ("Guard", &member.guard)] {
            if cell(html, head, !told(!word.is_empty())) {
                html.text(word, NAME_MAX);
            }
            html.raw("</span></td>");
        }
        if cell(html, "Lease", !told(member.lease_remaining_ms > 0)) {
            lease(html, member.lease_remaining_ms, status.lease_ms);
        }
        html.raw("</span></td></tr>\n");
        self.notes(html, member);
    }

    fn notes(&self, html: &mut Html, member: &MemberStatus) {
        let Overview { status, at, .. } = self.overview;
        let mut notes = notes(member, status.paused_since_ns.is_some(), *at);
        notes.retain(|note| member.reachable || !is_good_news(member, note));
        if !notes.is_empty() {
            html.raw("<tr role=\"row\" class=\"note\"><td role=\"cell\" colspan=\"6\">");
            for note in notes.iter().take(NOTES_MAX) {
                html.raw(if is_good_news(member, note) { "<p class=\"fine\">✓ " } else { "<p>! " })
                    .text(note, SENTENCE_MAX)
                    .raw("</p>");
            }
            html.raw("</td></tr>\n");
        }
    }

    fn moves(&self, html: &mut Html) {
        let Overview { moves, at, .. } = self.overview;
        html.raw("<section data-part=\"moves\" aria-labelledby=\"moves\">\n<h2 id=\"moves\">Moves</h2>\n");
        if moves.is_empty() {
            html.raw("<p>The baton was never claimed.</p>\n</section>\n");
            return;
        }
        html.raw("<ol class=\"moves\" reversed>\n");
        moves.iter().rev().take(MOVES_MAX).for_each(|one| row(html, one, *at));
        html.raw("</ol>\n");
        more(html, moves.len(), MOVES_MAX);
        html.raw("</section>\n");
    }
}

fn row(html: &mut Html, one: &Move, now: WallTime) {
    let claimed = WallTime::from_nanos(one.claimed_at_ns);
    // A kind of a newer version has no class of its own.
    let class = match one.kind.as_str() {
        "failover" => "failover",
        "handover" => "handover",
        _ => "other",
    };
    html.raw("<li class=\"").raw(class).raw("\"><p><span class=\"way\">");
    if !one.from.is_empty() {
        html.text(&one.from, NAME_MAX);
        html.raw(" <span aria-hidden=\"true\">→</span><span class=\"heard\"> to </span> ");
    }
    html.text(&one.to, NAME_MAX);
    html.raw("</span> <span class=\"kind\">").text(&one.kind, NAME_MAX).raw("</span> <span class=\"gap\">");
    if finished(one) {
        html.raw("gap ").number(one.gap_ns / 1_000_000).raw(" ms");
    } else {
        html.raw("unfinished");
    }
    html.raw("</span></p><p>").text(in_words(&one.reason), SENTENCE_MAX).raw("</p><p class=\"when\">");
    moment(html, claimed);
    html.raw(", ").text(&ago(now.since(claimed)), NAME_MAX).raw(" ago, epoch ").number(one.epoch).raw("</p></li>\n");
}

/// How a host stands, as a class of the style and a sign that does without colour; words stand beside it.
fn standing(member: &MemberStatus) -> (&'static str, &'static str) {
    let meaning = member.meaning();
    match (member.reachable, member.phase.as_str()) {
        (false, _) => ("bad", "✕"),
        (true, "") if meaning.state() == MemberState::Voting => ("ready", "○"),
        (true, "") => ("waiting", "…"),
        (true, _) if meaning.stage() == TenureStage::Active => ("good", "●"),
        (true, _) => ("moving", "◐"),
    }
}

/// Opens a cell, and says whether there is something to put into it; a dash stands there otherwise. Its head is
/// repeated for where the table has none.
fn cell(html: &mut Html, head: &'static str, empty: bool) -> bool {
    html.raw("<td role=\"cell\" ").raw(if empty { "class=\"none\" " } else { "" });
    html.raw("data-head=\"").raw(head).raw("\"><span>").raw(if empty { "–" } else { "" });
    !empty
}

/// How much is left, as a bar and in milliseconds.
fn lease(html: &mut Html, left_ms: i64, lease_ms: u32) {
    let (left, lease) = (u64::try_from(left_ms).unwrap_or(0), u64::from(lease_ms));
    // A hostile number is no lease either.
    if let Some(percent) = left.saturating_mul(100).checked_div(lease) {
        // What is left is never shown as nothing.
        let percent = percent.clamp(1, 100);
        html.raw("<svg class=\"lease\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
        html.raw("<rect class=\"whole\" width=\"100\" height=\"8\"/><rect class=\"left\" height=\"8\" width=\"");
        html.number(percent).raw("\"/></svg> ");
    }
    html.raw("<span class=\"left\">").number(left).raw(" ms</span>");
}

fn moment(html: &mut Html, at: WallTime) {
    let text = at.to_string();
    html.raw("<time datetime=\"").text(&text, NAME_MAX).raw("\">").text(&text[..10], NAME_MAX).raw(" ");
    html.text(&text[11..19], NAME_MAX).raw(" UTC</time>");
}

/// Nothing that has no room goes away unsaid.
fn more(html: &mut Html, count: usize, shown: usize) {
    if let Some(left) = count.checked_sub(shown).filter(|left| *left > 0) {
        html.raw("<p class=\"when\">… and ").number(left as u64);
        html.raw(
            " more: <code>baton status</code>, <code>baton why</code> and <code>baton history</code> tell all.</p>\n",
        );
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "NONE".to_owned() } else { text.to_owned() }
}

fn foot(html: &mut Html) {
    html.raw("<footer>\n<p>For reading only. The same on this host's terminal: <code>baton status --watch</code>, ");
    html.raw("<code>baton why</code>, <code>baton history</code>. For programs: <a href=\"metrics\">metrics</a>, ");
    html.raw("<a href=\"health\">health</a>, <a href=\"ready\">ready</a>.</p>\n<p>baton ")
        .raw(env!("CARGO_PKG_VERSION"));
    html.raw(", refreshed every <span id=\"every\">5 s</span>.</p>\n</footer>\n");
}

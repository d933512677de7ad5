//! What `baton status --watch` looks like: from the answers and a size to a buffer of characters, and no more. It reads
//! no clock and knows no terminal. Colour and weight repeat what words and signs say.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::base::ids::Role;
use crate::base::time::WallTime;
use crate::cli::table::{columns, cut, fold};
use crate::cluster::wire::proto::{MemberStatus, Move, StatusResponse};
use crate::operator::explain::{Why, active_holder, ago, gap, or_dash};

/// From here on every column has room.
const WIDE: usize = 80;
/// Before the cells of a member; the holder has a sign there.
const MARGIN: &str = "  ";
const HOLDER: &str = "> ";

/// All that is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) status: StatusResponse,
    /// The oldest first.
    pub(super) moves: Vec<Move>,
    /// When these two came.
    pub(super) answered: WallTime,
    pub(super) now: WallTime,
    /// Since then no answer has come.
    pub(super) trouble: Option<Trouble>,
    pub(super) every: Duration,
    pub(super) colour: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) since: WallTime,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Head,
    Holder,
    Wrong,
    /// Across the whole width.
    Loud,
}

type Row = (String, Tone);

impl Tone {
    fn style(self, colour: bool) -> Style {
        let (modifier, foreground) = match self {
            Tone::Plain => (Modifier::empty(), None),
            Tone::Head => (Modifier::BOLD, None),
            Tone::Holder => (Modifier::BOLD, Some(Color::Green)),
            Tone::Wrong => (Modifier::empty(), Some(Color::Red)),
            Tone::Loud => (Modifier::BOLD.union(Modifier::REVERSED), Some(Color::Red)),
        };
        let style = Style::new().add_modifier(modifier);
        foreground.filter(|_| colour).map_or(style, |foreground| style.fg(foreground))
    }
}

/// Fills `area`: what is so, the members, what is wrong, the last moves, and the keys in the last line. Of the moves
/// the newest are shown, and warnings that have no room are counted.
pub(super) fn draw(view: &View, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(*buffer.area());
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let Some(body) = height.checked_sub(1).filter(|_| width > 0) else { return };
    let why = Why::of(&view.status, &view.moves, view.answered);
    let mut rows = head(view, &why, width);
    rows.extend(members(&view.status, width));
    let (moves, warnings) = (moves(&view.moves, width), warnings(view, &why, width));
    let room = body.saturating_sub(rows.len());
    // The heads and the newest move.
    let warned = fitted(&warnings, room.saturating_sub(spaced(moves.len().min(2))));
    let keys = if warned.is_empty() {
        format!("! {} lines of warnings have no room here   q leaves", warnings.len() - 1)
    } else {
        format!("{} has the baton   asked every {:?}   q leaves", HOLDER.trim_end(), view.every)
    };
    rows.extend(warned);
    if !moves.is_empty() {
        rows.push((String::new(), Tone::Plain));
        rows.extend(moves);
    }
    rows.truncate(body);
    for (y, (text, tone)) in (area.y..).zip(&rows) {
        put(buffer, area, y, text, tone.style(view.colour));
    }
    put(buffer, area, area.bottom() - 1, &keys, Style::new());
}

/// With an empty line before them.
fn spaced(lines: usize) -> usize {
    if lines == 0 { 0 } else { lines + 1 }
}

/// An empty line and as many of `rows` as `room` has left, the last of which says how many have none. Nothing when
/// there is no room for the first of them.
fn fitted(rows: &[Row], room: usize) -> Vec<Row> {
    let mut shown = vec![(String::new(), Tone::Plain)];
    match rows.len() {
        count if spaced(count) <= room => shown.extend(rows.iter().cloned()),
        _ if room < 4 => return Vec::new(),
        count => {
            shown.extend(rows[..room - 2].iter().cloned());
            let left = count + 2 - room;
            shown.push((format!("{MARGIN}... {left} more lines; baton why and baton status tell all"), Tone::Plain));
        }
    }
    shown
}

fn put(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    buffer.set_stringn(area.x, y, text, usize::from(area.width), style);
}

fn head(view: &View, why: &Why, width: usize) -> Vec<Row> {
    let status = &view.status;
    let time = view.answered.to_string();
    let time = format!("{} {} UTC", &time[..10], &time[11..19]);
    let room = width.saturating_sub(time.len() + 1);
    let title = cut(&format!("{}, seen by {}", status.cluster, status.member), room);
    let mut rows = vec![(format!("{title:<room$} {time}"), Tone::Head)];
    if let Some(Trouble { since, reason }) = &view.trouble {
        let silent = ago(view.now.since(*since));
        let text = format!("NO ANSWER for {silent}: {reason}. What stands below is old. It is asked again.");
        rows.extend(loud(&text, width));
    }
    if let Some(since) = status.paused_since_ns.map(WallTime::from_nanos) {
        let text = format!("PAUSED since {since}: the baton does not move; baton resume ends it");
        rows.extend(loud(&text, width));
    }
    let (quorum, tone) = if status.quorum { ("yes", Tone::Plain) } else { ("NO, nobody can be elected", Tone::Wrong) };
    let holder = match status.holder.as_str() {
        "" => "holder NONE".to_owned(),
        holder => format!("holder {holder} (epoch {})", status.epoch),
    };
    let leader = format!("leader {} (term {})", or_dash(&status.leader), status.term);
    rows.extend(fold(&format!("quorum {quorum}, {holder}, {leader}"), width).into_iter().map(|line| (line, tone)));
    let successor = match why.successor() {
        Ok(to) if status.holder.is_empty() => (format!("it would go to {to} now"), Tone::Plain),
        Ok(to) => (format!("if {} were lost now, {to} would take the baton", status.holder), Tone::Plain),
        Err(_) => ("NOBODY could take the baton over now".to_owned(), Tone::Wrong),
    };
    rows.push(successor);
    rows.push((String::new(), Tone::Plain));
    rows
}

fn loud(text: &str, width: usize) -> impl Iterator<Item = Row> {
    let lines = fold(text, width.saturating_sub(4).max(1));
    lines.into_iter().map(move |line| (format!("{:<width$}", format!("!! {line}")), Tone::Loud))
}

fn members(status: &StatusResponse, width: usize) -> Vec<Row> {
    let wide = width >= WIDE;
    let heads: &[&str] = if wide {
        &["  HOST", "ROLE", "STATE", "PHASE", "UP", "SYNC", "HEIGHT", "LINKS"]
    } else {
        &["  HOST", "ROLE", "STATE", "UP", "SYNC", "HEIGHT", "LINKS"]
    };
    let cells: Vec<Vec<String>> = status.members.iter().map(|member| cells(status, member, wide)).collect();
    let mut lines = columns(heads, &cells, width, 0).into_iter();
    let mut rows: Vec<Row> = lines.next().map(|line| (line, Tone::Head)).into_iter().collect();
    let active = active_holder(status).map(|holder| holder.id.as_str());
    for (line, member) in lines.zip(&status.members) {
        let tone = match member.id.as_str() {
            id if active == Some(id) => Tone::Holder,
            _ if !member.reachable => Tone::Wrong,
            _ => Tone::Plain,
        };
        rows.push((line, tone));
        if member.id == status.holder || member.lease_remaining_ms > 0 {
            rows.push((lease(member.lease_remaining_ms, status.lease_ms, width), tone));
        }
    }
    rows
}

/// Where there is no room for both, the phase stands in place of the state.
fn cells(status: &StatusResponse, member: &MemberStatus, wide: bool) -> Vec<String> {
    let sign = if member.id == status.holder { HOLDER } else { MARGIN };
    let arbiter = member.role == Role::Arbiter.as_str();
    let yes = |is: bool| if is { "yes" } else { "NO" }.to_owned();
    let state = if member.reachable { or_dash(&member.state) } else { "unreachable".to_owned() };
    let synced = if arbiter || !member.reachable { "-".to_owned() } else { yes(member.synced) };
    let height = if member.height == 0 { "-".to_owned() } else { member.height.to_string() };
    let role = or_dash(&member.role);
    let mut cells = vec![format!("{sign}{}", member.id)];
    if wide {
        cells.extend([role, state, or_dash(&member.phase)]);
    } else {
        let state = if member.phase.is_empty() { state } else { member.phase.clone() };
        cells.extend([role.chars().take(3).collect(), state]);
    }
    cells.extend([yes(member.reachable), synced, height, or_dash(&member.links)]);
    cells
}

/// How much of the lease is left, as a bar and in milliseconds.
fn lease(left_ms: i64, lease_ms: u32, width: usize) -> String {
    let left = u64::try_from(left_ms).unwrap_or(0);
    if left == 0 {
        return "    lease: none that is known here".to_owned();
    }
    if lease_ms == 0 {
        return format!("    lease: {left} ms");
    }
    let (cells, lease) = (width.saturating_sub(30).clamp(5, 40), u64::from(lease_ms));
    // What is left of a lease is never shown as nothing.
    let full = usize::try_from((left * cells as u64 + lease / 2) / lease).unwrap_or(cells).clamp(1, cells);
    format!("    lease [{}{}] {left} of {lease} ms", "#".repeat(full), "-".repeat(cells - full))
}

/// In words, the gravest first.
fn warnings(view: &View, why: &Why, width: usize) -> Vec<Row> {
    let texts = why.warnings(&view.status, view.answered);
    if texts.is_empty() {
        return vec![("Nothing is wrong.".to_owned(), Tone::Plain)];
    }
    let mut rows = vec![("WARNINGS".to_owned(), Tone::Head)];
    for text in texts {
        for (number, line) in fold(&text, width.saturating_sub(2).max(1)).into_iter().enumerate() {
            let sign = if number == 0 { "! " } else { MARGIN };
            rows.push((format!("{sign}{line}"), Tone::Wrong));
        }
    }
    rows
}

/// The newest first; none while the baton was never claimed.
fn moves(moves: &[Move], width: usize) -> Vec<Row> {
    if moves.is_empty() {
        return Vec::new();
    }
    let wide = width >= WIDE;
    let heads: &[&str] =
        if wide { &["LAST MOVES (UTC)", "", "KIND", "GAP", "REASON"] } else { &["LAST MOVES", "", "GAP", "REASON"] };
    let cells: Vec<Vec<String>> = moves
        .iter()
        .rev()
        .map(|one| {
            let claimed = WallTime::from_nanos(one.claimed_at_ns).to_string();
            let from_day = if wide { 0 } else { 5 };
            let mut cells = vec![format!("{} {}", &claimed[from_day..10], &claimed[11..19])];
            cells.push(format!("{} -> {}", or_dash(&one.from), one.to));
            cells.extend(wide.then(|| one.kind.clone()));
            cells.extend([gap(one), or_dash(&one.reason)]);
            cells
        })
        .collect();
    let lines = columns(heads, &cells, width, heads.len() - 1).into_iter();
    lines.enumerate().map(|(number, line)| (line, if number == 0 { Tone::Head } else { Tone::Plain })).collect()
}

#[cfg(test)]
mod tests;

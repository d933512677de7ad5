//! The status page as a browser gets it: what it says, what it may load, and what a member with hostile words can do to
//! it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton::base::time::{BootTime, WallTime};
use baton::cluster::wire::proto::{Grant, MemberStatus, Moment, Move, MoveFloor, SignLog, StatusResponse, Timeline};
use baton::operator::exporter::Overview;
use ring::digest::{SHA256, digest};

use super::{Exporter, exporter, get, healthy, request};

/// 2026-06-14T09:31:07Z.
const AT: WallTime = WallTime::from_nanos(1_781_429_467_000_000_000);

fn member(id: &str, state: &str, phase: &str) -> MemberStatus {
    MemberStatus {
        id: id.to_owned(),
        role: "validator".to_owned(),
        state: state.to_owned(),
        phase: phase.to_owned(),
        reachable: true,
        synced: true,
        height: 1034,
        guard: "idle".to_owned(),
        links: "standby".to_owned(),
        ..MemberStatus::default()
    }
}

fn overview() -> Overview {
    let mut holder = member("host-a", "Validating", "Active");
    (holder.lease_remaining_ms, holder.guard, holder.links) = (808, "armed".to_owned(), "validating".to_owned());
    let arbiter = MemberStatus { role: "arbiter".to_owned(), height: 0, ..member("host-c", "Voting", "") };
    let status = StatusResponse {
        cluster: "my-validator".to_owned(),
        member: "host-b".to_owned(),
        leader: "host-a".to_owned(),
        holder: "host-a".to_owned(),
        term: 6,
        epoch: 4,
        quorum: true,
        lease_ms: 1000,
        promise_ms: 1001,
        members: vec![holder, member("host-b", "Voting", ""), arbiter],
        ..StatusResponse::default()
    };
    let one = |epoch, from: &str, to: &str, kind: &str, reason: &str, gap_ms: u64| Move {
        epoch,
        from: from.to_owned(),
        to: to.to_owned(),
        kind: kind.to_owned(),
        reason: reason.to_owned(),
        claimed_at_ns: AT.as_nanos() - (10 - epoch) * 3_600_000_000_000,
        active_at_ns: AT.as_nanos() - (10 - epoch) * 3_600_000_000_000 + 1,
        gap_ns: gap_ms * 1_000_000,
        ..Move::default()
    };
    let moves = vec![
        one(3, "host-a", "host-b", "failover", "lease-lost", 1013),
        one(4, "host-b", "host-a", "handover", "operator", 50),
    ];
    Overview { status, moves: Arc::new(moves), last_move: Some(last_move()), at: AT, ..Overview::default() }
}

/// A failover, as host-b saw it.
fn last_move() -> Timeline {
    let begins = AT.as_nanos() - 7 * 3_600_000_000_000;
    let moment = |step: &str, after_us: u64, because: &str| Moment {
        step: step.to_owned(),
        at_ns: begins + after_us * 1000,
        after_ns: after_us * 1000,
        because: because.to_owned(),
    };
    let moments = vec![
        moment("last-word", 0, ""),
        moment("detected", 1_002_000, "no leader is heard"),
        moment("elected", 1_010_000, "leads term 3"),
        moment("claimed", 1_018_000, ""),
        moment("armed", 1_018_800, ""),
        moment("settled", 1_034_000, ""),
        moment("linked", 1_035_000, ""),
        moment("active", 1_042_000, ""),
        moment("of-a-later-version", 1_050_000, "in its own words"),
    ];
    let reason = "lease-lost".to_owned();
    Timeline { epoch: 3, from: "host-a".to_owned(), to: "host-b".to_owned(), reason, moments }
}

fn hostile_move() -> Timeline {
    let text = || HOSTILE.to_owned();
    let moment = |at| Moment { step: text(), at_ns: at, after_ns: at, because: text() };
    let moments = (0..80).map(|nth| moment([u64::MAX, 0, u64::MAX, 7][nth % 4])).collect();
    Timeline { epoch: u64::MAX, from: text(), to: text(), reason: text(), moments }
}

/// The page of a host that knows `change` of a healthy cluster.
async fn page(change: impl FnOnce(&mut Overview)) -> String {
    let mut known = overview();
    change(&mut known);
    let exporter = exporter(healthy()).await;
    exporter.overview.send_replace(Arc::new(known));
    get(exporter.addr, "/").await.2
}

/// Without its elements, and with its entities read, as far as this program writes any.
fn words(html: &str) -> String {
    let body = html.split_once("<body>").map_or(html, |(_, body)| body);
    let body = body.split("<script>").next().unwrap_or_default();
    let mut text = String::new();
    for part in body.split('<') {
        let (tag, rest) = part.split_once('>').unwrap_or(("", part));
        // Within a line nothing is between the words of two elements.
        if !["span", "/span", "small", "/small", "b", "/b", "time", "/time", "code", "/code", "a", "/a"]
            .contains(&tag.split(' ').next().unwrap_or_default())
        {
            text.push(' ');
        }
        text.push_str(rest);
    }
    let text = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text, |text, (entity, c)| text.replace(entity, c));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_says(page: &str, sentences: &[&str]) {
    let words = words(page);
    for sentence in sentences {
        assert!(words.contains(sentence), "no {sentence:?} in:\n{words}");
    }
}

#[tokio::test]
async fn a_healthy_cluster_is_told_with_its_hosts_and_its_moves() {
    let page = page(|_| ()).await;
    assert_says(
        &page,
        &[
            "my-validator seen by host-b at 2026-06-14 09:31:07 UTC",
            "● host-a signs",
            "host-a holds the baton under epoch 4 and signs. host-b handed it over 6 h 0 min ago: an operator ordered it.",
            "a failover would work: host-b would take it",
            "Quorum ✓ yes, 3 of 3 Holder host-a Epoch 4 Leader host-a Term 6 Lease 1000 ms",
            "✓ Nothing is wrong.",
            "● host-a validator Validating Active 1034 synced validating armed 808 ms",
            "○ host-b validator, this host Voting 1034 synced standby idle –",
            "host-b → to host-a handover gap 50 ms an operator ordered it 2026-06-14 03:31:07 UTC, 6 h 0 min ago, epoch 4",
            "host-a → to host-b failover gap 1013 ms its lease ran out",
        ],
    );
    assert!(page.contains("<title>host-a signs · my-validator</title>"), "{page}");
    assert!(page.find("gap 50 ms") < page.find("gap 1013 ms"), "the newest move stands first");
}

#[tokio::test]
async fn where_the_log_decides_the_page_says_how_far_and_when() {
    let page = page(|known| {
        let seconds = (AT.as_nanos() / 1_000_000_000) as i64 - 7;
        let last = Grant { height: 41, step: 3, digest: vec![1; 32], seconds, ..Grant::default() };
        let log = SignLog { chain: "c-1".into(), by: "host-a".into(), last: Some(last), ..SignLog::default() };
        known.status.sign_log = Some(log);
    })
    .await;
    let said = "Signed by the log on c-1: up to height 41, round 0, precommit, asked by the node of host-a, 7 s ago";
    assert_says(&page, &[said]);
}

#[tokio::test]
async fn the_last_move_is_drawn_and_told_step_by_step() {
    let page = page(|_| ()).await;
    assert_says(
        &page,
        &[
            "The last move, step by step host-a → to host-b under epoch 3, as this host saw it: its lease ran out",
            "last-word +0.0 ms the old holder was heard last",
            "detected +1002 ms the baton has to move: no leader is heard",
            "elected +8.0 ms the new holder leads: leads term 3",
            "armed +0.8 ms the guard keeps a deadline",
            "settled +15 ms the sign floor is met",
            "active +7.0 ms the chain node runs with the key",
            "of-a-later-version +8.0 ms in its own words",
        ],
    );
    // Of 1050 ms, in thousandths.
    for (step, bar) in [
        ("detected", "x=\"0\" width=\"954\""),
        ("settled", "x=\"970\" width=\"14\""),
        ("linked", "x=\"984\" width=\"6\""),
    ] {
        let row = page.split("<li>").find(|row| row.contains(&format!(">{step}<"))).expect("a row");
        assert!(row.contains(bar), "{row}");
    }
    let none = self::page(|known| known.last_move = None).await;
    assert_says(&none, &["step by step This host has seen none since its coordinator was started."]);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_words_of_baton_why() {
    let page = page(|known| {
        known.status.members[1].state = "Syncing".to_owned();
        known.status.members[1].synced = false;
        known.status.members[1].not_ready_because = "the chain node is syncing".to_owned();
        known.status.members[2].reachable = false;
        known.status.warnings.push("two voters: the loss of either stops signing".to_owned());
        known.status.paused_since_ns = Some(AT.as_nanos() - 60_000_000_000);
    })
    .await;
    assert_says(
        &page,
        &[
            "‖ PAUSED since 2026-06-14 09:30:07 UTC: the baton does not move; baton resume ends it.",
            "host-b could not take the baton: the chain node is syncing.",
            "host-c cannot be reached from here.",
            "A failover would NOT work now: the cluster is paused",
            "two voters: the loss of either stops signing",
            "… host-b validator, this host Syncing 1034 NOT synced",
            "! not ready: the chain node is syncing",
            "✕ host-c arbiter unreachable",
            "✓ yes, 2 of 3",
        ],
    );
    assert!(!page.contains("Nothing is wrong."), "{page}");
}

#[tokio::test]
async fn good_news_of_a_member_is_no_warning() {
    let page = page(|known| {
        known.status.members[0].node_note = "first block on chain 0.6 s after activation began".to_owned();
        known.status.members[1].node_note = "nothing signed here is on chain yet, long after activation".to_owned();
    })
    .await;
    assert_says(
        &page,
        &[
            "Warnings host-b: nothing signed here is on chain yet, long after activation. Hosts",
            "✓ first block on chain 0.6 s after activation began",
            "! nothing signed here is on chain yet",
        ],
    );
}

#[tokio::test]
async fn nobody_who_signs_is_the_first_thing_said() {
    let page = page(|known| {
        known.status.holder.clear();
        known.status.quorum = false;
        known.status.members[0] = member("host-a", "Registering", "");
    })
    .await;
    assert!(page.contains("<title>Nobody signs · my-validator</title>"), "{page}");
    assert_says(&page, &["✕ Nobody signs Nobody holds the baton.", "Quorum ✕ NO", "Holder NONE"]);
}

#[tokio::test]
async fn a_hung_coordinator_makes_the_page_say_that_it_is_old() {
    let exporter = exporter(healthy()).await;
    exporter.overview.send_replace(Arc::new(overview()));
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now() - Duration::from_secs(5));
    let old = get(exporter.addr, "/").await.2;
    assert_says(
        &old,
        &[
            "! The coordinator of host-b hangs: it has said nothing since 2026-06-14 09:31:07 UTC.",
            "? It is not known who signs",
        ],
    );
    exporter.vitals.send_modify(|vitals| vitals.beat = BootTime::now() + Duration::from_secs(60));
    let good = get(exporter.addr, "/").await.2;
    assert!(!good.contains(" hangs"), "{good}");
}

const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}\u{1b}[31m";

/// All that members or operators can have put into it.
fn hostile() -> Overview {
    let text = || HOSTILE.to_owned();
    let hostile = MemberStatus {
        id: text(),
        addr: text(),
        role: text(),
        state: text(),
        phase: text(),
        reachable: true,
        guard: text(),
        links: text(),
        version: text(),
        not_ready_because: text(),
        node_note: text(),
        settling: text(),
        transport: text(),
        vote: text(),
        containment: text(),
        lease_remaining_ms: i64::MAX,
        ..MemberStatus::default()
    };
    let floor = MoveFloor { source: text(), floor: text(), ..MoveFloor::default() };
    let one = Move {
        from: text(),
        to: text(),
        kind: text(),
        reason: text(),
        active_at_ns: u64::MAX,
        claimed_at_ns: u64::MAX,
        gap_ns: u64::MAX,
        floor: Some(floor.clone()),
        epoch: u64::MAX,
        laid: None,
    };
    let status = StatusResponse {
        cluster: text(),
        member: text(),
        leader: text(),
        holder: text(),
        warnings: vec![text()],
        members: vec![hostile],
        floor: Some(floor),
        lease_ms: 1,
        epoch: u64::MAX,
        ..StatusResponse::default()
    };
    Overview { status, moves: Arc::new(vec![one]), last_move: Some(hostile_move()), at: AT, ..Overview::default() }
}

#[tokio::test]
async fn hostile_words_of_a_member_stay_words() {
    let page = page(|known| *known = hostile()).await;
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert_eq!(page.matches("</script").count(), 1, "{page}");
    assert!(!page.contains("<img") && !page.contains(['\u{202e}', '\u{1b}']), "{page}");
    assert!(page.contains("&quot;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    // Every element that is there, is one that this program wrote.
    let known = [
        "!doctype", "a", "b", "body", "code", "dd", "div", "dl", "dt", "footer", "h1", "h2", "head", "header", "html",
        "li", "link", "main", "meta", "noscript", "ol", "p", "rect", "script", "section", "small", "span", "style",
        "svg", "table", "tbody", "td", "th", "thead", "time", "title", "tr", "ul",
    ];
    let markup = page.split("<script>").next().unwrap_or_default();
    let markup: String = markup.split("<style>").next().into_iter().chain(markup.split("</style>").nth(1)).collect();
    for element in markup.split('<').skip(1) {
        let name: String =
            element.trim_start_matches('/').chars().take_while(|c| c.is_alphanumeric() || *c == '!').collect();
        assert!(known.contains(&name.as_str()), "an element {name:?} in {page}");
    }
}

#[tokio::test]
async fn however_much_the_members_say_the_page_stays_small_and_says_what_it_leaves_out() {
    let page = page(|known| {
        *known = hostile();
        let long = "&".repeat(100_000);
        let one = MemberStatus {
            node_note: long.clone(),
            not_ready_because: long.clone(),
            ..known.status.members[0].clone()
        };
        known.status.members = vec![MemberStatus { id: long.clone(), state: long.clone(), ..one }; 200];
        known.status.warnings = vec![long.clone(); 500];
        known.moves = Arc::new(vec![Move { reason: long, ..known.moves[0].clone() }; 200]);
    })
    .await;
    assert!(page.len() < 512 << 10, "{} bytes", page.len());
    assert_says(&page, &["… and 168 more:", "… and 175 more:"]);
}

fn inline<'a>(page: &'a str, element: &str) -> &'a str {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let begin = page.find(&open).unwrap_or_else(|| panic!("no {open} in {page}")) + open.len();
    let length = page[begin..].find(&close).unwrap_or_else(|| panic!("no {close} in {page}"));
    &page[begin..begin + length]
}

#[tokio::test]
async fn the_policy_allows_the_two_inline_blocks_and_nothing_from_elsewhere() {
    let exporter = exporter(healthy()).await;
    exporter.overview.send_replace(Arc::new(overview()));
    let (code, _, page) = get(exporter.addr, "/").await;
    assert_eq!(code, 200);
    let (_, head, _) = request(exporter.addr, "GET", "/").await;
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")));
        line.map(|line| line[name.len() + 2..].to_owned()).unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    let hash = |element| STANDARD.encode(digest(&SHA256, inline(&page, element).as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    );
    assert_eq!(header("content-security-policy"), policy);
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("cache-control"), "no-store");
    for refused in [" style=", " onload=", " onclick=", "src=", "@import", "url(", "https://", "//cdn", "eval("] {
        assert!(!page.contains(refused), "{refused:?} in {page}");
    }
    assert_eq!(page.matches("http://").count(), 1, "the namespace of the icon, and no more");
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\""), "{page}");
}

#[tokio::test]
async fn only_reading_is_answered_and_only_where_something_is() {
    let exporter: Exporter = exporter(healthy()).await;
    let (code, head, body) = request(exporter.addr, "HEAD", "/").await;
    assert_eq!((code, body.as_str()), (200, ""), "{head}");
    assert!(head.to_lowercase().contains("content-security-policy: default-src 'none'"), "{head}");
    assert_eq!(request(exporter.addr, "POST", "/").await.0, 405);
    assert_eq!(request(exporter.addr, "DELETE", "/").await.0, 405);
    for path in ["/index.html", "/favicon.ico", "/..%2f..%2fetc/passwd", "//"] {
        let (code, _, body) = request(exporter.addr, "GET", path).await;
        assert_eq!((code, body.as_str()), (404, ""), "{path}");
    }
}

#[tokio::test]
async fn the_page_of_a_coordinator_that_knows_nothing_yet_is_a_page() {
    let page = page(|known| *known = Overview::default()).await;
    assert_says(
        &page,
        &["✕ Nobody signs", "The baton was never claimed.", "No quorum of members can be reached from here"],
    );
}

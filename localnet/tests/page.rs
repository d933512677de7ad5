//! The status page in a real browser, of a network that runs: what it shows, that it follows the baton without being
//! loaded again, that nothing is loaded from elsewhere, and that it is of use on a phone, in the dark and without
//! JavaScript. `BATON_PAGE_PICTURES=DIR` keeps pictures of it.

mod browser;
mod common;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use browser::Browser;
use common::{TestNet, long_leases};
use localnet::hosts::faults::{self, What};
use localnet::process::launch;
use localnet::process::procs::{self, MARKER};
use localnet::runs::demo::{Pair, hand_over};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The host whose page is looked at; it holds no baton and stays.
const SEEN_BY: &str = "host-c";
/// For the page to show what is so: it asks every second, and its host looks twice a second.
const SHOWN_BOUND: Duration = Duration::from_secs(20);

/// Of the height of a picture, before it is scaled.
const PICTURE_MAX: u32 = 1100;

const FINE: &str = "document.querySelector('[data-part=warnings] .fine')?.innerText";
const VERDICT: &str = "document.querySelector('#verdict').innerText.trim()";

fn verdict(holder: &str) -> Value {
    format!("● {holder} signs").into()
}

/// Kept only where somebody wants them.
fn keep_picture(browser: &mut Browser, name: &str) {
    let Some(dir) = std::env::var_os("BATON_PAGE_PICTURES").map(PathBuf::from) else { return };
    let png = STANDARD.decode(browser.picture(PICTURE_MAX)).expect("base64 of the browser");
    std::fs::write(dir.join(name), png).unwrap_or_else(|error| panic!("{}: {error}", dir.join(name).display()));
}

#[track_caller]
fn assert_nothing_sticks_out(browser: &mut Browser, width: u32) {
    browser.resize(width, 1.0);
    let size = browser.value("[document.documentElement.scrollWidth, window.innerWidth]");
    assert_eq!(size, json!([width, width]), "the width of the page, and of the screen");
    let wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && \
                !e.closest('thead')).map(e => e.outerHTML.slice(0, 80))";
    assert_eq!(browser.value(wide), json!([]), "at a width of {width}");
}

/// A policy that lets everything pass would be as quiet: this one refuses, and the browser says so.
fn assert_the_policy_is_in_force(browser: &mut Browser) {
    let before = browser.complaints().len();
    let inject = "document.head.append(Object.assign(document.createElement('script'), { textContent: 'window.evil = 1' })); \
                  document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:1/x.png' })); typeof window.evil";
    assert_eq!(browser.value(inject), "undefined");
    browser.await_value("typeof window.evil", &"undefined".into(), SHOWN_BOUND);
    let refused = browser.complaints().split_off(before).join("\n");
    assert!(refused.contains("Content Security Policy"), "{refused}");
}

#[test]
#[ignore = "needs chromium; see README"]
fn the_page_follows_the_baton_in_a_browser() {
    let t = TestNet::up_with(long_leases);
    let pair = t.pair();
    let origin = format!("http://{}/", t.net.host(SEEN_BY).expect("an arbiter").metrics());
    let mut browser = Browser::start((MARKER, &t.net.dir));
    browser.resize(1180, 1.0);
    browser.open(&origin);
    assert_eq!(browser.value(VERDICT), verdict(&pair.holder), "{}", browser.text());
    assert_eq!(browser.value("document.querySelectorAll('tbody tr:not(.note)').length"), 3);
    assert_eq!(browser.value("document.querySelectorAll('.moves li').length"), 1);
    browser.await_value(FINE, &"✓ Nothing is wrong.".into(), SHOWN_BOUND);
    for width in [1180, 768, 360] {
        assert_nothing_sticks_out(&mut browser, width);
    }

    // It follows a handover, and is the same document as before.
    browser.resize(1180, 1.0);
    browser.value("window.stayed = true");
    let loaded = browser.count("Page.loadEventFired");
    t.or_logs(hand_over(&t.net, &pair));
    browser.await_value(VERDICT, &verdict(&pair.standby), SHOWN_BOUND);
    browser.await_value("document.querySelectorAll('.moves li').length", &2.into(), SHOWN_BOUND);
    let newest = "document.querySelector('.moves li').innerText.replace(/\\s+/g, ' ')";
    let newest = browser.value(newest).as_str().unwrap_or_default().to_owned();
    assert!(newest.contains(&format!("{} → to {} handover gap", pair.holder, pair.standby)), "{newest}");
    assert!(newest.contains("an operator ordered it"), "{newest}");
    assert_eq!(browser.value("document.title.split(' ')[0]"), pair.standby);
    assert_eq!((browser.value("window.stayed"), browser.count("Page.loadEventFired")), (true.into(), loaded));

    let outside: Vec<String> =
        browser.asked_for().into_iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert_eq!(outside, Vec::<String>::new());
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_the_policy_is_in_force(&mut browser);

    // Without what was tried on it.
    browser.open(&origin);
    tells_of_a_lost_host(&t, &mut browser);
    looks_as_its_user_prefers(&mut browser);
    says_when_it_is_old(&t, &mut browser);
    works_without_javascript(&t, &mut browser, &origin);
}

fn looks_as_its_user_prefers(browser: &mut Browser) {
    let ground = "getComputedStyle(document.body).backgroundColor";
    let beat = "getComputedStyle(document.querySelector('.verdict .sign')).animationName";
    browser.prefer(&[("prefers-color-scheme", "light"), ("prefers-reduced-motion", "no-preference")]);
    let light = (browser.value(ground), browser.value(beat));
    assert_eq!(light.1, "beat");
    browser.resize(1180, 1.0);
    keep_picture(browser, "status-page.png");
    browser.prefer(&[("prefers-color-scheme", "dark"), ("prefers-reduced-motion", "reduce")]);
    let dark = (browser.value(ground), browser.value(beat));
    assert_eq!(dark.1, "none");
    assert_ne!(light.0, dark.0);
    keep_picture(browser, "status-page-dark.png");
    browser.prefer(&[]);
}

/// Also on a phone, where it is most likely to be read then.
fn tells_of_a_lost_host(t: &TestNet, browser: &mut Browser) {
    let Pair { holder, standby } = t.pair();
    t.kill_host(&holder);
    browser.await_value(VERDICT, &verdict(&standby), Duration::from_secs(60));
    let lost =
        format!("document.querySelector('.warnings').innerText.includes('{holder} cannot be reached from here.')");
    browser.await_value(&lost, &true.into(), SHOWN_BOUND);
    assert!(browser.text().contains("A failover would NOT work now"), "{}", browser.text());
    assert_nothing_sticks_out(browser, 360);
    browser.resize(360, 1.5);
    keep_picture(browser, "status-page-phone.png");
    t.or_logs(launch::start_coordinator(&t.net, &holder));
    t.pair();
    browser.await_value(FINE, &"✓ Nothing is wrong.".into(), SHOWN_BOUND);
    browser.resize(1180, 1.0);
}

/// A coordinator that is stopped answers nothing; what is on the page is old then.
fn says_when_it_is_old(t: &TestNet, browser: &mut Browser) {
    let coordinator = t.or_logs(faults::find(&t.net, SEEN_BY, What::Coordinator));
    t.or_logs(procs::signal(&coordinator, Signal::STOP));
    let hidden = "document.querySelector('#lost').hidden";
    browser.await_value(hidden, &false.into(), SHOWN_BOUND);
    let said = browser.value("document.querySelector('#lost').innerText");
    assert!(said.as_str().is_some_and(|said| said.contains("No answer from this host since")), "{said}");
    assert_eq!(browser.value("document.title.startsWith('NO ANSWER')"), true);
    t.or_logs(procs::signal(&coordinator, Signal::CONT));
    browser.await_value(hidden, &true.into(), SHOWN_BOUND);
}

fn works_without_javascript(t: &TestNet, browser: &mut Browser, origin: &str) {
    let pair = t.pair();
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(origin);
    let loaded = browser.count("Page.loadEventFired");
    let markup = browser.markup();
    assert!(markup.contains(&format!("</span> {} signs</h2>", pair.holder)), "{markup}");
    assert!(markup.contains("<span id=\"every\">5 s</span>"), "a script ran: {markup}");
    t.or_logs(hand_over(&t.net, &pair));
    browser.await_count("Page.loadEventFired", loaded + 2, SHOWN_BOUND);
    let markup = browser.markup();
    assert!(markup.contains(&format!("</span> {} signs</h2>", pair.standby)), "{markup}");
}

//! A host whose idle guard hangs, and is known to: the baton is not given to it, also when an operator asks for that.
//! Its coordinator replaces the guard after some seconds, and then it may be.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::HANDOVER_BOUND;
use crate::judge::status::{POLL_EVERY, not_ready, query};
use crate::net::Net;
use crate::process::procs::{Proc, describe};
use crate::runs::demo::ask_baton_within;

/// A coordinator notices within two seconds, and the others hear of it.
const NOTICE_BOUND: Duration = Duration::from_secs(5);
/// The beginning of what `status` says of such a host.
const UNREADY: &str = "the guard does not answer";

/// How the baton came to `host` although its `guards` were stopped and known to be, in words. `None` also where that
/// was not noticed in time, or they were replaced meanwhile.
pub fn chosen(net: &Net, holder: &str, host: &str, guards: &[Proc]) -> Result<Option<String>> {
    let began = Instant::now();
    let is_known = || {
        let told = not_ready(net, holder, host);
        told.is_ok_and(|told| told.is_some_and(|reason| reason.starts_with(UNREADY)))
    };
    while !is_known() {
        if began.elapsed() > NOTICE_BOUND {
            return Ok(None);
        }
        std::thread::sleep(POLL_EVERY);
    }
    // For a host that held the baton a moment ago it waits until its node is back.
    let order = ["handover", "--to", host, "--timeout", "2s"];
    let answer = ask_baton_within(HANDOVER_BOUND, net, holder, &order)?;
    let now_holds = query(net).unwrap_or_default().holder.is_some_and(|now| now == host);
    if !guards.iter().all(is_stopped) {
        return Ok(None);
    }
    let given = answer.code == Some(0) || now_holds;
    let what = || {
        let (guards, code, said) = (describe(guards), answer.code, answer.stdout + &answer.stderr);
        format!("{host} was given the baton, and its guard is known to hang ({guards}); exit code {code:?}: {said}")
    };
    Ok(given.then(what))
}

fn is_stopped(process: &Proc) -> bool {
    // The state stands after the name, which is in parentheses and may hold any.
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

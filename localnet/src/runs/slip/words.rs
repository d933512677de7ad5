//! By which words a sentence of baton's names a slip: the one place that knows them. They are what stays when a
//! sentence is put in other words: the path, the process, the host that the slip is about.

use super::{Made, Slip, Traces};

/// The sentence has all words of one of the slip's alternatives.
pub fn names(made: &Made, sentence: &str) -> bool {
    let Traces { path, pid, other } = &made.traces;
    let path = path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let pid = pid.map(|pid| pid.to_string());
    let part = |part: &'_ Option<String>| part.clone().unwrap_or_else(|| "nothing was noted".into());
    let (path, pid, other) = (part(&path), part(&pid), part(other));
    let host = &made.host;
    let alternatives: Vec<Vec<&str>> = match made.slip {
        Slip::CopiedKey => vec![vec![&path]],
        Slip::OtherHome => vec![vec![&path]],
        Slip::ForeignNode => vec![vec![&pid]],
        Slip::Wrapper => vec![vec![&path], vec!["exec", &other]],
        Slip::Timings => vec![vec![host, "another [timing] than"]],
        Slip::SwappedAddresses => vec![vec![&other, "addresses in cluster.members"]],
        Slip::OtherFile => vec![vec!["belongs to", host, &other]],
        Slip::OtherProbe => vec![vec![&other]],
        Slip::SecondCluster => vec![vec![&path, "two clusters with one key"]],
        Slip::SoleFounder => vec![vec!["of a cluster of the same name that other members formed"]],
        Slip::ClockSkew => vec![vec![host, "another chain.clock_skew"]],
        Slip::NodeElsewhere => vec![vec!["key is in use elsewhere"]],
        Slip::OldState => return is_of_an_older_start(host, sentence),
    };
    alternatives.iter().any(|parts| parts.iter().all(|part| stands_in(part, sentence)))
}

/// For a moment every restart is told of as another process; that one is a later start.
fn is_of_an_older_start(host: &str, sentence: &str) -> bool {
    let number = |before: &str| {
        let digits = sentence.split_once(before)?.1.chars().take_while(char::is_ascii_digit).collect::<String>();
        digits.parse::<u64>().ok()
    };
    let (known, this) = (number("(start "), number("and this is start "));
    stands_in(&format!("another process speaks for {host}"), sentence) && this.is_some() && this < known
}

/// A part that is a number stands there as a whole.
fn stands_in(part: &str, sentence: &str) -> bool {
    let is_number = part.chars().all(|c| c.is_ascii_digit());
    sentence.match_indices(part).any(|(at, _)| {
        let before = sentence[..at].chars().next_back();
        let after = sentence[at + part.len()..].chars().next();
        !is_number || ![before, after].into_iter().flatten().any(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_its_whole_number_and_a_file_by_its_path() {
        let traces = Traces { path: Some("/net/slip/key.json".into()), pid: Some(42), other: None };
        let made =
            |slip| Made { slip, host: "host-b".into(), done: String::new(), traces: traces.clone(), log_bytes: 0 };
        let foreign = made(Slip::ForeignNode);
        assert!(names(&foreign, "pid 42 listens at 127.0.0.1:3030"));
        assert!(!names(&foreign, "pid 420 listens at 127.0.0.1:3030, 142 times"));
        assert!(names(&made(Slip::CopiedKey), "standby = /net/slip/key.json is a copy of the key"));
        assert!(!names(&made(Slip::CopiedKey), "Nothing is wrong."));
        assert!(!names(&made(Slip::OtherFile), "nothing was noted"), "a slip without traces is named by nothing");
    }

    #[test]
    fn an_old_state_is_told_from_a_restart_by_its_number() {
        let (traces, done) = (Traces::default(), String::new());
        let made = Made { slip: Slip::OldState, host: "host-b".into(), done, traces, log_bytes: 0 };
        let told = |known, this| {
            format!("another process speaks for host-b (start {known} of its store, and this is start {this}): stop it")
        };
        assert!(names(&made, &told(8, 7)));
        assert!(!names(&made, &told(8, 9)));
        assert!(!names(&made, &told(8, 7).replace("host-b", "host-c")));
    }
}

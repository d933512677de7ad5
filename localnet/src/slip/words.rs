//! By which words a sentence of baton's names a slip: the one place that knows them. They are what stays when a sentence is
//! put in other words: the path, the process, the host that the slip is about.

use super::{Made, Slip, Traces};

/// All of `parts` stand in the sentence; a part that is a number stands there as a whole.
struct Names<'a>(Vec<&'a str>);

pub fn names(made: &Made, sentence: &str) -> bool {
    let Traces { path, pid, other } = &made.traces;
    let path = path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let pid = pid.map(|pid| pid.to_string());
    let part = |part: &'_ Option<String>| part.clone().unwrap_or_else(|| "nothing was noted".into());
    let (path, pid, other) = (part(&path), part(&pid), part(other));
    let alternatives: Vec<Names<'_>> = match made.slip {
        Slip::CopiedKey => vec![Names(vec![&path])],
        Slip::OtherHome => vec![Names(vec![&path])],
        Slip::ForeignNode => vec![Names(vec![&pid])],
        Slip::Wrapper => vec![Names(vec![&path]), Names(vec!["exec", &other])],
        Slip::Timings => vec![Names(vec![&made.host, "timing"]), Names(vec![&made.host, "lease", "3s"])],
        Slip::SwappedAddresses => vec![Names(vec![&other, "certificate"]), Names(vec![&other, "address"])],
        Slip::OtherFile => vec![Names(vec![&made.host, &other])],
        Slip::OldState => vec![Names(vec![&made.host, "another process"]), Names(vec![&path])],
    };
    alternatives.iter().any(|names| names.0.iter().all(|part| stands_in(part, sentence)))
}

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
    }
}

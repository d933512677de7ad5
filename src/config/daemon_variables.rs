//! cosmovisor's environment variables, with the meaning, syntax and defaults that its documentation gives them. They
//! say what `[upgrade]` leaves open, so that a host's unit file goes on working; what the file and `BATON_UPGRADE_…`
//! say counts more. Read only where upgrades are handled at all: with a name, here or there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::error::{ConfigError, Origin};
use super::file::{Entry, Raw};
use super::units;

const NAME: &str = "DAEMON_NAME";

/// How a variable's text becomes the text that the key takes; `None` when it says nothing of the key.
type Reading = fn(&str) -> Result<Option<String>, String>;

const VARIABLES: [(&str, &str, Reading); 8] = [
    (NAME, "upgrade.name", as_it_is),
    ("DAEMON_HOME", "upgrade.root", absolute),
    ("DAEMON_ALLOW_DOWNLOAD_BINARIES", "upgrade.allow_download", boolean),
    ("DAEMON_RESTART_AFTER_UPGRADE", "upgrade.restart_after", boolean),
    ("DAEMON_POLL_INTERVAL", "upgrade.poll", duration),
    ("UNSAFE_SKIP_BACKUP", "upgrade.backup", skip_backup),
    ("DAEMON_DATA_BACKUP_DIR", "upgrade.backup_dir", absolute),
    ("DAEMON_PREUPGRADE_MAX_RETRIES", "upgrade.preupgrade_retries", as_it_is),
];

/// What cosmovisor would do and baton does not: who has set one of these learns of it.
const WITHOUT_MEANING: [(&str, &str); 4] = [
    ("COSMOVISOR_CUSTOM_PREUPGRADE", "the script is not run; have the new binary's own pre-upgrade do it"),
    ("DAEMON_RESTART_DELAY", "an upgrade begins without a delay; remove it"),
    ("DAEMON_SHUTDOWN_GRACE", "chain.stop_timeout says how long the node has to end; remove it"),
    ("DAEMON_GRPC_ADDRESS", "batches of upgrades are not read; use baton upgrade plan"),
];

/// Whether `name` may be one of cosmovisor's.
pub(super) fn is_of_cosmovisor(name: &str) -> bool {
    name.starts_with("DAEMON_") || name.starts_with("COSMOVISOR_") || name == "UNSAFE_SKIP_BACKUP"
}

/// Puts what `variables` say into `entries` where nothing stands yet. Returns warnings, a line each.
pub(super) fn fill_in(
    entries: &mut BTreeMap<String, Entry>,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<String>, ConfigError> {
    // As cosmovisor has it: an empty variable says nothing.
    let said = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    if !entries.contains_key("upgrade.name") && said(NAME).is_none() {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    for (variable, key, reading) in VARIABLES {
        let Some(value) = said(variable) else { continue };
        let read = reading(value);
        match entries.get(key) {
            Some(entry) => warnings.extend(contradiction(variable, value, read, key, entry)),
            None => {
                let at = Origin::Variable(variable.to_owned());
                let read = read.map_err(|problem| ConfigError::Bad { key: key.to_owned(), at: at.clone(), problem })?;
                if let Some(text) = read {
                    entries.insert(key.to_owned(), Entry { value: Raw::Text(text), at });
                }
            }
        }
    }
    for (variable, instead) in WITHOUT_MEANING {
        if said(variable).is_some() {
            warnings.push(format!("{variable} is set and means nothing to baton: {instead}"));
        }
    }
    Ok(warnings)
}

fn contradiction(
    variable: &str,
    value: &str,
    read: Result<Option<String>, String>,
    key: &str,
    entry: &Entry,
) -> Option<String> {
    let written = match &entry.value {
        Raw::Text(text) => units::duration(text).map_or_else(|_| text.clone(), units::show),
        Raw::Integer(_) | Raw::Bool(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => entry.value.to_string(),
    };
    let same = match read {
        Ok(Some(text)) => text == written,
        // UNSAFE_SKIP_BACKUP=false asks for a backup, of whichever kind.
        Ok(None) => written != "none",
        Err(_) => false,
    };
    (!same).then(|| format!("{variable} is {value:?}, but {key} in {} is {}, which counts", entry.at, entry.value))
}

fn as_it_is(value: &str) -> Result<Option<String>, String> {
    Ok(Some(value.to_owned()))
}

fn absolute(value: &str) -> Result<Option<String>, String> {
    match Path::new(value).is_absolute() {
        true => Ok(Some(value.to_owned())),
        false => Err(format!("{value:?} is no absolute path; write it in full")),
    }
}

fn boolean(value: &str) -> Result<Option<String>, String> {
    truth(value).map(|yes| Some(yes.to_string()))
}

fn skip_backup(value: &str) -> Result<Option<String>, String> {
    truth(value).map(|skip| skip.then(|| "none".to_owned()))
}

fn truth(value: &str) -> Result<bool, String> {
    match value.to_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{value:?} is not true or false; write one of them")),
    }
}

fn duration(value: &str) -> Result<Option<String>, String> {
    let bad = || format!("{value:?} is not a duration; write one as Go has it: \"300ms\", \"5s\", \"1m30s\"");
    match go_duration(value).ok_or_else(bad)? {
        none if none.is_zero() => Err(format!("{value:?} is no time at all; use 10ms or more")),
        some => Ok(Some(units::show(some))),
    }
}

/// As `time.ParseDuration` of Go reads it, rounded to milliseconds; and a plain number of milliseconds, which earlier
/// cosmovisors took.
fn go_duration(text: &str) -> Option<Duration> {
    if let Ok(millis) = text.parse::<u64>() {
        return Some(Duration::from_millis(millis));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut millis = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        millis += number.parse::<f64>().ok()?
            * match unit {
                "ns" => 1e-6,
                "us" | "µs" | "μs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 6e4,
                "h" => 3.6e6,
                _ => return None,
            };
        rest = tail;
    }
    (!text.is_empty() && millis < 1e15).then(|| Duration::from_millis(millis.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go_and_plain_milliseconds() {
        let millis = |text: &str| go_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("300ms", 300),
            ("5s", 5000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("2h", 7_200_000),
            ("+1s", 1000),
            ("300", 300),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for bad in ["", "s", "5x", "-1s", "1s5", "1..5s", "one", "99999999999999999999h"] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }
}

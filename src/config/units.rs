//! Durations with a unit and signals by name, as people write them in a configuration and on the
//! command line. An error is the end of a sentence; who calls puts the key before it.

use std::time::Duration;

use rustix::process::Signal;

/// A whole number and `ms`, `s`, `m` or `h`: `150ms`, `1s`, `2m`.
///
/// # Errors
/// When the unit or the number is missing, or the number is not whole.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bad = || format!("{text:?} is not a duration; write a whole number and a unit: \"150ms\", \"1s\" or \"2m\"");
    if number.is_empty() {
        return Err(bad());
    }
    let factor_ms = match unit.trim() {
        "" => return Err(format!("{number} has no unit; write \"{number}ms\" or \"{number}s\"")),
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor_ms));
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text} is too long"))
}

/// Shortest writing of whole milliseconds: `1s`, `150ms`.
pub(super) fn show(d: Duration) -> String {
    let ms = d.as_millis();
    match ms {
        _ if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms > 0 && ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

const SIGNALS: [(&str, Signal); 9] = [
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGINT", Signal::INT),
    ("SIGQUIT", Signal::QUIT),
    ("SIGTERM", Signal::TERM),
    ("SIGALRM", Signal::ALARM),
    ("SIGCONT", Signal::CONT),
    ("SIGWINCH", Signal::WINCH),
];

/// A signal that a process can act upon, by name (`SIGHUP`, `HUP`) or number.
pub(super) fn signal(text: &str) -> Result<i32, String> {
    let name = text.trim().to_uppercase();
    let known = SIGNALS.iter().find(|(long, _)| *long == name || long.trim_start_matches("SIG") == name);
    if let Some((_, signal)) = known {
        return Ok(signal.as_raw());
    }
    let (kill, stop) = (Signal::KILL.as_raw(), Signal::STOP.as_raw());
    match name.parse::<i32>() {
        Ok(number) if number == kill || number == stop => {
            Err(format!("a process cannot act upon signal {number}; write \"SIGHUP\" or what the node documents"))
        }
        Ok(number) if (1..=64).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("{text} is no signal to activate by; write \"SIGHUP\" or a number from 1 to 64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(duration(" 2 m "), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("30").unwrap_err(), r#"30 has no unit; write "30ms" or "30s""#);
        for bad in ["", "s", "1.5s", "-1s", "1 day", "1s2"] {
            assert!(duration(bad).unwrap_err().contains("is not a duration"), "{bad}");
        }
        assert_eq!(duration("99999999999999999999s").unwrap_err(), "99999999999999999999s is too long");
        assert_eq!(duration("18446744073709551615h").unwrap_err(), "18446744073709551615h is too long");
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["SIGHUP", "hup", "1"] {
            assert_eq!(signal(text), Ok(1), "{text}");
        }
        for text in ["9", "SIGKILL", "0", "65", "SIGFOO", ""] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_durations_can_be_read_again() {
        for ms in [0, 1, 150, 1000, 1500, 60_000, 90_000] {
            let d = Duration::from_millis(ms);
            assert_eq!(duration(&show(d)), Ok(d));
        }
    }
}

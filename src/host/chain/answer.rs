//! From a chain node's JSON answer to a [`Health`], by JSON pointers. Strict: a value that a pointer
//! asks for and that is missing or of another kind is an error, since a guess here could start a
//! second signer. No I/O.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Health, KeyState};
use crate::base::time::WallTime;
use crate::config::{Pointers, TargetHeight};

/// Every pointer that is set must lead somewhere, but for `key` ([`key_at`]); without `syncing` a node
/// that answers counts as synced. `latency` is left at zero.
pub fn health(answer: &Value, pointers: &Pointers) -> Result<Health, String> {
    let syncing = read(answer, pointers.syncing.as_deref(), "a boolean, 0, 1 or an object", as_syncing)?;
    let height = read(answer, pointers.height.as_deref(), "a whole number", as_number)?.unwrap_or(0);
    let behind = match &pointers.target {
        Some(TargetHeight { pointer, behind_max }) => {
            let target = read(answer, Some(pointer), "a whole number", as_number)?;
            target.is_some_and(|target| target > height.saturating_add((*behind_max).into()))
        }
        None => false,
    };
    let head_time = read(answer, pointers.head_time.as_deref(), "an RFC 3339 time or seconds since 1970", as_time)?;
    Ok(Health {
        approved: 0,
        synced: !syncing.unwrap_or(false) && !behind,
        height,
        head_time,
        peers: read(answer, pointers.peers.as_deref(), "a whole number or an array", as_count)?,
        key: key(answer, pointers),
        latency: Duration::ZERO,
        version: read(answer, pointers.version.as_deref(), "a string", |v| v.as_str().map(str::to_owned))?
            .unwrap_or_default(),
    })
}

fn key(answer: &Value, pointers: &Pointers) -> KeyState {
    match (&pointers.key, &pointers.key_names) {
        (None, _) => KeyState::Untold,
        (Some(pointer), None) => key_at(answer, pointer),
        (Some(pointer), Some(names)) => match answer.pointer(pointer).and_then(Value::as_str) {
            Some(name) if name == names.validating => KeyState::Loaded,
            Some(name) if name == names.standby => KeyState::Absent,
            Some(_) | None => KeyState::Untold,
        },
    }
}

/// `Absent` needs an explicit null, false or "": a field that is not there at all proves nothing.
pub fn key_at(answer: &Value, pointer: &str) -> KeyState {
    match answer.pointer(pointer) {
        None => KeyState::Untold,
        Some(Value::Null | Value::Bool(false)) => KeyState::Absent,
        Some(Value::String(text)) if text.is_empty() => KeyState::Absent,
        Some(Value::Bool(true) | Value::String(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            KeyState::Loaded
        }
    }
}

/// A whole number, also as a string, decimal or 0x-hexadecimal.
pub fn as_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(hex) if hex.starts_with('+') => None,
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None if text.starts_with('+') => None,
            None => text.parse().ok(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What `pointer` leads to, or an error that says what was expected there.
pub fn read<T>(
    answer: &Value,
    pointer: Option<&str>,
    expected: &str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(pointer) = pointer else { return Ok(None) };
    let Some(value) = answer.pointer(pointer) else {
        return Err(format!("`{pointer}` is missing in the answer {}", brief(answer)));
    };
    match parse(value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(format!("`{pointer}` is {} where {expected} was expected", brief(value))),
    }
}

/// The beginning of a value, for errors.
pub fn brief(value: &Value) -> String {
    super::http::excerpt(value.to_string().as_bytes())
}

/// Ethereum's `eth_syncing` is false, or an object while it is at it.
fn as_syncing(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(syncing) => Some(*syncing),
        Value::Object(_) => Some(true),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            Some(_) | None => None,
        },
        Value::Null | Value::String(_) | Value::Array(_) => None,
    }
}

fn as_count(value: &Value) -> Option<u32> {
    match value {
        Value::Array(items) => u32::try_from(items.len()).ok(),
        Value::Number(_) | Value::String(_) => as_number(value).and_then(|count| u32::try_from(count).ok()),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

fn as_time(value: &Value) -> Option<WallTime> {
    if let Some(time) = value.as_str().and_then(parse_rfc3339) {
        return Some(time);
    }
    let seconds = as_number(value)?;
    Some(WallTime::from_nanos(seconds.checked_mul(1_000_000_000)?))
}

/// RFC 3339, in UTC or with an offset; at most nine digits of a second count, more are cut off. A leap
/// second (:60) is the last nanosecond before it, so that no head looks later than it is. Any time
/// before 1970 is 1970: nodes without a block tell such times.
pub fn parse_rfc3339(text: &str) -> Option<WallTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos().max(0)).ok().map(WallTime::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<u64> {
        parse_rfc3339(text).map(WallTime::as_nanos)
    }

    #[test]
    fn times_of_chain_nodes_are_read_to_the_nanosecond() {
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2024-02-29T12:00:00.123Z"), Some(1_709_208_000_123_000_000));
        assert_eq!(nanos("2026-11-20T23:46:07.443701848Z"), Some(1_795_218_367_443_701_848));
        assert_eq!(nanos("2026-11-20T23:46:07.4437018489Z"), Some(1_795_218_367_443_701_848));
        assert_eq!(nanos("2026-11-21T01:46:07+02:00"), nanos("2026-11-20T23:46:07Z"));
        assert_eq!(nanos("2026-11-20T18:16:07-05:30"), nanos("2026-11-20T23:46:07Z"));
        assert_eq!(nanos("2016-12-31T23:59:60Z"), Some(1_483_228_799_999_999_999));
    }

    #[test]
    fn every_day_reads_back_as_it_is_shown() {
        for day in 0..60_000_u64 {
            let time = WallTime::from_nanos(day * 86_400_000_000_000);
            assert_eq!(parse_rfc3339(&time.to_string()), Some(time), "day {day}: {time}");
        }
    }

    #[test]
    fn the_time_of_a_node_without_blocks_is_the_earliest_of_all() {
        for text in ["0001-01-01T00:00:00Z", "1969-12-31T19:00:00-05:00", "1970-01-01T01:00:00+01:00"] {
            assert_eq!(nanos(text), Some(0), "{text}");
        }
        assert_eq!(nanos("1970-01-01T01:00:00+02:00"), Some(0));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-20",
            "2026-11-20T23:46:07",
            "2026-11-20T23:46:07.Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00Zulu",
            "2026-01-01T00:00:00+0200",
            "1969-02-29T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00é",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_come_as_numbers_decimals_and_hexadecimals_only() {
        use serde_json::json;
        for (value, number) in [(json!(18), 18), (json!("18"), 18), (json!("0x12"), 18), (json!("0x0"), 0)] {
            assert_eq!(as_number(&value), Some(number), "{value}");
        }
        for value in [json!(-1), json!(1.5), json!("-1"), json!("+1"), json!("0x"), json!("0x+1"), json!(null)] {
            assert_eq!(as_number(&value), None, "{value}");
        }
    }
}

//! neard's `config.json`: what it says of tracked shards, and the one value in it that changes with the
//! role, `network.addr`. That value is edited in place; every other byte of the file stays as its owner
//! wrote it, comments too. Blocking; the driver calls it on a thread for that.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::Chain;
use crate::host::chain::{DriverError, files};

/// Each with the file that neard reads when its configuration names none.
const KEY_FILES: [(&str, &str); 2] = [("validator_key_file", "validator_key.json"), ("node_key_file", "node_key.json")];

pub fn read(path: &Path) -> Result<String, DriverError> {
    std::fs::read_to_string(path).map_err(|error| DriverError::file("read", path, error))
}

/// The file as neard understands it.
pub fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(&without_comments(text)).map_err(|error| format!("it is not JSON: {error}"))
}

/// The keys that neard will read are those behind the links.
///
/// # Errors
/// The name of a key file that is another than the link which stands for that key.
pub fn check_key_files(config: &Value, chain: &Chain) -> Result<(), String> {
    for (name, usual) in KEY_FILES {
        let link = chain.home.join(usual);
        let Some(file) = config[name].as_str() else { continue };
        let is_linked = chain.links.iter().any(|spec| spec.link == link);
        let told: std::path::PathBuf = chain.home.join(file).components().collect();
        if is_linked && told != link {
            return Err(format!(
                "{name} is {file:?} and not {usual:?}, the link {} of chain.links: the link would decide nothing; set it to \
                 {usual:?}",
                link.display()
            ));
        }
    }
    Ok(())
}

/// `network.addr` in the file is `addr`; whether it had to be written. Otherwise the file is untouched.
pub fn set_network_addr(path: &Path, addr: SocketAddr) -> Result<bool, DriverError> {
    let text = read(path)?;
    let edited = with_network_addr(&text, addr).map_err(|reason| DriverError::file("edit", path, reason))?;
    match edited {
        Some(edited) => files::replace_content(path, edited.as_bytes()).map(|()| true),
        None => Ok(false),
    }
}

/// `text` with another `network.addr`; `None` when it is that already.
pub fn with_network_addr(text: &str, addr: SocketAddr) -> Result<Option<String>, String> {
    let bare = without_comments(text);
    let (place, written) = network_addr(&bare)?;
    if written.parse() == Ok(addr) {
        return Ok(None);
    }
    let edited = format!("{}\"{addr}\"{}", &text[..place.start], &text[place.end..]);
    let bare = without_comments(&edited);
    match network_addr(&bare) {
        Ok((_, now)) if now == addr.to_string() => Ok(Some(edited)),
        Ok(_) | Err(_) => Err("network.addr could not be edited in place; write it by hand".into()),
    }
}

/// Where the value of `network.addr` stands, quotes included, and what it is. A name that stands twice
/// is an error: neard refuses such a file.
fn network_addr(bare: &str) -> Result<(Range<usize>, String), String> {
    #[derive(Deserialize)]
    struct Config<'a> {
        #[serde(borrow)]
        network: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Network<'a> {
        #[serde(borrow)]
        addr: Option<&'a RawValue>,
    }
    let missing = || "it has no `network.addr` to switch; add one, as `neard init` writes it".to_owned();
    let not_json = |error: serde_json::Error| format!("it is not JSON: {error}");
    let config: Config = serde_json::from_str(bare).map_err(not_json)?;
    let network: Network = serde_json::from_str(config.network.ok_or_else(missing)?.get()).map_err(not_json)?;
    let addr = network.addr.ok_or_else(missing)?.get();
    let written = serde_json::from_str(addr).map_err(|_| format!("`network.addr` is {addr} and not a string"))?;
    // Both borrow from `bare`, so the distance of their beginnings is the offset.
    let start = addr.as_ptr() as usize - bare.as_ptr() as usize;
    Ok((start..start + addr.len(), written))
}

/// neard allows `//`, `#` and `/* */` comments. They become spaces, so that every offset stays.
fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut bare = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'"', ..] => {
                at = end_of_string(bytes, at);
                continue;
            }
            [b'#', ..] | [b'/', b'/', ..] => find(bytes, at, b"\n").unwrap_or(bytes.len()),
            [b'/', b'*', ..] => find(bytes, at + 2, b"*/").map_or(bytes.len(), |end| end + 2),
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in bare[at..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
        at = end;
    }
    // Only whole comments were blanked, so no character was cut.
    String::from_utf8(bare).unwrap_or_default()
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes[from..].windows(what.len()).position(|window| window == what).map(|found| from + found)
}

/// Why this node, which holds what `config` has it track, could not do the work of `account` at once.
pub fn tracking_problem(config: &Value, account: &str) -> Option<String> {
    let wanted = format!(
        "set `tracked_shards_config` to `{{\"ShadowValidator\": \"{account}\"}}` or to `\"AllShards\"` and restart it"
    );
    match tracked(config) {
        Tracked::All => None,
        Tracked::Shadow(shadowed) if shadowed == account => None,
        Tracked::Shadow(shadowed) => Some(format!(
            "this node tracks what validator {shadowed} needs, and the shared validator is {account}; {wanted}"
        )),
        Tracked::Nothing => {
            Some(format!("this node tracks no shard, so that it could not produce chunks as validator; {wanted}"))
        }
        Tracked::Part(what) => Some(format!(
            "this node tracks {what} only, and as validator it may need another shard, which it then lacks; {wanted}"
        )),
    }
}

enum Tracked {
    Nothing,
    All,
    Shadow(String),
    Part(String),
}

fn tracked(config: &Value) -> Tracked {
    match &config["tracked_shards_config"] {
        Value::Null => tracked_by_older_fields(config),
        Value::String(name) if name == "AllShards" => Tracked::All,
        Value::String(name) if name == "NoShards" => Tracked::Nothing,
        Value::Object(fields) => match fields.iter().next() {
            Some((name, Value::String(account))) if name == "ShadowValidator" => Tracked::Shadow(account.clone()),
            Some((_, Value::Array(items))) if items.is_empty() => Tracked::Nothing,
            Some((name, _)) => Tracked::Part(format!("its {name}")),
            None => Tracked::Nothing,
        },
        other @ (Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            Tracked::Part(other.to_string())
        }
    }
}

/// For a neard from before `tracked_shards_config`: there any tracked shard meant all of them.
fn tracked_by_older_fields(config: &Value) -> Tracked {
    let lists = |field: &str| config[field].as_array().is_some_and(|items| !items.is_empty());
    if lists("tracked_shards") {
        Tracked::All
    } else if let Some(account) = config["tracked_shadow_validator"].as_str().filter(|account| !account.is_empty()) {
        Tracked::Shadow(account.to_owned())
    } else if let Some(field) = ["tracked_shard_schedule", "tracked_accounts"].into_iter().find(|field| lists(field)) {
        Tracked::Part(format!("its {field}"))
    } else {
        Tracked::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_value_changes_and_every_other_byte_stays() {
        let before = "{ // \"network\": {\"addr\": \"trap\"}\n  \"addr\" :1.50,\t\"x\": \"a\\\"/*\",\r\n\
                      \"network\"  : {# \"addr\": \"trap\"\n\"peers\": [ ], \"public_addrs\": [\"addr\"],\n\
                      /* \"addr\": ü */ \"addr\" :\"0.0.0.0:24567\" // mine\n , \"z\": 1e3 },\n\"addr\":\"no\" }  ";
        let after = with_network_addr(before, addr("0.0.0.0:1")).expect("edited").expect("changed");
        assert_eq!(after, before.replace("0.0.0.0:24567", "0.0.0.0:1"));
        let back = with_network_addr(&after, addr("0.0.0.0:24567")).expect("edited").expect("changed");
        assert_eq!(back, before);
        assert_eq!(with_network_addr(before, addr("0.0.0.0:24567")), Ok(None));
    }

    #[test]
    fn an_escaped_or_differently_written_address_is_the_same_address() {
        let escaped = "{\"network\": {\"addr\": \"[::1]:2456\\u0037\"}}";
        assert_eq!(with_network_addr(escaped, addr("[0:0:0:0:0:0:0:1]:24567")), Ok(None));
        let other = with_network_addr(escaped, addr("[::1]:1")).expect("edited");
        assert_eq!(other.as_deref(), Some("{\"network\": {\"addr\": \"[::1]:1\"}}"));
    }

    #[test]
    fn a_file_without_one_clear_address_is_refused() {
        for (text, expected) in [
            ("{}", "no `network.addr`"),
            ("{\"network\": {}}", "no `network.addr`"),
            ("{\"network\": {\"addr\": 7}}", "is 7 and not a string"),
            ("{\"network\": {\"addr\": \"a\", \"addr\": \"b\"}}", "duplicate field"),
            ("{\"network\": {\"addr\": \"a\"}", "not JSON"),
            ("", "not JSON"),
            ("/*", "not JSON"),
            ("{\"network\": \"\\", "not JSON"),
        ] {
            let error = with_network_addr(text, addr("0.0.0.0:1")).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

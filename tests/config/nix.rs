//! deploy/nix: its options are the keys of the configuration, and what the module makes of them is a configuration.

use std::fmt::Write;
use std::process::Command;
use std::{env, fs};

use baton::config::{Absent, KEYS, Key};
use serde_json::{Value, json};

use crate::load;

const OPTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nix/options.nix");
const EVALUATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/nix/evaluate.nix");
const WRITE: &str = "BATON_WRITE_NIX";

#[test]
fn the_options_are_the_keys() {
    let made = options();
    if env::var_os(WRITE).is_some() {
        fs::write(OPTIONS, &made).expect("options.nix");
    }
    let kept = fs::read_to_string(OPTIONS).expect("options.nix");
    assert!(kept == made, "{OPTIONS} has not the keys of the configuration; {WRITE}=1 writes it anew");
}

fn options() -> String {
    let mut text = String::from(
        "# The keys of src/config/key_list.rs, kept equal by tests/config/nix.rs, which writes them.\n[\n",
    );
    for key in KEYS {
        let absent = match key.absent {
            Absent::Refused => "required".to_owned(),
            Absent::AsExample => format!("usually {}", key.example_value()),
            Absent::So(words) => words.to_owned(),
        };
        let line = [
            ("path", key.path),
            ("type", kind(key)),
            ("example", &nix_example(key)),
            ("absent", &absent),
            ("says", key.says),
        ];
        text.push_str("  {\n");
        for (name, value) in line {
            let value = if name == "example" { value.to_owned() } else { quoted(value) };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {name} = {value};");
        }
        text.push_str("  }\n");
    }
    text + "]\n"
}

fn kind(key: &Key) -> &'static str {
    let value = key.example_value();
    match value.chars().next() {
        Some('"') => "string",
        Some('[') => "list",
        Some('{') => "table",
        _ if ["true", "false"].contains(&value) => "boolean",
        Some(_) => "integer",
        None => panic!("{} has no example", key.path),
    }
}

/// Numbers, words and strings look as in TOML; the rest is shown as text.
fn nix_example(key: &Key) -> String {
    match kind(key) {
        "integer" | "boolean" => key.example_value().to_owned(),
        "string" => quoted(key.example_value().trim_matches('"')),
        _ => quoted(key.example_value()),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))
}

/// A host with two validators, as docs/nixos.md shows it.
const VALIDATORS: &str = r#"{
  alpha.settings = {
    member.id = "host-a";
    cluster = {
      name = "alpha";
      listen = "127.0.0.1:7411";
      members = [ { id = "host-a"; addr = "127.0.0.1:7411"; role = "validator"; } ];
    };
    timing.profile = "wan";
    chain = {
      driver = "near";
      home = "/var/lib/near-alpha";
      command = [ "neard" "--home" "/var/lib/near-alpha" "run" ];
      links = [ { link = "validator_key.json"; validating = "/etc/baton/alpha/keys/validator_key.json"; } ];
      activate = { };
      probe.url = "http://127.0.0.1:3031/status";
      probe.failures = 3;
    };
    hooks.on_holder = [ "/bin/tell" ];
  };
  beta.settings = {
    member.id = "host-a";
    cluster = { name = "beta"; listen = "127.0.0.1:7412"; members = [ { id = "host-a"; addr = "127.0.0.1:7412"; role = "arbiter"; } { id = "b"; addr = "127.0.0.1:7413"; } ]; };
  };
}"#;

fn evaluate(validators: &str) -> Result<Value, String> {
    let nix = Command::new("nix-instantiate")
        .args(["--eval", "--strict", "--json", EVALUATE, "--arg", "validators", validators])
        .output()
        .unwrap_or_else(|error| panic!("nix-instantiate: {error}; apt-get install nix-bin"));
    match nix.status.success() {
        true => Ok(serde_json::from_slice(&nix.stdout).expect("JSON")),
        false => Err(String::from_utf8_lossy(&nix.stderr).into_owned()),
    }
}

#[test]
#[ignore = "needs nix-instantiate (nix-bin); see docs/localnet.md"]
fn what_the_module_makes_of_a_host_is_sound() {
    let host = evaluate(VALIDATORS).expect("evaluated");
    let file = |name: &str| {
        let settings = &host["environment"]["etc"][format!("baton/{name}/baton.toml")]["source"];
        assert!(settings.is_object(), "{name}: {host:#}");
        toml::to_string(settings).expect("TOML")
    };
    let alpha = load(&file("alpha")).expect("a sound configuration");
    assert_eq!(alpha.state_dir.to_str(), Some("/var/lib/baton/alpha"));
    assert_eq!(alpha.run_dir.to_str(), Some("/run/baton/alpha"));
    assert_eq!(alpha.chain.expect("a chain").probe.failures, 3);
    assert_eq!(load(&file("beta")).expect("a sound configuration").chain, None);

    let services = host["systemd"]["services"].as_object().expect("services");
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["baton-fence@alpha", "baton-fence@beta", "baton@alpha", "baton@beta"]);
    for name in ["baton@alpha", "baton-fence@alpha"] {
        assert_eq!(services[name]["serviceConfig"]["ReadWritePaths"], json!(["/var/lib/near-alpha"]), "{name}");
    }
    assert_eq!(services["baton@beta"].get("serviceConfig"), None, "an arbiter has no home");
    assert_eq!(services["baton@alpha"]["wantedBy"], json!(["multi-user.target"]));
    assert_eq!(services["baton-fence@alpha"]["restartIfChanged"], json!(false));
}

#[test]
#[ignore = "needs nix-instantiate (nix-bin); see docs/localnet.md"]
fn a_key_that_is_none_and_a_value_of_another_type_are_refused_by_nix() {
    let refused = |from: &str, to: &str| evaluate(&VALIDATORS.replacen(from, to, 1)).expect_err("refused");
    let unknown = refused("probe.failures = 3", "probe.failurs = 3");
    assert!(unknown.contains("services.baton.validators.alpha.settings.chain.probe.failurs"), "{unknown}");
    let text = refused("probe.failures = 3", "probe.failures = \"3\"");
    assert!(text.contains("not an integer"), "{text}");
    assert_eq!(evaluate("{ }").expect("evaluated"), json!({}), "nothing without validators");
}

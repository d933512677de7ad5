//! Key files that systemd hands over: which values may begin with their directory, and what is said when they cannot.

use std::path::Path;

use crate::{EXAMPLE, edited, load_with};

const SET: &[(&str, &str)] = &[("CREDENTIALS_DIRECTORY", "/run/credentials/baton.service")];

/// The example with every key file in the credentials directory.
fn all_of_them() -> String {
    let text = EXAMPLE.replace("/etc/baton/keys/", "$CREDENTIALS_DIRECTORY/");
    let text = text.replace("\"ca.pem\"", "\"${CREDENTIALS_DIRECTORY}/ca.pem\"");
    text.replace("\"host-a.", "\"$CREDENTIALS_DIRECTORY/host-a.")
}

#[test]
fn every_key_file_may_be_a_credential() {
    let config = load_with(&all_of_them(), SET).expect("sound");
    let at = |name: &str| Path::new("/run/credentials/baton.service").join(name);
    let tls = config.tls.expect("TLS");
    assert_eq!([tls.ca, tls.cert, tls.key], ["ca.pem", "host-a.pem", "host-a.key"].map(at));
    let links = config.chain.expect("a chain node").links;
    assert_eq!(links[0].validating, at("validator_key.json"));
    assert_eq!(
        (links[1].validating.clone(), links[1].standby.clone()),
        (at("validator_node_key.json"), Some(at("voter_node_key.json")))
    );
    assert_eq!(links[0].link, Path::new("/var/lib/near/validator_key.json"), "what is below the home stays there");
}

#[test]
fn a_variable_may_name_a_credential_too() {
    let env = [SET, &[("BATON_TLS_KEY", "$CREDENTIALS_DIRECTORY/tls.key")]].concat();
    let tls = load_with(EXAMPLE, &env).expect("sound").tls.expect("TLS");
    assert_eq!(tls.key, Path::new("/run/credentials/baton.service/tls.key"));
}

#[test]
fn without_the_directory_the_key_its_line_and_a_way_out_are_named() {
    let validating = edited("\"/etc/baton/keys/validator_key.json\"", "\"$CREDENTIALS_DIRECTORY/validator_key.json\"");
    let unset = "chain.links[0].validating in baton.toml:33: CREDENTIALS_DIRECTORY is not set; systemd sets it for a service \
                 with LoadCredential=validator_key.json:FILE, and by hand CREDENTIALS_DIRECTORY=DIR does";
    for env in [&[][..], &[("CREDENTIALS_DIRECTORY", "")]] {
        assert_eq!(load_with(&validating, env).expect_err("unset"), unset);
    }
    let relative =
        "chain.links[0].validating in baton.toml:33: CREDENTIALS_DIRECTORY is \"creds\", which is no absolute path";
    assert_eq!(load_with(&validating, &[("CREDENTIALS_DIRECTORY", "creds")]).expect_err("relative"), relative);
}

#[test]
fn no_other_variable_and_no_other_key_is_expanded() {
    for (from, to, expected) in [
        (
            "key = \"host-a.key\"",
            "key = \"$HOME/host-a.key\"",
            "tls.key in baton.toml:21: \"$HOME/host-a.key\" has a variable that is not known; write \
             \"$CREDENTIALS_DIRECTORY/NAME\" or the path in full",
        ),
        (
            "key = \"host-a.key\"",
            "key = \"$CREDENTIALS_DIRECTORY\"",
            "tls.key in baton.toml:21: \"$CREDENTIALS_DIRECTORY\" has a variable that is not known; write \
             \"$CREDENTIALS_DIRECTORY/NAME\" or the path in full",
        ),
        (
            "key = \"host-a.key\"",
            "key = \"$CREDENTIALS_DIRECTORY_/x\"",
            "tls.key in baton.toml:21: \"$CREDENTIALS_DIRECTORY_/x\" has a variable that is not known; write \
             \"$CREDENTIALS_DIRECTORY/NAME\" or the path in full",
        ),
        (
            "home = \"/var/lib/near\"",
            "home = \"$CREDENTIALS_DIRECTORY/near\"",
            "chain.home in baton.toml:25: \"$CREDENTIALS_DIRECTORY/near\" begins with a variable; $CREDENTIALS_DIRECTORY/ may \
             stand in tls and in the targets of chain.links alone, write the path in full",
        ),
    ] {
        assert_eq!(load_with(&edited(from, to), SET).expect_err(to), expected);
    }
}

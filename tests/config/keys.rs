//! `check_keys` on real files of several modes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use baton::config::{Config, check_keys};

use crate::edited;

#[test]
fn keys_that_are_missing_or_open_to_others_are_refused_before_anything_happens() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, key) = (dir.path().join("baton.toml"), dir.path().join("validator_key.json"));
    let text = edited("\"/etc/baton/keys/validator_key.json\"", "\"validator_key.json\"");
    let text = text.replace("\"/etc/baton/keys/validator_node_key.json\"", "\"alias.json\"");
    fs::write(&file, text).expect("the configuration is written");
    symlink(&key, dir.path().join("alias.json")).expect("a second name for the key");
    let config = Config::load(&file, std::iter::empty()).expect("sound");
    let line = || check_keys(&config).map_err(|error| error.to_string());
    let shown = key.display();

    let missing = format!(
        "key {shown} cannot be read: No such file or directory (os error 2); put the validator key there, or correct \
         chain.links"
    );
    assert_eq!(line(), Err(missing));
    fs::write(&key, "{}").expect("the key is written");
    for mode in [0o640, 0o604, 0o620, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("chmod");
        let open = format!("key {shown} has mode {mode:04o}, open to group or others; run: chmod 600 {shown}");
        assert_eq!(line(), Err(open));
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("chmod");
        assert_eq!(line(), Ok(()));
    }
    fs::remove_file(&key).expect("the key is removed");
    fs::create_dir(&key).expect("a directory in its place");
    assert_eq!(line(), Err(format!("key {shown} is not a regular file; correct chain.links")));
}

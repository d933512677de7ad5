//! The two keys that the link can name, by their public halves: the shared validator key and a
//! throwaway that is in no validator set, for a node that has to have some key. Blocking.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;
use serde_json::json;

use crate::chain::{DriverError, files};

const OWN_STANDBY_FILE: &str = "standby_priv_validator_key.json";

#[derive(Clone)]
pub struct KeyFiles {
    pub validating: PathBuf,
    pub standby: PathBuf,
}

/// The public halves.
pub struct Keys {
    pub validating: PublicKey,
    pub standby: PublicKey,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PublicKey {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

/// Of a key file: the private half is not even parsed.
#[derive(Deserialize)]
struct KeyFile {
    pub_key: PublicKey,
}

/// Of a genesis file, which can be large: the initial validators, in the place of CometBFT or of the
/// Cosmos SDK.
#[derive(Deserialize)]
struct Genesis {
    validators: Option<Vec<GenesisValidator>>,
    consensus: Option<GenesisConsensus>,
}

#[derive(Deserialize)]
struct GenesisConsensus {
    validators: Option<Vec<GenesisValidator>>,
}

#[derive(Deserialize)]
struct GenesisValidator {
    pub_key: Option<PublicKey>,
}

/// Where the standby key of a member is that has configured none.
pub fn own_standby_file(state_dir: &Path) -> PathBuf {
    state_dir.join(OWN_STANDBY_FILE)
}

impl Keys {
    pub fn read(files: &KeyFiles) -> Result<Keys, DriverError> {
        let read = |path: &Path| {
            read_key(path)?.ok_or_else(|| DriverError::file("read the public key from", path, "no such file"))
        };
        Ok(Keys { validating: read(&files.validating)?, standby: read(&files.standby)? })
    }

    /// As [`Keys::read`], after a throwaway standby key was made where there is none. The two differ
    /// and no initial validator of `genesis` has the standby key.
    pub fn prepare(files: &KeyFiles, genesis: &Path) -> Result<Keys, DriverError> {
        if read_key(&files.validating)?.is_none() {
            let reason = "no such file; put the shared validator key there";
            return Err(DriverError::file("read the validator key", &files.validating, reason));
        }
        if read_key(&files.standby)?.is_none() {
            make_throwaway_key(&files.standby)?;
        }
        let keys = Keys::read(files)?;
        let standby = files.standby.display();
        let refuse = |what: String| {
            let advice = "remove that file, and a throwaway key is made in its place";
            Err(DriverError::setting("chain.links", format!("the standby key {standby} {what}; {advice}")))
        };
        if keys.validating == keys.standby {
            let validating = files.validating.display();
            return refuse(format!("is the validator key {validating} itself: every standby would sign"));
        }
        if genesis_validators(genesis)?.contains(&keys.standby) {
            return refuse(format!("belongs to a validator of {}: every standby would sign", genesis.display()));
        }
        Ok(keys)
    }
}

fn read_key(path: &Path) -> Result<Option<PublicKey>, DriverError> {
    let Some(content) = files::read_if_present(path)? else { return Ok(None) };
    match serde_json::from_slice::<KeyFile>(&content) {
        Ok(file) => Ok(Some(file.pub_key)),
        // serde's own text could quote the file: say where, not what.
        Err(error) => {
            let reason = format!("no `pub_key` with `type` and `value` (line {})", error.line());
            Err(DriverError::file("read the public key from", path, reason))
        }
    }
}

/// None when there is no file: whether the node starts without one is its own business.
fn genesis_validators(path: &Path) -> Result<Vec<PublicKey>, DriverError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DriverError::file("read", path, error)),
    };
    let genesis: Genesis = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| DriverError::file("read the validators of", path, error))?;
    let of_consensus = genesis.consensus.and_then(|consensus| consensus.validators);
    let validators = genesis.validators.into_iter().chain(of_consensus).flatten();
    Ok(validators.filter_map(|validator| validator.pub_key).collect())
}

/// An Ed25519 key of which nobody else knows, in the form of `cometbft gen-validator`; nodes built on
/// CometBFT need not have that command.
fn make_throwaway_key(path: &Path) -> Result<(), DriverError> {
    let failed = |what: &str| DriverError::file("make a throwaway standby key in", path, what);
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| failed("the system gives no random bytes"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| failed(&error.to_string()))?;
    let public = pair.public_key().as_ref();
    let digest = ring::digest::digest(&ring::digest::SHA256, public);
    let address: String = digest.as_ref()[..20].iter().map(|byte| format!("{byte:02X}")).collect();
    let key = json!({
        "address": address,
        "pub_key": { "type": "tendermint/PubKeyEd25519", "value": BASE64.encode(public) },
        "priv_key": {
            "type": "tendermint/PrivKeyEd25519",
            "value": BASE64.encode([seed.as_slice(), public].concat()),
        },
    });
    files::replace(path, format!("{key:#}\n").as_bytes())
}

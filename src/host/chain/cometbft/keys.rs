//! The two keys that the link can name, by their public halves: the shared validator key and a
//! throwaway that is in no validator set, for a node that has to have some key.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;
use serde_json::json;

use crate::base::public_key::TypedKey;
use crate::host::chain::DriverError;
use crate::host::chain::files::{self, blocking};
use crate::host::chain::key_reader::KeyReader;

const OWN_STANDBY_FILE: &str = "standby_priv_validator_key.json";

#[derive(Clone)]
pub struct KeyFiles {
    pub validating: PathBuf,
    pub standby: PathBuf,
}

/// The public halves.
pub struct Keys {
    pub validating: TypedKey,
    pub standby: TypedKey,
}

/// The initial validators of a genesis file, which can be large, where CometBFT or the
/// Cosmos SDK puts them.
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
    pub_key: Option<TypedKey>,
}

/// Where the standby key of a member is that has configured none.
pub fn own_standby_file(state_dir: &Path) -> PathBuf {
    state_dir.join(OWN_STANDBY_FILE)
}

impl Keys {
    pub async fn read(reader: &KeyReader, files: &KeyFiles) -> Result<Keys, DriverError> {
        let read = async |path: &Path| {
            if !exists(path)? {
                return Err(DriverError::file("read the public key from", path, "no such file"));
            }
            reader.cometbft(path).await.map(|key| key.pub_key)
        };
        Ok(Keys { validating: read(&files.validating).await?, standby: read(&files.standby).await? })
    }

    /// As [`Keys::read`], after a throwaway standby key was made where there is none.
    pub async fn prepare(reader: &KeyReader, files: &KeyFiles) -> Result<Keys, DriverError> {
        if !exists(&files.standby)? {
            let path = files.standby.clone();
            blocking(move || make_throwaway_key(&path)).await?;
        }
        Keys::read(reader, files).await
    }

    /// The validator key is there. The standby key, if it is there, is another, and no initial validator of `genesis`
    /// has it.
    pub async fn inspect(reader: &KeyReader, files: &KeyFiles, genesis: PathBuf) -> Result<(), DriverError> {
        if !exists(&files.validating)? {
            let reason = "no such file; put the shared validator key there";
            return Err(DriverError::file("read the validator key", &files.validating, reason));
        }
        if !exists(&files.standby)? {
            return reader.cometbft(&files.validating).await.map(drop);
        }
        let keys = Keys::read(reader, files).await?;
        let standby = files.standby.display();
        let refuse = |what: String| {
            let advice = "remove that file, and a throwaway key is made in its place";
            Err(DriverError::setting("chain.links", format!("the standby key {standby} {what}; {advice}")))
        };
        if keys.validating == keys.standby {
            let validating = files.validating.display();
            return refuse(format!("is the validator key {validating} itself: every standby would sign"));
        }
        let shown = genesis.display().to_string();
        if blocking(move || genesis_validators(&genesis)).await?.contains(&keys.standby) {
            return refuse(format!("belongs to a validator of {shown}: every standby would sign"));
        }
        Ok(())
    }
}

/// The key file in the home of a node that asks baton for its signatures holds another key than `shared`, the file that
/// baton signs with. There need not be one: the node makes itself a throwaway key, and uses it for nothing.
///
/// # Errors
/// It holds the shared key, with which the node could sign by itself; or it cannot be told.
pub async fn check_not_shared(reader: &KeyReader, home: &Path, shared: &Path) -> Result<(), DriverError> {
    let path = home.join(super::KEY_FILE);
    if !exists(&path)? || reader.same(&[shared.to_owned(), path.clone()]).await?.is_empty() {
        return Ok(());
    }
    let reason = "it is the key that baton signs with, and one change of the node's settings makes it sign twice; \
                  move it out of the node's home";
    Err(DriverError::file("take as the node's own key", &path, reason))
}

fn exists(path: &Path) -> Result<bool, DriverError> {
    path.try_exists().map_err(|error| DriverError::file("look for", path, error))
}

/// None when there is no file: whether the node starts without one is its own business.
fn genesis_validators(path: &Path) -> Result<Vec<TypedKey>, DriverError> {
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

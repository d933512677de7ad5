//! `priv_validator_state.json`: at or below the height, round and step in it CometBFT refuses to sign
//! (privval/file.go, `CheckHRS`). Reading it, and raising it; nothing here can lower it. Blocking.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::ids::SignMark;
use crate::host::chain::{DriverError, answer, files};

/// `stepPrecommit`: the last thing that a validator signs in a round.
const STEP_LAST: u32 = 3;

/// The last mark, and with it the signature that CometBFT gives out again when it is asked to sign the
/// very same bytes after a crash. Without one it refuses to sign at the mark itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignState {
    pub mark: SignMark,
    signature: Option<String>,
    signbytes: Option<String>,
}

/// In the order and with the kinds that CometBFT writes.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    height: Value,
    round: u32,
    step: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signbytes: Option<String>,
}

impl SignState {
    /// A state that forbids everything up to `mark` and knows no signature.
    pub fn at(mark: SignMark) -> SignState {
        SignState { mark, signature: None, signbytes: None }
    }

    /// `None` when there is no file.
    pub fn read(path: &Path) -> Result<Option<SignState>, DriverError> {
        let Some(content) = files::read_if_present(path)? else { return Ok(None) };
        let bad = |reason: String| {
            let advice = "restore it, or write a height into it that the key has certainly not signed yet";
            DriverError::file("read the sign state", path, format!("{reason}; {advice}"))
        };
        let OnDisk { height, round, step, signature, signbytes } =
            serde_json::from_slice(&content).map_err(|error| bad(error.to_string()))?;
        let height = answer::as_number(&height).filter(|height| i64::try_from(*height).is_ok());
        let height = height.ok_or_else(|| bad("its height is not a number of 63 bits".to_owned()))?;
        if i32::try_from(round).is_err() || step > STEP_LAST {
            return Err(bad(format!("round {round} or step {step} is out of range")));
        }
        Ok(Some(SignState { mark: SignMark::at_step(height, round, step), signature, signbytes }))
    }

    /// The higher of two; `self`, when they are equal, unless only `other` has the signature.
    pub fn max(self, other: SignState) -> SignState {
        let higher = !self.mark.covers(&other.mark);
        let more_complete = other.mark == self.mark && self.signature.is_none();
        if higher || more_complete { other } else { self }
    }

    pub fn write(&self, path: &Path) -> Result<(), DriverError> {
        let on_disk = OnDisk {
            height: Value::String(self.mark.height.to_string()),
            round: self.mark.round,
            step: self.mark.step,
            signature: self.signature.clone(),
            signbytes: self.signbytes.clone(),
        };
        let content = serde_json::to_vec_pretty(&on_disk).map_err(|error| DriverError::file("write", path, error))?;
        files::replace(path, &content)
    }
}

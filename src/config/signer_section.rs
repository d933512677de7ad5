//! The `[signer]` section: the validator's key where no chain node has it, and the chain node that asks for signatures.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::file::Document;
use super::key_list::KEYS;
use super::{DriverKind, Signer};
use crate::base::privval_address::PrivvalAddress;
use crate::base::signing::Custody;

/// The socket of a chain node that is named nowhere, below `member.run_dir`.
const USUAL_SOCKET: &str = "privval.sock";
/// Each is a connection that the holder keeps, and may ask for every vote.
const SENTRIES_MAX: usize = 16;
/// What means nothing without key links.
const OF_LINKS: [&str; 3] = ["chain.on_halt", "chain.halt_after", "chain.keys_on_tmpfs"];

/// `None` when the holder's chain node has the key.
pub(super) fn signer(doc: &Document, driver: DriverKind) -> Result<Option<Signer>, ConfigError> {
    let custodies = [Custody::Links, Custody::Signer].map(|custody| (custody.as_str(), custody));
    match doc.choice("chain.custody", &custodies)?.unwrap_or_default() {
        Custody::Links => {
            let mut keys = KEYS.iter().map(|key| key.path).filter(|path| path.starts_with("signer."));
            keys.find(|key| doc.entry(key).is_some()).map_or(Ok(None), |key| {
                Err(doc.bad(key, "means nothing without chain.custody = \"signer\"; set that or remove it"))
            })
        }
        Custody::Signer if driver != DriverKind::CometBft => {
            let problem =
                "\"signer\" is for driver cometbft alone: no other chain node asks a remote signer; use \"links\"";
            Err(doc.bad("chain.custody", problem))
        }
        Custody::Signer => {
            let links = (doc.count("chain.links") > 0).then_some("chain.links[0]");
            if let Some(key) = links.or(OF_LINKS.into_iter().find(|key| doc.entry(key).is_some())) {
                let problem =
                    "means nothing with chain.custody = \"signer\", where no chain node has the key; remove it";
                return Err(doc.bad(key, problem));
            }
            let (key, node) = (doc.required_key_path("signer.key")?, node(doc)?);
            let sentries = sentries(doc, &node)?;
            Ok(Some(Signer { key, node, sentries }))
        }
    }
}

/// Where the chain node waits for its signer.
fn node(doc: &Document) -> Result<PathBuf, ConfigError> {
    let key = "signer.node";
    let Some(address) = doc.text(key)? else {
        return Ok(doc.required_path("member.run_dir")?.join(USUAL_SOCKET));
    };
    let path = address.strip_prefix("unix://").map(Path::new).filter(|path| path.is_absolute());
    path.map(Path::to_owned).ok_or_else(|| {
        let problem =
            format!("{address:?} is not unix:// and an absolute path; write \"unix:///run/baton/privval.sock\"");
        doc.bad(key, problem)
    })
}

/// Chain nodes elsewhere that ask for signatures.
fn sentries(doc: &Document, node: &Path) -> Result<Vec<PrivvalAddress>, ConfigError> {
    let key = "signer.sentries";
    let mut sentries = Vec::new();
    for address in doc.texts(key)?.unwrap_or_default() {
        let sentry: PrivvalAddress =
            address.parse().map_err(|bad| doc.bad(key, format!("{bad}; write \"tcp://10.0.0.5:26659\"")))?;
        if sentries.contains(&sentry) {
            return Err(doc.bad(key, format!("{address:?} stands there twice: a node has one signer at a time")));
        }
        if sentry == PrivvalAddress::Unix(node.to_owned()) {
            return Err(doc.bad(key, format!("{address:?} is signer.node already, the node that baton runs")));
        }
        sentries.push(sentry);
    }
    if sentries.len() > SENTRIES_MAX {
        return Err(doc.bad(key, format!("has {} addresses; at most {SENTRIES_MAX} are served", sentries.len())));
    }
    Ok(sentries)
}

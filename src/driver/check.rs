//! What `baton check` can say of a host's chain node before anything runs, beyond the configuration itself.

use anyhow::Result;

use super::links::HostLinks;
use super::{Driver, key_reader};
use crate::config::Config;

/// As [`super::prepare`] looks at the command, the links, the keys and the node's own files, and changes nothing. What it
/// returns are warnings, one a line.
///
/// # Errors
/// For which `baton run` would refuse to start.
pub async fn check(config: &Config) -> Result<Vec<String>> {
    let Some(chain) = &config.chain else { return Ok(Vec::new()) };
    let driver = Driver::new(chain, &config.state_dir, key_reader()?)?;
    if !chain.home.exists() {
        let mut warnings = driver.inspect_settings().await?;
        warnings.push(format!(
            "chain.home {} is not there: what the chain node's files in it say is not checked, and baton run needs it",
            chain.home.display()
        ));
        return Ok(warnings);
    }
    HostLinks::of(&config.run_dir, chain, driver.links()).check()?;
    Ok(driver.inspect().await?)
}

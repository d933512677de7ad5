//! What a host's chain node can be refused or warned of before anything runs, beyond the configuration itself. `baton
//! check` and `baton run` look at it in one way.

use anyhow::{Result, anyhow};

use super::links::HostLinks;
use super::{Driver, key_reader};
use crate::config::{Chain, Config};
use crate::host::upgrade::Upgrades;

/// As [`super::prepare`] looks at the command, the links, the keys and the node's own files, and changes nothing. What
/// it returns are warnings, one a line.
///
/// # Errors
/// For which `baton run` would refuse to start.
pub async fn check(config: &Config) -> Result<Vec<String>> {
    match &config.chain {
        None => Ok(Vec::new()),
        Some(chain) if chain.home.exists() => look(config, chain).await.map(|(_, _, warnings)| warnings),
        Some(chain) => {
            check_upgrades(chain)?;
            let driver = Driver::new(chain, &config.state_dir, key_reader()?)?;
            Ok(driver.inspect_without_home().await?)
        }
    }
}

/// What works with the chain node, and the warnings, one a line. Changes nothing.
///
/// # Errors
/// Why it would not work.
pub(super) async fn look(config: &Config, chain: &Chain) -> Result<(Driver, HostLinks, Vec<String>)> {
    check_upgrades(chain)?;
    let driver = Driver::new(chain, &config.state_dir, key_reader()?)?;
    let links = HostLinks::of(&config.run_dir, chain, driver.links());
    links.check()?;
    let warnings = driver.inspect().await?;
    Ok((driver, links, warnings))
}

fn check_upgrades(chain: &Chain) -> Result<()> {
    let Some(settings) = &chain.upgrade else { return Ok(()) };
    Upgrades::new(settings.clone()).check().map_err(|error| anyhow!("[upgrade] {error}"))
}

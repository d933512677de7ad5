//! Which links are switched, and where they are. With `keys_on_tmpfs` a link of the chain node's home points
//! for good to one in `run_dir`, and that one is switched: a reboot empties `run_dir`, and leaves no key.

use std::path::Path;

use anyhow::{Context, Result};

use crate::base::guard_frame::LinkSpec;
use crate::config::Chain;
use crate::host::key_links::KeyLinks;

/// The links of one host.
pub(super) struct HostLinks {
    /// What guard and coordinator switch.
    pub switched: Vec<LinkSpec>,
    /// From the home to the switched links; their standby target is the only one they ever get.
    routes: Vec<LinkSpec>,
}

impl HostLinks {
    /// `links` are the chain driver's.
    pub(super) fn of(run_dir: &Path, chain: &Chain, links: &[LinkSpec]) -> HostLinks {
        if !chain.keys_on_tmpfs {
            return HostLinks { switched: links.to_vec(), routes: Vec::new() };
        }
        let via = |spec: &LinkSpec| {
            let name = spec.link.strip_prefix(&chain.home).unwrap_or(&spec.link).to_string_lossy().replace('/', "-");
            run_dir.join("links").join(name)
        };
        HostLinks {
            switched: links.iter().map(|spec| LinkSpec { link: via(spec), ..spec.clone() }).collect(),
            routes: links.iter().map(|spec| LinkSpec { standby: Some(via(spec)), ..spec.clone() }).collect(),
        }
    }

    /// # Errors
    /// Something that is no link stands in a link's place. Nothing was changed.
    pub(super) fn check(&self) -> Result<()> {
        KeyLinks::new(self.routes.clone())?.check_places()?;
        let switched = KeyLinks::new(self.switched.clone())?;
        switched.check_places()?;
        Ok(switched.check_keys()?)
    }

    /// Makes the fixed links. They lead to no key before the switched ones do.
    pub(super) fn lay_routes(&self) -> Result<()> {
        if let Some(dir) = self.switched.first().and_then(|spec| spec.link.parent()).filter(|_| !self.routes.is_empty())
        {
            make_private_dir(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        Ok(KeyLinks::new(self.routes.clone())?.to_standby()?)
    }
}

fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn links_of(config: &Config) -> HostLinks {
        let chain = config.chain.as_ref().unwrap();
        HostLinks::of(&config.run_dir, chain, &chain.links)
    }

    fn config(dir: &Path) -> Config {
        let text = std::fs::read_to_string("tests/data/design-example.toml").unwrap();
        let file = dir.join("baton.toml");
        std::fs::write(&file, text).unwrap();
        let mut config = Config::load(&file, std::iter::empty()).unwrap();
        let chain = config.chain.as_mut().unwrap();
        chain.keys_on_tmpfs = true;
        chain.home = dir.join("home");
        for (spec, key) in chain.links.iter_mut().zip(["validator_key.json", "node_key.json"]) {
            *spec = LinkSpec { link: dir.join("home").join(key), validating: dir.join(key), standby: None };
        }
        config.run_dir = dir.join("run");
        config
    }

    #[test]
    fn after_a_reboot_no_link_of_the_home_leads_to_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        std::fs::create_dir(dir.path().join("home")).unwrap();
        let links = links_of(&config);
        links.lay_routes().unwrap();
        let home_link = dir.path().join("home/validator_key.json");
        let switched = &links.switched[0];
        assert_eq!(std::fs::read_link(&home_link).unwrap(), switched.link);

        std::fs::write(&switched.validating, "key").unwrap();
        std::os::unix::fs::symlink(&switched.validating, &switched.link).unwrap();
        assert_eq!(std::fs::read_to_string(&home_link).unwrap(), "key", "the switched link decides");
        std::fs::remove_dir_all(dir.path().join("run")).unwrap();
        assert!(std::fs::read_to_string(&home_link).is_err());
    }

    #[test]
    fn without_tmpfs_the_links_of_the_home_are_switched_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.chain.as_mut().unwrap().keys_on_tmpfs = false;
        let links = links_of(&config);
        assert_eq!(links.switched, config.chain.unwrap().links);
        assert!(links.routes.is_empty());
    }
}

//! Which Docker engine a network runs on, and which of the two programs called compose is there.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::answers;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// What DOCKER_HOST said when the network was made: later commands go to the same engine, wherever they are given.
    host: Option<String>,
    compose: Compose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Compose {
    /// `docker compose`, version 2
    Plugin,
    /// `docker-compose`, 1.28 or later
    Program,
}

impl Engine {
    /// # Errors
    /// No engine answers, or there is no compose.
    pub fn find() -> Result<Engine> {
        let host = std::env::var("DOCKER_HOST").ok();
        let mut version = Command::new("docker");
        let version = version.args(["version", "--format", "{{.Server.Version}}"]).output().context(
            "run docker: install its client (Debian: docker.io), or leave `--on compose` away for plain processes",
        )?;
        if !version.status.success() {
            let said = String::from_utf8_lossy(&version.stderr);
            bail!("no Docker engine answers; start one, or set DOCKER_HOST: {}", said.trim());
        }
        let program = |name: &str, args: &[&str]| {
            let mut command = Command::new(name);
            command.args(args);
            answers(command)
        };
        let compose = if program("docker", &["compose", "version"]) {
            Compose::Plugin
        } else if program("docker-compose", &["version"]) {
            Compose::Program
        } else {
            bail!("neither `docker compose` (version 2) nor `docker-compose` (1.28 or later) is there: install one")
        };
        Ok(Engine { host, compose })
    }

    /// For networks that are laid out and never started.
    #[cfg(test)]
    pub fn nowhere() -> Engine {
        Engine { host: None, compose: Compose::Program }
    }

    pub fn docker(&self) -> Command {
        self.at("docker")
    }

    pub fn compose(&self) -> Command {
        match self.compose {
            Compose::Program => self.at("docker-compose"),
            Compose::Plugin => {
                let mut command = self.at("docker");
                command.arg("compose");
                command
            }
        }
    }

    fn at(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        match &self.host {
            Some(host) => command.env("DOCKER_HOST", host),
            None => command.env_remove("DOCKER_HOST"),
        };
        command
    }
}

//! Finds the programs that a network is made of, beside the own one, and has cargo build them when it runs us. Called
//! when a network is laid out.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::chains::cometbft;
use crate::net::{ChainKind, Programs};

/// Where the programs are; those of baton are built first when this runs under cargo.
pub fn find_programs(chain: ChainKind) -> Result<Programs> {
    let folder = own_folder()?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        build(&PathBuf::from(cargo), &folder, None)?;
    }
    let beside = |name: &str| {
        let file = folder.join(name);
        if !file.is_file() {
            bail!("{} is missing: build it with `cargo build --release --workspace`", file.display());
        }
        Ok(file)
    };
    beside("baton-guard")?;
    let chain_node = match chain {
        ChainKind::Sim => beside("simchain")?,
        ChainKind::Cometbft => cometbft::find()?,
    };
    let stepped_clock = beside("libstepped_clock.so")?;
    Ok(Programs { localnet: beside("localnet")?, baton: beside("baton")?, chain_node, stepped_clock })
}

/// The static programs that go into an image, and no host's libraries; built first when this runs under cargo.
pub fn find_static_programs() -> Result<Programs> {
    let folder = own_folder()?;
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    if let Some(cargo) = std::env::var_os("CARGO") {
        build(&PathBuf::from(cargo), &folder, Some(&triple))?;
    }
    let profile = folder.file_name().context("the folder of the executable has no name")?;
    let target = folder.parent().context("the profile folder has no parent")?;
    let statics = target.join(&triple).join(profile);
    for name in ["baton", "baton-guard", "baton-signer", "simchain"] {
        if !statics.join(name).is_file() {
            bail!(
                "{} is missing: build it with `rustup target add {triple}`, musl's C compiler (Debian: musl-tools) and \
                 `cargo build --release --locked --target {triple} -p batond -p localnet --bins`",
                statics.join(name).display()
            );
        }
    }
    let nowhere = PathBuf::new();
    Ok(Programs {
        localnet: folder.join("localnet"),
        baton: statics.join("baton"),
        chain_node: "/bin/simchain".into(),
        stepped_clock: nowhere,
    })
}

/// Where this program and those built with it are.
fn own_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the own executable")?;
    // A test's executable lies in `deps`, one folder below the programs.
    let mut folder = own.parent().context("the executable has no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("`deps` has no folder above")?;
    }
    Ok(folder.to_path_buf())
}

/// Builds baton's programs into `folder`, which is `TARGET/PROFILE`.
fn build(cargo: &Path, folder: &Path, triple: Option<&str>) -> Result<()> {
    let profile = folder.file_name().and_then(|name| name.to_str()).context("the target folder has no name")?;
    let target = folder.parent().context("the profile folder has no parent")?;
    let profile = if profile == "debug" { "dev" } else { profile };
    let mut command = Command::new(cargo);
    // `cargo run` describes this package to its child in these. Build scripts (ring's) watch them and would have
    // cargo build again whatever depends on ring.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command.args(["build", "--locked", "--profile", profile, "-p", "batond", "-p", "localnet"]);
    match triple {
        // A library to be preloaded cannot be static.
        Some(triple) => command.args(["--bins", "--target", triple]),
        None => command.args(["-p", "stepped-clock"]),
    };
    command
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        let static_too = triple.map(|triple| format!(" for {triple} (`rustup target add {triple}`; musl-tools)"));
        bail!("build baton and baton-guard{}: {status}", static_too.unwrap_or_default());
    }
    Ok(())
}

//! What a process of the chain node says of its home and of the place of its key: its arguments, its variables and its
//! working directory, of a command that is to run or of a process that runs. Nothing here starts or signals anything.
//!
//! Each driver holds that against `chain.home` and `chain.links` in `ChainDriver::misplaced`; the rules of the generic
//! driver and what drivers share for theirs are here.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::DriverError;
use crate::base::processes::read_at_once;
use crate::config::Chain;

/// Shells, of which `-c TEXT` is looked into.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];
/// What follows one of these has paths of another file system, or none of this host's.
const CONTAINERS: [&str; 8] =
    ["docker", "podman", "nerdctl", "lxc", "lxc-execute", "systemd-nspawn", "chroot", "bwrap"];
/// Options that may name the validator's key without signing with it as the node's identity.
const KEY_OPTIONS_ALLOWED: [&str; 2] = ["authorized_voter", "vote_account"];
/// Longest script that is looked into.
const SCRIPT_MAX: u64 = 64 << 10;

/// One process, or the command of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// Where its `/` is seen from here, for one with another root.
    pub root: Option<PathBuf>,
    /// It runs, so that its own name says which program it is; a command may become another one.
    pub runs: bool,
}

/// Where the node was told something that leads past the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    CommandLine,
    Environment,
    Variable(String),
}

/// What would lead the node past the links, in words that name both places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    pub told: Told,
    pub what: String,
}

impl Misplaced {
    pub fn by_command(what: String) -> Misplaced {
        Misplaced { told: Told::CommandLine, what }
    }

    /// As an error about the configured command.
    pub(super) fn of_setting(self) -> DriverError {
        match self.told {
            Told::CommandLine => DriverError::setting("chain.command", self.what),
            Told::Environment => DriverError::setting("the environment", self.what),
            Told::Variable(name) => DriverError::setting(format!("the variable {name}"), self.what),
        }
    }

    /// As a sentence about a process that runs.
    pub(super) fn of_process(self) -> String {
        match self.told {
            Told::CommandLine => self.what,
            Told::Environment => format!("in its environment, {}", self.what),
            Told::Variable(name) => format!("by the variable {name}, {}", self.what),
        }
    }
}

impl Process {
    /// As the guard would start it: with the configured variables and those of this process.
    pub fn configured(chain: &Chain) -> Process {
        let inherited = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value)));
        let mut env: BTreeMap<String, String> =
            inherited.map(|(key, value)| (key, value.to_string_lossy().into_owned())).collect();
        env.extend(chain.env.clone());
        Process { argv: looked_into(&chain.command), env, cwd: chain.home.clone(), root: None, runs: false }
    }

    /// One that runs, by what `/proc` has of it; what may not be read is empty, and says nothing.
    pub fn running(pid: u32) -> Option<Process> {
        let at = |what: &str| PathBuf::from(format!("/proc/{pid}/{what}"));
        let strings = |content: Vec<u8>| -> Vec<String> {
            let content = content.strip_suffix(b"\0").unwrap_or(&content);
            let words = content.split(|byte| *byte == 0);
            words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        let argv = strings(read_at_once(at("cmdline")).ok().filter(|content| !content.is_empty())?);
        let env = read_at_once(at("environ")).map(strings).unwrap_or_default();
        let pair = |line: &String| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let own_mounts = std::fs::read_link("/proc/self/ns/mnt").ok();
        let elsewhere = std::fs::read_link(at("ns/mnt"))
            .is_ok_and(|mounts| own_mounts.is_some_and(|own| own != mounts))
            || std::fs::read_link(at("root")).is_ok_and(|root| root != Path::new("/"));
        Some(Process {
            argv: looked_into(&argv),
            env: env.iter().filter_map(pair).collect(),
            cwd: std::fs::read_link(at("cwd")).unwrap_or_default(),
            root: elsewhere.then(|| at("root")),
            runs: true,
        })
    }

    /// The text of a script that the configured command names; `None` for a program, and for one that cannot be read.
    pub(super) fn of_script(chain: &Chain) -> Option<Process> {
        let program = chain.home.join(chain.command.first().filter(|program| program.contains('/'))?);
        let mut text = String::new();
        std::fs::File::open(program).ok()?.take(SCRIPT_MAX).read_to_string(&mut text).ok()?;
        let body = text.strip_prefix("#!")?;
        let lines = body.lines().skip(1).filter(|line| !line.trim_start().starts_with('#'));
        let argv = std::iter::once(chain.command[0].clone()).chain(lines.flat_map(words)).collect();
        Some(Process { argv, ..Process::configured(chain) })
    }

    /// The file name of its program.
    pub fn program(&self) -> &str {
        let first = self.argv.first().map_or("", String::as_str);
        first.rsplit('/').next().unwrap_or_default()
    }

    /// What it runs is in a text, or said by it later.
    pub(super) fn is_shell(&self) -> bool {
        SHELLS.contains(&self.program())
    }

    /// Its paths mean something to it that they do not mean here.
    fn is_container(&self) -> bool {
        !self.runs && self.argv.iter().any(|word| CONTAINERS.contains(&word.rsplit('/').next().unwrap_or_default()))
    }

    /// What follows each of its options `name`, which is written with `_`: `--name value` and `--name=value`, with one
    /// dash or two, and with `-` for `_`. With the option as it was written.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut words = self.argv.iter().skip(1);
        std::iter::from_fn(move || {
            loop {
                let word = words.next()?;
                let Some(rest) = word.strip_prefix('-') else { continue };
                let rest = rest.strip_prefix('-').unwrap_or(rest);
                let (flag, value) = rest.split_once('=').map_or((rest, None), |(flag, value)| (flag, Some(value)));
                if flag.replace('-', "_") != name {
                    continue;
                }
                let written = &word[..word.len() - rest.len() + flag.len()];
                // The next one may be an option itself, and stays to be looked at.
                match value.or_else(|| words.clone().next().map(String::as_str)) {
                    Some(value) => return Some((written, value)),
                    None => continue,
                }
            }
        })
    }

    /// The first variable of these names that is set and not empty; `NAME=value` among its arguments counts before.
    pub fn variable<'a>(&'a self, names: &[&str]) -> Option<(&'a str, &'a str)> {
        let assigned = self.argv.iter().filter_map(|word| word.split_once('='));
        let set = self.env.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        assigned.chain(set).find(|(key, value)| names.contains(key) && !value.is_empty())
    }

    /// Whether what it calls `value` is `place` of this host. What only a shell could tell counts as that.
    pub fn means(&self, value: &str, place: &Path) -> bool {
        if value.contains(['$', '`', '~']) || value.is_empty() || self.is_container() {
            return true;
        }
        let told = self.cwd.join(value);
        match (&self.root, told.strip_prefix("/")) {
            // What cannot be seen from here proves nothing.
            (Some(root), Ok(below)) => {
                let told = root.join(below);
                std::fs::metadata(&told).is_err() || is_same_place(&told, place)
            }
            (Some(_), Err(_)) | (None, _) => is_same_place(&told, place),
        }
    }

    /// The mismatch, if there is one, of the home that it is told: by an option, else by a variable, else by the
    /// program's own habit, which is a folder of the user's home.
    pub fn other_home(
        &self,
        home: &Path,
        options: &[&str],
        variables: &[&str],
        habit: Option<&str>,
    ) -> Option<Misplaced> {
        let mut told = false;
        for (written, value) in options.iter().flat_map(|name| self.values(name)) {
            told = true;
            if !self.means(value, home) {
                return Some(Misplaced::by_command(is_not_home(&format!("{written} {value}"), home)));
            }
        }
        if told {
            return None;
        }
        if let Some((name, value)) = self.variable(variables) {
            let is_other = !self.means(value, home);
            let what = is_not_home(&format!("{name} {value}"), home);
            return is_other.then_some(Misplaced { told: Told::Environment, what });
        }
        let usual = format!("{}/{}", self.env.get("HOME")?, habit?);
        let is_other = !self.means(&usual, home);
        let told = format!("{} is told no home and uses {usual}, which", self.program());
        is_other.then(|| Misplaced::by_command(is_not_home(&told, home)))
    }
}

fn is_not_home(told: &str, home: &Path) -> String {
    let home = home.display();
    format!("{told} is not chain.home = {home}; the links lie below chain.home, so they would decide nothing")
}

/// One file or folder, by whichever path; of what is not there, one path.
fn is_same_place(one: &Path, other: &Path) -> bool {
    if let (Ok(one), Ok(other)) = (std::fs::metadata(one), std::fs::metadata(other)) {
        return (one.dev(), one.ino()) == (other.dev(), other.ino());
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.components().collect());
    real(one) == real(other)
}

/// `argv`, and the words of the text that a shell among it is given.
fn looked_into(argv: &[String]) -> Vec<String> {
    let mut all = argv.to_vec();
    let is_shell = |word: &String| SHELLS.contains(&word.rsplit('/').next().unwrap_or_default());
    if let Some(text) = argv.windows(3).find(|three| is_shell(&three[0]) && three[1] == "-c").map(|three| &three[2]) {
        all.extend(words(text));
    }
    all
}

/// Those of a shell's text, roughly: quotes are dropped, what a shell would put in stays as it is written, and so does
/// a relative path, behind a `$`: the text may have changed to another directory.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let ends_word = |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '(' | ')' | '<' | '>');
    let words = text.split(ends_word).filter(|word| !word.is_empty() && *word != "\\");
    let known = |value: &str| value.starts_with(['/', '-', '$']) || value.contains("://");
    words.map(move |word| {
        let word = word.replace(['"', '\''], "");
        match word.split_once('=') {
            Some((name, value)) if !known(value) => format!("{name}=${value}"),
            None if !known(&word) => format!("${word}"),
            Some(_) | None => word,
        }
    })
}

/// The rules that need no knowledge of the chain, and those of the nodes that docs/chains.md describes: the command
/// does not name the validator's key past its link, and its identity, node key and data directory are those of the
/// links.
pub fn past_links(chain: &Chain, process: &Process) -> Option<Misplaced> {
    let first = chain.links.first()?;
    if let Some(named) = names_key(process, &first.validating) {
        let (key, link) = (first.validating.display(), first.link.display());
        let what = format!(
            "{named} is {key}, the validator key itself: the node would sign whatever its link says; name the link {link}"
        );
        return Some(Misplaced::by_command(what));
    }
    if let Some((written, _)) = process.values("nodekeyhex").next() {
        let what = format!("{written} gives the node a key past link {}; remove it", first.link.display());
        return Some(Misplaced::by_command(what));
    }
    let is_link = |value: &str| chain.links.iter().any(|spec| process.means_link(value, &spec.link));
    // `-i` and `--identity` mean something else to other programs.
    let solana =
        process.argv.iter().any(|word| ["solana-validator", "agave-validator"].iter().any(|name| word.ends_with(name)));
    let names: &[&str] = if solana { &["identity", "i", "nodekey"] } else { &["nodekey"] };
    let mut keys = names.iter().flat_map(|name| process.values(name)).peekable();
    if keys.peek().is_some() {
        let (written, value) = keys.find(|(_, value)| !is_link(value))?;
        let what = format!(
            "{written} {value} is none of chain.links, whose first is {}: the links would decide nothing; name the link",
            first.link.display()
        );
        return Some(Misplaced::by_command(what));
    }
    let below = |value: &str| first.link.ancestors().skip(1).any(|folder| process.means(value, folder));
    let (written, value) = process.values("datadir").find(|(_, value)| !below(value))?;
    let what = format!(
        "{written} {value} has not the link {} in it (chain.home = {}), so the links would decide nothing",
        first.link.display(),
        chain.home.display()
    );
    Some(Misplaced::by_command(what))
}

/// The argument by which a command names the file `key`, which only a link may name.
fn names_key<'a>(process: &'a Process, key: &Path) -> Option<&'a str> {
    let mut before = "";
    for word in process.argv.iter().skip(1) {
        let (option, value) = word.split_once('=').unwrap_or((before, word));
        let allowed = KEY_OPTIONS_ALLOWED.contains(&option.trim_start_matches('-').replace('-', "_").as_str());
        if value.starts_with('/') && !allowed && Path::new(value) == key {
            return Some(word);
        }
        before = word;
    }
    None
}

impl Process {
    /// As `means`, of a link: what it leads to changes, so that its place counts and not the file.
    fn means_link(&self, value: &str, link: &Path) -> bool {
        let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        let told = self.cwd.join(value);
        let of_shell = value.contains(['$', '`', '~']) || self.is_container();
        of_shell
            || told.file_name() == link.file_name()
                && folder(&told).to_str().is_none_or(|folder_told| self.means(folder_told, &folder(link)))
    }
}

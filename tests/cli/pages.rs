//! `baton completions` and `baton man`: every command and option is in both, and `groff` has nothing to say to the
//! pages.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use crate::kit::program::baton;

const GUARD: &str = env!("CARGO_BIN_EXE_baton-guard");
const SIGNER: &str = env!("CARGO_BIN_EXE_baton-signer");

fn said(args: &[&str]) -> String {
    let output = baton(args).stdin(Stdio::null()).output().expect("the baton program starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The commands of `baton ARGS --help`, and its options.
fn help(args: &[&str]) -> (Vec<String>, Vec<String>) {
    let help = said(&[args, &["--help"]].concat());
    let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let first = |line: &str| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned);
    let commands = commands.lines().filter_map(first).filter(|name| !name.is_empty() && name != "help").collect();
    let options = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    let bare = |word: &str| word.split(['=', '[', ',', '.', ';', ')']).next().unwrap_or_default().to_owned();
    (commands, options.map(bare).collect())
}

fn pages() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let to = dir.path().join("man");
    let line = said(&["man", "--dir", to.to_str().expect("UTF-8")]);
    let entries = fs::read_dir(&to).expect("it was made").map(|entry| entry.expect("an entry").path());
    let pages: BTreeMap<String, String> = entries
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("a page"))
        })
        .collect();
    assert_eq!(line, format!("wrote {} pages to {}\n", pages.len(), to.display()));
    pages
}

#[test]
fn every_command_has_a_page_with_all_its_options() {
    let pages = pages();
    let mut open = vec![Vec::new()];
    let mut expected = vec!["baton-guard.8".to_owned(), "baton-signer.8".to_owned()];
    while let Some(words) = open.pop() {
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let (commands, options) = help(&args);
        let name = [&["baton"], &args[..]].concat().join("-") + ".1";
        let page = pages.get(&name).unwrap_or_else(|| panic!("no {name}")).replace("\\-", "-");
        for option in options {
            assert!(page.contains(&option), "{name} has no {option}:\n{page}");
        }
        open.extend(commands.into_iter().map(|command| [&words[..], &[command]].concat()));
        expected.push(name);
    }
    expected.sort();
    assert!(expected.len() > 20, "{expected:?}");
    assert_eq!(pages.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(said(&["man", "cert", "issue"]), pages["baton-cert-issue.1"]);
    assert_eq!(said(&["man"]), pages["baton.1"]);
    for heading in ["EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"] {
        assert!(pages["baton.1"].contains(heading), "{heading}");
    }
}

/// What `program --help` says, and its options.
fn usage(program: &str) -> (String, Vec<String>) {
    let output = Command::new(program).arg("--help").output().expect("it starts");
    let usage = String::from_utf8(output.stdout).expect("UTF-8");
    let words = usage.split([' ', '\n', ';', '|', '[', ']']).filter(|word| word.starts_with("--"));
    let options = words.map(str::to_owned).collect();
    (usage, options)
}

/// The pages of guard and signer are written by hand, since neither has a parser that could tell.
#[test]
fn the_page_of_the_signer_has_what_its_usage_has() {
    let (usage, options) = usage(SIGNER);
    let page = pages()["baton-signer.8"].replace("\\-", "-");
    assert_eq!(options, ["--json-lines", "--key", "--mark"], "the usage has changed: {usage}");
    for option in options {
        assert!(page.contains(&option), "{option}: {page}");
    }
}

#[test]
fn the_page_of_the_guard_has_what_its_usage_has() {
    let (usage, options) = usage(GUARD);
    let page = pages()["baton-guard.8"].replace("\\-", "-");
    assert_eq!(options, ["--json-lines", "--socket", "--format"], "the usage has changed: {usage}");
    assert!(page.contains("--socket"), "{page}");
    assert!(page.contains("public-key --format near|cometbft FILE"), "{page}");
}

#[test]
fn a_page_that_is_not_there_is_one_line() {
    let output = baton(&["man", "cert", "isue"]).output().expect("the baton program starts");
    let line = "baton: man: baton has no command \"cert isue\"; baton --help lists them\n";
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), (line, Some(2)));
}

#[test]
fn every_shell_gets_a_script_with_all_commands() {
    let (commands, _) = help(&[]);
    assert!(commands.contains(&"handover".to_owned()), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell} does not know {command}");
        }
    }
}

/// `COMP_WORDS` as a shell would have them after `baton han`.
#[test]
fn bash_completes_a_command() {
    let script = said(&["completions", "bash"])
        + "\nCOMP_WORDS=(baton han); COMP_CWORD=1; _baton baton han baton; echo \"${COMPREPLY[@]}\"\n";
    let output = Command::new("bash").args(["-euc", &script]).stdin(Stdio::null()).output().expect("bash starts");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "handover\n");
}

#[test]
#[ignore = "needs groff; see README"]
fn groff_has_nothing_to_say_to_any_page() {
    for (name, page) in pages() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), &page).expect("a page");
        let mut groff = Command::new("groff");
        groff.args(["-ww", "-man", "-Tascii", "-P-cbou"]).arg(file.path());
        let output = groff.output().expect("groff starts; install it (apt-get install groff)");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("SYNOPSIS") && shown.contains("SEE ALSO"), "{name}: {shown}");
    }
}

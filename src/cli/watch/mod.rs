//! `baton status --watch`: asks the coordinator of this host again and again, by the calls of `status` and `history`,
//! and shows the answers on the terminal until a key ends it. What it looks like is in `view`; this file asks, listens
//! and puts the terminal back.

mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::client::Client;
use super::ends::{Ends, end_by};
use super::reach::{Place, Reach};
use super::{Failure, runtime};
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{Move, StatusResponse};
use crate::config::units;

use view::{Trouble, View};

const EVERY_MIN: Duration = Duration::from_millis(200);
const EVERY_MAX: Duration = Duration::from_secs(60);

/// How often to ask: [`EVERY_MIN`] to [`EVERY_MAX`], both included.
pub(super) fn every(text: &str) -> Result<Duration, String> {
    let every = units::duration(text)?;
    let fits = (EVERY_MIN..=EVERY_MAX).contains(&every);
    if fits { Ok(every) } else { Err(format!("{text} is not from 200ms to 1m")) }
}

/// Shows the cluster until a key or a signal ends it; the terminal is then as it was.
pub(super) fn watch(reach: &Reach, every: Duration) -> Result<ExitCode, Failure> {
    if !io::stdout().is_terminal() {
        let error = anyhow!("status --watch: standard output is no terminal; use baton status without --watch");
        return Err(Failure::BadInput(error));
    }
    let kind = std::env::var("TERM").unwrap_or_default();
    if kind.is_empty() || kind == "dumb" {
        let error = anyhow!("status --watch: TERM={kind:?} is a terminal of lines; use baton status without --watch");
        return Err(Failure::BadInput(error));
    }
    let place = reach.place()?;
    let left = runtime()?.block_on(async {
        let mut client = Client::connect(place.clone()).await?;
        let first = ask(&mut client).await?;
        drop(client);
        show(place, every, first).await
    })?;
    match left {
        Left::ByKey => {}
        Left::BySignal(signal) => end_by(signal),
    }
    Ok(ExitCode::SUCCESS)
}

enum Left {
    ByKey,
    BySignal(SignalKind),
}

type Answers = (StatusResponse, Vec<Move>);

async fn ask(client: &mut Client) -> Result<Answers, Failure> {
    Ok((client.status().await?, client.history().await?))
}

async fn show(place: Place, every: Duration, (status, moves): Answers) -> Result<Left, Failure> {
    let failed = |error: io::Error| Failure::Failed(anyhow!("status --watch: the terminal: {error}"));
    let mut ends = Ends::catch().map_err(failed)?;
    let mut answers = asking(place, every);
    let mut screen = Screen::open().map_err(failed)?;
    let mut events = listening();
    let now = WallTime::now();
    let mut view = View { status, moves, answered: now, now, trouble: None, every, colour: wants_colour() };
    loop {
        let drawn = screen.0.draw(|frame| view::draw(&view, frame.area(), frame.buffer_mut()));
        drawn.map_err(failed)?;
        tokio::select! {
            answer = answers.recv() => take(&mut view, answer.ok_or_else(|| failed(gone("who asks")))?, WallTime::now()),
            event = events.recv() => {
                let event = event.unwrap_or_else(|| Err(gone("who listens"))).map_err(failed)?;
                if leaves(&event) {
                    return Ok(Left::ByKey);
                }
            }
            signal = ends.next() => return Ok(Left::BySignal(signal)),
        }
    }
}

/// A part of this program has panicked, and said why.
fn gone(who: &str) -> io::Error {
    io::Error::other(format!("{who} is gone"))
}

/// What could not be asked leaves the last answer on the screen, and says so.
fn take(view: &mut View, answer: Result<Answers, Failure>, now: WallTime) {
    view.now = now;
    match answer {
        Ok((status, moves)) => (view.status, view.moves, view.answered, view.trouble) = (status, moves, now, None),
        Err(failure) => {
            let since = view.trouble.as_ref().map_or(now, |trouble| trouble.since);
            view.trouble = Some(Trouble { since, reason: failure.told().0 });
        }
    }
}

/// Asks until nobody listens. After a failure it connects anew.
fn asking(place: Place, every: Duration) -> mpsc::Receiver<Result<Answers, Failure>> {
    let (told, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connected: Option<Client> = None;
        loop {
            ticks.tick().await;
            let client = match connected.take() {
                Some(client) => Ok(client),
                None => Client::connect(place.clone()).await,
            };
            let answer = match client {
                Ok(mut client) => {
                    let answer = ask(&mut client).await;
                    connected = answer.is_ok().then_some(client);
                    answer
                }
                Err(failure) => Err(failure),
            };
            if told.send(answer).await.is_err() {
                return;
            }
        }
    });
    answers
}

/// Keys and changes of size. The thread waits in a read that nothing else ends, and ends with this process.
fn listening() -> mpsc::Receiver<io::Result<Event>> {
    let (told, events) = mpsc::channel(8);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let over = event.is_err();
            if told.blocking_send(event).is_err() || over {
                return;
            }
        }
    });
    events
}

/// Ctrl-C is a key here: the terminal makes no signal of it.
fn leaves(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
    match code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

/// <https://no-color.org>; and such terminals as say in their name that they have none.
fn wants_colour() -> bool {
    let none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let kind = std::env::var("TERM").unwrap_or_default();
    !none && !kind.starts_with("vt") && !kind.ends_with("-m") && !kind.ends_with("-mono")
}

/// The terminal in raw mode, on its other page. It is put back when this is dropped; before the message of a panic
/// ratatui's hook does so.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Screen> {
        ratatui::try_init().map(Screen).inspect_err(|_| put_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic it was done, and twice would put the cursor above the message.
        if !std::thread::panicking() {
            put_back();
        }
    }
}

fn put_back() {
    // There is no terminal any more when this fails.
    let _ = ratatui::try_restore();
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::process::{Command, Stdio};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::tcgetattr;

    use super::*;

    #[test]
    fn q_escape_and_ctrl_c_leave_and_nothing_else_does() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        for code in [KeyCode::Char('q'), KeyCode::Char('Q'), KeyCode::Esc] {
            assert!(leaves(&key(code, KeyModifiers::NONE)), "{code}");
        }
        assert!(leaves(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        for event in [key(KeyCode::Char('c'), KeyModifiers::NONE), key(KeyCode::Enter, KeyModifiers::NONE)] {
            assert!(!leaves(&event), "{event:?}");
        }
        assert!(!leaves(&Event::Resize(80, 24)));
    }

    /// A pseudo terminal: the end of whoever shows it, and the end of the program.
    fn terminal() -> (File, File) {
        let shown = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&shown).expect("granted");
        unlockpt(&shown).expect("unlocked");
        let name = ptsname(&shown, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let program = File::options().read(true).write(true).open(name).expect("its other end");
        (shown.into(), program)
    }

    #[test]
    #[ignore = "it panics; the test below starts it on a terminal of its own"]
    fn panics_on_the_screen() {
        let _screen = Screen::open().expect("a terminal");
        panic!("on purpose");
    }

    #[test]
    fn a_panic_puts_the_terminal_back_before_its_message() {
        let (mut shown, program) = terminal();
        let modes = || tcgetattr(&program).expect("modes").local_modes;
        let before = modes();
        let end = || Stdio::from(program.try_clone().expect("a copy"));
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--ignored", "--nocapture", "--exact", "cli::watch::tests::panics_on_the_screen"]);
        let status = child.stdin(end()).stdout(end()).stderr(end()).status().expect("it starts");
        assert_eq!((status.success(), modes()), (false, before));
        let (mut written, mut bytes) = (String::new(), [0; 4096]);
        while !written.contains("on purpose") {
            let count = shown.read(&mut bytes).expect("more");
            written.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        let order = ["[?1049h", "[?1049l", "on purpose"].map(|part| written.find(part));
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{written:?}");
    }

    #[test]
    fn the_interval_has_both_its_ends() {
        assert_eq!((every("200ms"), every("1m")), (Ok(EVERY_MIN), Ok(EVERY_MAX)));
        assert_eq!(every("199ms").unwrap_err(), "199ms is not from 200ms to 1m");
        assert!(every("61s").is_err() && every("1").is_err());
    }

    #[test]
    fn a_failure_keeps_the_last_answer_and_the_time_of_the_first_failure() {
        let at = WallTime::from_nanos;
        let status = StatusResponse { cluster: "old".to_owned(), ..StatusResponse::default() };
        let mut view = View {
            status,
            moves: Vec::new(),
            answered: at(1),
            now: at(1),
            trouble: None,
            every: EVERY_MIN,
            colour: false,
        };
        let gone = || Err(Failure::Unreachable(anyhow!("gone")));
        take(&mut view, gone(), at(2));
        take(&mut view, gone(), at(3));
        assert_eq!((view.status.cluster.as_str(), view.answered, view.now), ("old", at(1), at(3)));
        assert_eq!(view.trouble, Some(Trouble { since: at(2), reason: "gone".to_owned() }));
        take(&mut view, Ok((StatusResponse::default(), Vec::new())), at(4));
        assert_eq!((view.status.cluster.as_str(), view.answered, view.trouble), ("", at(4), None));
    }
}

//! How a node is told to do badly, to see what its supervisor makes of it: `GET /pretend?WORD,WORD`. All but the
//! last two words change what the node answers and nothing of what it does. A node that was restarted is honest again.

/// What `/status` says instead of the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pretend {
    /// Of a head that stands still.
    pub head: Option<u64>,
    pub syncing: Option<bool>,
    pub peers: Option<u64>,
    /// It takes the question and never answers.
    pub hangs: bool,
    /// The next signature is the last thing that the process does: logged, and not sent.
    pub dies_signing: bool,
    /// SIGTERM does not end it, nor does SIGINT.
    pub ignores_term: bool,
}

impl Pretend {
    /// Exactly what `words` say; `head` is the present one.
    ///
    /// # Errors
    /// Names the words that there are.
    pub fn parse(words: &str, head: u64) -> Result<Pretend, String> {
        let mut pretend = Pretend::default();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match word {
                "stuck" => pretend.head = Some(head),
                "syncing" => pretend.syncing = Some(true),
                "in-sync" => pretend.syncing = Some(false),
                "lonely" => pretend.peers = Some(0),
                "hangs" => pretend.hangs = true,
                "dies-signing" => pretend.dies_signing = true,
                "ignores-term" => pretend.ignores_term = true,
                other => {
                    return Err(format!(
                        "no word {other:?}; there are stuck, syncing, in-sync, lonely, hangs, dies-signing and ignores-term"
                    ));
                }
            }
        }
        Ok(pretend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_add_up_none_is_honest_and_others_are_refused() {
        let both = Pretend { head: Some(7), syncing: Some(false), ..Pretend::default() };
        assert_eq!(Pretend::parse("stuck,in-sync", 7), Ok(both));
        assert_eq!(Pretend::parse("", 7), Ok(Pretend::default()));
        let error = Pretend::parse("asleep", 7).unwrap_err();
        assert!(error.contains("\"asleep\"") && error.contains("hangs"), "{error}");
    }
}

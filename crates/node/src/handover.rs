//! What passes between a `lethe` and the one that takes over from it. The old one starts the new one as its child, which
//! inherits the listeners and the claim on the state folder; what each descriptor is stands in an environment variable.
//! After that they exchange a few words over a socket pair that nobody else has.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    os::{fd::RawFd, unix::net::UnixStream},
};

use lethe_admin::api;
use lethe_model::service::ServiceName;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::{config::Config, plan};

/// The variable with the [`Deed`].
pub(crate) const VARIABLE: &str = "LETHE_UPGRADE";
/// The [`Deed`]'s format. Fields may be added; when one changes its meaning, this grows, and who does not know it refuses.
pub(crate) const FORMAT: u32 = 1;
/// The longest word, in bytes.
const WORD_BYTES_MAX: usize = 64 << 10;
/// The longest reason in one, in bytes: a word is written at once, so it must fit into the socket's buffer.
const REASON_BYTES_MAX: usize = 16 << 10;

/// What is inherited, by the numbers of descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deed {
    pub(crate) format: u32,
    /// The connection between the two.
    pub(crate) link: RawFd,
    /// The connection to the process that waits for the end, if there is one.
    pub(crate) attendant: Option<RawFd>,
    /// The locked file in the state folder.
    pub(crate) lock: RawFd,
    /// The gateway's, in the order of the configuration.
    pub(crate) listeners: Vec<Listeners>,
    /// That of health and metrics.
    pub(crate) admin: Option<Listeners>,
    /// Standard output and standard error as they shall be; the process is started with pipes in their place, so that
    /// what a wrong program prints can be told.
    pub(crate) output: [RawFd; 2],
    /// How many workers there are.
    pub(crate) workers: BTreeMap<ServiceName, Workers>,
    /// Where state is kept; not told by versions that could not.
    #[serde(default)]
    pub(crate) kept: Option<Kept>,
}

/// Where state is kept, on which two that hand over must agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// For people, without what is secret.
    shown: String,
    /// All of it, told by nothing but whether it is the same: whoever may look at this process's environment shall not find
    /// passwords there.
    fingerprint: String,
}

impl Kept {
    /// As a configuration says.
    pub(crate) fn by(config: &Config) -> Self {
        Self { shown: plan::placement(config), fingerprint: config.placement.fingerprint() }
    }

    /// The two would keep state in different places.
    pub(crate) fn check(&self, new: &Self) -> anyhow::Result<()> {
        if self.fingerprint == new.fingerprint {
            return Ok(());
        }
        let (is, shall_be) = (&self.shown, &new.shown);
        let other = if is == shall_be { ", with other options or another password" } else { "" };
        anyhow::bail!(
            "`[state]` has changed ({is} → {shall_be}{other}), which needs a restart: put it back, or run `lethe down` and `lethe up`"
        )
    }
}

/// The sockets of one configured address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listeners {
    /// As it was configured.
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<RawFd>,
}

/// The workers of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workers {
    /// How many the configuration wants.
    pub(crate) configured: u32,
    /// How many there shall be in fact, as after `lethe scale`.
    pub(crate) wanted: u32,
    /// The number of the last one.
    pub(crate) last: u64,
    /// Whether `wanted` was set by hand where else load decides; not told by versions in which it does not.
    #[serde(default)]
    pub(crate) pinned: bool,
}

/// What is said, one JSON value a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// The new one to the old one: all workers are ready, and it accepts.
    Serving(api::Node),
    /// The new one to the old one: it gives up.
    Failed(String),
    /// The old one to the new one: it accepts no more, and the terminal is free.
    Yours,
    /// To the attendant: this process is the one to wait for, once the one before it has ended.
    Heir(u32),
    /// The attendant, of a signal it got: drain.
    Drain,
    /// And: so many SIGINTs came by now.
    Interrupted(u32),
    /// And: read the configuration again.
    Reload,
}

/// Says a word, at once or not at all. `stream` does not block.
pub(crate) fn say(mut stream: &UnixStream, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// A reason that is not too long for a word.
pub(crate) fn reason(text: &str) -> String {
    text[..text.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

/// Hears words.
#[derive(Debug)]
pub(crate) struct Ear {
    stream: tokio::net::UnixStream,
    read: Vec<u8>,
}

impl Ear {
    /// At this end, within a runtime.
    pub(crate) fn at(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: tokio::net::UnixStream::from_std(stream)?, read: Vec::new() })
    }

    /// The next word; `None` when the other end has gone, or says what is no word. Cancellation safe.
    pub(crate) async fn hear(&mut self) -> Option<Word> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).ok();
            }
            if self.read.len() > WORD_BYTES_MAX
                || !matches!(self.stream.read_buf(&mut self.read).await, Ok(1..))
            {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_arrive_whole_and_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let mut ear = Ear::at(there).unwrap();
        let long = reason(&"ß".repeat(REASON_BYTES_MAX));
        assert_eq!(long.len(), REASON_BYTES_MAX);
        for word in [Word::Failed(long), Word::Heir(7), Word::Interrupted(1)] {
            say(&here, &word).unwrap();
        }
        assert!(matches!(ear.hear().await, Some(Word::Failed(text)) if text.ends_with('ß')));
        assert!(matches!(ear.hear().await, Some(Word::Heir(7))));
        assert!(matches!(ear.hear().await, Some(Word::Interrupted(1))));
        (&here).write_all(b"{}\n").unwrap();
        assert!(ear.hear().await.is_none(), "what is no word ends it");
        drop(here);
        assert!(ear.hear().await.is_none());
    }
}

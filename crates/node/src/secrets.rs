//! What nobody is shown of what a service says: the values of its environment and what is secret of its source's URL.
//! Builds, workers and programs that fetch may repeat them in what they print, which goes to logs, events and the history.

use std::{cmp::Reverse, env};

use crate::config::ServiceConfig;

/// Values of the environment that are shorter are no secrets, and would be found in any text.
const BYTES_MIN: usize = 6;

/// The secrets of one service.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// All that it was given.
    pub(crate) fn of(service: &ServiceConfig) -> Self {
        let withheld = service.spec.withheld.iter().filter_map(|name| env::var(name).ok());
        let values: Vec<String> = service.spec.env.values().cloned().chain(withheld).collect();
        // Of what has several lines, such as a key, one may be printed alone.
        let lines = values.iter().flat_map(|value| value.lines().map(|line| line.trim().to_owned()));
        let mut all: Vec<String> = values.iter().cloned().chain(lines).collect();
        all.retain(|value| value.len() >= BYTES_MIN);
        all.extend(service.source.iter().flat_map(|source| source.secrets()).cloned());
        // Else one that begins another would leave the end of that.
        all.sort_unstable_by_key(|secret| Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    /// The text without them.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides, Source};

    #[test]
    fn the_longest_is_hidden_first_and_each_line_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let toml = "[services.web]\ncommand = 'sh'\nsource = 'https://me:pw@h/x.tar?t=1'\n\
                    env = { A = 'hunter2', B = 'hunter2-and-more', C = 'on', D = \"\"\"BEGIN\nabcdefgh\nEND\"\"\" }\n";
        std::fs::write(folder.path().join("lethe.toml"), toml).unwrap();
        let config = config::load(Source::Path(folder.path().into()), Overrides::default());
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let secrets = Secrets::of(&config.services[0]);
        assert_eq!(secrets.hidden_in("hunter2-and-more, hunter2; on"), "…, …; on");
        assert_eq!(secrets.hidden_in("key: abcdefgh!"), "key: …!");
        assert_eq!(secrets.hidden_in("GET https://me:pw@h/x.tar?t=1"), "GET https://…@h/x.tar?…");
    }
}

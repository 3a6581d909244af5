//! Measures one system in one way, and prints the figures as a line of JSON: `state-bench near | served | blob | crowd …`. What is
//! measured in turn with what, and how often, is `run.py`'s part.

mod blob;
mod crowd;
mod near;
mod served;
mod timing;

use std::{collections::BTreeMap, process::ExitCode};

/// The options of the command line, `--name value` each.
pub struct Options(BTreeMap<String, String>);

impl Options {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut options, mut words) = (BTreeMap::new(), words);
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word}: an option begins with --"))?;
            options.insert(name.to_owned(), words.next().ok_or_else(|| format!("{word} has no value"))?);
        }
        Ok(Self(options))
    }

    /// The value of an option that must be there.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    /// The same as a number.
    pub fn number(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or_else(|_| panic!("--{name} is no number"))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let options = match Options::read(words) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let figures = match what.as_str() {
        "near" => near::measured(&options).await,
        "served" => served::measured(&options).await,
        "blob" => blob::measured(&options).await,
        "crowd" => crowd::measured(&options).await,
        _ => {
            eprintln!("`{what}` is not measured here; near, served, blob and crowd are");
            return ExitCode::FAILURE;
        }
    };
    println!("{figures}");
    ExitCode::SUCCESS
}

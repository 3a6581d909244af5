//! `lethe completions`: what a shell needs to complete verbs and options.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{arguments::Arguments, output};

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe completions bash > ~/.local/share/bash-completion/completions/lethe
  lethe completions zsh > ~/.zfunc/_lethe
  lethe completions fish > ~/.config/fish/completions/lethe.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "lethe", &mut script);
        output::line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(())
    }
}

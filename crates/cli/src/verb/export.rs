//! `lethe export`: what a `lethe.toml` comes to elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use lethe_export::{Exported, aws, kubernetes};
use lethe_node::config::{self, Config, Overrides, Source};

use crate::{ansi, output};

/// Write what the services need elsewhere
///
/// Reads lethe.toml as `lethe up` does, and starts nothing. What somebody must know before using what is written, and what of
/// the file has no counterpart there, is said on standard error.
#[derive(Debug, Args)]
pub struct Export {
    #[command(subcommand)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Place {
    /// Objects of Kubernetes: Deployment, Service, autoscaler, disruption budget, ConfigMap, Ingress
    #[command(after_help = "\
Examples:
  lethe export kubernetes --image registry.example/shop:1.4 -o k8s && kubectl apply -f k8s
  lethe export kubernetes --image shop:1.4 | kubectl diff -f -
  lethe export kubernetes --image shop:1.4 --with-lethe -o k8s")]
    Kubernetes(Kubernetes),
    /// Terraform for a group of machines at AWS that run `lethe up` behind a load balancer
    #[command(after_help = "\
Examples:
  lethe export aws -o terraform && terraform -chdir=terraform init
  lethe export aws examples/shop")]
    Aws(Aws),
}

#[derive(Debug, Args)]
struct Kubernetes {
    #[command(flatten)]
    common: Common,

    /// The image of the pods
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// An environment variable that is a secret; those whose name or value says so are anyway
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,

    /// The pods run `lethe up` with one worker: with the state tier, and a gateway in front of each worker
    #[arg(long)]
    with_lethe: bool,
}

#[derive(Debug, Args)]
struct Aws {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// A folder with a lethe.toml or a Procfile, or such a file [default: this folder]
    #[arg(value_name = "DIR|FILE")]
    source: Option<PathBuf>,

    /// The folder to write the files into; - writes all of them to standard output
    #[arg(short, long, value_name = "FOLDER", default_value = "-")]
    output: PathBuf,
}

impl Export {
    /// Writes it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.place {
            Place::Kubernetes(kubernetes) => {
                let options = kubernetes::Options {
                    image: kubernetes.image,
                    secrets: kubernetes.secrets,
                    with_lethe: kubernetes.with_lethe,
                };
                let exported = kubernetes::export(&kubernetes.common.config()?, &options)?;
                kubernetes.common.write(&exported, "---\n")
            }
            Place::Aws(aws) => {
                let exported = aws::export(&aws.common.config()?);
                aws.common.write(&exported, "\n")
            }
        }
    }
}

impl Common {
    fn config(&self) -> anyhow::Result<Config> {
        let source = self.source.clone().unwrap_or_else(|| ".".into());
        Ok(config::load(Source::Path(source), Overrides::default())?)
    }

    /// Several files on standard output are told apart by their names, and by `between`.
    fn write(&self, exported: &Exported, between: &str) -> anyhow::Result<()> {
        if self.output == Path::new("-") {
            let named = |file: &lethe_export::File| match exported.files.len() {
                1 => file.text.clone(),
                _ => format!("# {}\n{}", file.name, file.text),
            };
            let texts: Vec<String> = exported.files.iter().map(named).collect();
            output::line(texts.join(between).trim_end())?;
        } else {
            fs::create_dir_all(&self.output)
                .with_context(|| format!("cannot make {}", self.output.display()))?;
            for file in &exported.files {
                let path = self.output.join(&file.name);
                fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
                output::line(&path.display().to_string())?;
            }
        }
        #[allow(clippy::print_stderr, reason = "what is written to standard output may be read by a program")]
        for notice in &exported.notices {
            eprint!("{}", ansi::for_stderr(&format!("note: {notice}\n")));
        }
        Ok(())
    }
}

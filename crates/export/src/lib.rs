//! What a `lethe.toml` comes to elsewhere: objects of Kubernetes, or Terraform for a group of machines at AWS. Pure: from a
//! checked configuration to texts, the same texts for the same configuration, and what of it has no counterpart there.

pub mod aws;
mod hcl;
pub mod kubernetes;
mod lacks;
pub mod scaling;
mod secret;
mod yaml;

/// What an export comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The files, in the order in which they are to be read.
    pub files: Vec<File>,
    /// What somebody must know or do before using them, a sentence each.
    pub notices: Vec<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Why there is no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(pub Vec<String>);

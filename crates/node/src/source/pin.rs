//! One version of a source: a commit of a repository, an archive of this hash, a folder with this content. What comes back
//! or is started again is asked for like this, so that it is what it was or nothing.

use super::{Source, git};

impl Source {
    /// Where it is from, whichever version of it. Says nothing that is secret, and tells two places apart.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Git { url, .. } => url.to_string(),
            _ => self.identity(),
        }
    }

    /// This version of it, by what it was called as it was fetched.
    pub(crate) fn at(&self, version: &str) -> Self {
        let (mut source, version) = (self.clone(), Some(version.to_owned()));
        match &mut source {
            Self::Git { reference: pin, .. }
            | Self::Download { sha256: pin, .. }
            | Self::Archive { sha256: pin, .. }
            | Self::Folder { digest: pin, .. }
            | Self::Blob { etag: pin, .. } => *pin = version,
        }
        source
    }

    /// The version that it is bound to; nothing if it may move on.
    pub(crate) fn pin(&self) -> Option<&str> {
        match self {
            Self::Git { reference: pin, .. } => pin.as_deref().filter(|reference| git::is_commit(reference)),
            Self::Download { sha256: pin, .. }
            | Self::Archive { sha256: pin, .. }
            | Self::Folder { digest: pin, .. }
            | Self::Blob { etag: pin, .. } => pin.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_kind_has_versions() {
        let hash = "ab".repeat(32);
        for text in ["https://me:pw@h/x.git#main", "https://h/x.tar?t=1", "x.tar", "tmp", "blob:a/b"] {
            let source = Source::parse(text, Path::new("/")).unwrap();
            assert_eq!(source.pin(), None, "{text}");
            let pinned = source.at(&hash);
            assert_eq!(pinned.pin(), Some(&*hash), "{text}");
            assert_eq!(pinned.place(), source.place(), "{text}");
            assert_ne!(pinned, source, "{text}");
        }
    }
}

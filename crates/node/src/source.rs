//! A service's `source`: where its program comes from when it is not in the folder already. It is fetched whole into a
//! folder of its own before the first worker starts, so that what runs is what was released, and nothing else.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use futures_util::TryStreamExt;
use lethe_state::blobs::Blobs;
use tokio::{io::AsyncWriteExt, process::Command};

/// What a `source` may look like, for people.
pub(crate) const EXPECTED: &str = "a git URL such as `\"https://example.org/shop.git#v1.2\"`, an archive such as \
     `\"https://example.org/shop.tar.gz\"` or `\"dist/shop.tar.gz\"`, or a blob such as `\"blob:releases/shop.tar.gz\"`";

/// Endings of archives that `tar` unpacks by itself.
const ARCHIVES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2"];

/// Where a program comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A git repository, at a branch, tag or commit; its default branch when none is named.
    Git {
        /// What `git fetch` takes.
        url: String,
        /// The branch, tag or commit.
        reference: Option<String>,
    },
    /// A tar archive to download.
    Download(String),
    /// A tar archive on this machine.
    Archive(PathBuf),
    /// A tar archive in the blobs of the state tier.
    Blob {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
    },
}

/// Why a source was not fetched. The version that ran before, if any, is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that fetches is missing.
    #[error("`{program}` is needed to fetch {source_name} and cannot be started; install it")]
    Missing {
        /// The program.
        program: &'static str,
        /// The source, without credentials.
        source_name: String,
        /// Why it cannot be started.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("cannot fetch {source_name}: {program} ended with {status}\n{text}")]
    Failed {
        /// The source, without credentials.
        source_name: String,
        /// The program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said, without credentials.
        text: String,
    },
    /// The blob is not there.
    #[error("there is no {0} in the state tier; put it there first")]
    NoBlob(String),
    /// The state tier refuses.
    #[error("cannot fetch {0} from the state tier")]
    State(String, #[source] lethe_state::error::Error),
    /// The folder for it cannot be written.
    #[error("cannot write {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
}

impl Source {
    /// Reads what a file says; a path is relative to `folder`. The text of the error goes on after the value.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let text = text.trim();
        // What begins with a dash would be read as an option by the program that fetches.
        if text.is_empty() || text.starts_with('-') || text.contains(['\0', '\n']) {
            return Err(format!("is no source: write {EXPECTED}"));
        }
        if let Some(blob) = text.strip_prefix("blob:") {
            let (bucket, key) = blob
                .split_once('/')
                .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
                .ok_or("names no blob: write \"blob:BUCKET/KEY\"")?;
            return Ok(Self::Blob { bucket: bucket.into(), key: key.into() });
        }
        let (location, reference) = match text.split_once('#') {
            Some((location, reference)) => (location, Some(reference.to_owned())),
            None => (text, None),
        };
        if reference.as_ref().is_some_and(|reference| reference.is_empty() || reference.starts_with('-')) {
            return Err("has no branch, tag or commit after `#`".into());
        }
        let is_archive = ARCHIVES.iter().any(|ending| location.ends_with(ending));
        match (is_archive, reference) {
            (true, Some(_)) => {
                Err("is an archive, which has no branches: leave out `#` and what follows".into())
            }
            (true, None) if location.starts_with("http://") || location.starts_with("https://") => {
                Ok(Self::Download(location.into()))
            }
            (true, None) => Ok(Self::Archive(folder.join(location))),
            (false, reference) if is_git(location) => {
                Ok(Self::Git { url: from_folder(location, folder), reference })
            }
            (false, _) => Err(format!("is neither a git URL nor an archive: write {EXPECTED}")),
        }
    }

    /// Fetches it into a fresh folder under `parent` and returns that. What is there from before is replaced once
    /// the new one is whole. Dropping the future ends the programs that fetch.
    pub async fn fetch(&self, parent: &Path, blobs: &dyn Blobs) -> Result<PathBuf, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| Error::Folder(path, error)
        };
        let (fresh, current) = (parent.join("fresh"), parent.join("current"));
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&fresh)(error)),
            _ => fs::create_dir_all(&fresh).map_err(failed(&fresh))?,
        }
        match self {
            Self::Git { url, reference } => self.clone_into(&fresh, url, reference.as_deref()).await?,
            Self::Archive(file) => self.unpack(file, &fresh).await?,
            Self::Download(url) => {
                let file = parent.join("download");
                let mut curl = Command::new("curl");
                curl.args(["--fail", "--silent", "--show-error", "--location", "--proto", "=http,https"]);
                curl.arg("--output").arg(&file).arg("--").arg(url);
                self.run("curl", curl).await?;
                self.unpack(&file, &fresh).await?;
                fs::remove_file(&file).map_err(failed(&file))?;
            }
            Self::Blob { bucket, key } => {
                let file = parent.join("download");
                self.read_blob(blobs, bucket, key, &file).await?;
                self.unpack(&file, &fresh).await?;
                fs::remove_file(&file).map_err(failed(&file))?;
            }
        }
        match fs::remove_dir_all(&current) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&current)(error)),
            _ => fs::rename(&fresh, &current).map_err(failed(&current))?,
        }
        Ok(current)
    }

    /// Fetches one commit. `git clone --branch` would not take a commit's hash.
    async fn clone_into(&self, folder: &Path, url: &str, reference: Option<&str>) -> Result<(), Error> {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            // A question for a password would wait for ever: nobody is there to answer.
            git.current_dir(folder).env("GIT_TERMINAL_PROMPT", "0").args(arguments);
            git
        };
        self.run("git", git(&["init", "--quiet"])).await?;
        let reference = reference.unwrap_or("HEAD");
        self.run("git", git(&["fetch", "--quiet", "--depth", "1", "--", url, reference])).await?;
        self.run("git", git(&["checkout", "--quiet", "FETCH_HEAD"])).await
    }

    async fn unpack(&self, archive: &Path, folder: &Path) -> Result<(), Error> {
        let mut tar = Command::new("tar");
        // GNU and BSD tar both keep members within the folder: they refuse `..` and strip a leading `/`.
        tar.arg("--extract").arg("--no-same-owner").arg("--file").arg(archive).arg("--directory").arg(folder);
        self.run("tar", tar).await
    }

    async fn read_blob(&self, blobs: &dyn Blobs, bucket: &str, key: &str, file: &Path) -> Result<(), Error> {
        let blob =
            blobs.get(bucket, key, None).await.map_err(|error| Error::State(self.to_string(), error))?;
        let mut body = blob.ok_or_else(|| Error::NoBlob(self.to_string()))?.body;
        let write = async {
            let mut file = tokio::fs::File::create(file).await?;
            while let Some(piece) = body.try_next().await? {
                file.write_all(&piece).await?;
            }
            file.flush().await
        };
        write.await.map_err(|error| Error::Folder(file.into(), error))
    }

    async fn run(&self, program: &'static str, mut command: Command) -> Result<(), Error> {
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output =
            output.map_err(|source| Error::Missing { program, source_name: self.to_string(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let text = self.without_credentials(&String::from_utf8_lossy(&output.stderr));
        Err(Error::Failed { source_name: self.to_string(), program, status: output.status, text })
    }

    /// What a program said, with the credentials of this source's URL taken out.
    fn without_credentials(&self, text: &str) -> String {
        let text = text.trim();
        match self {
            Self::Git { url, .. } | Self::Download(url) => match credentials(url) {
                Some(secret) => text.replace(secret, "…"),
                None => text.into(),
            },
            Self::Archive(_) | Self::Blob { .. } => text.into(),
        }
    }
}

/// Never with the credentials of a URL.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git { url, reference } => {
                f.write_str(&self.without_credentials(url))?;
                reference.as_ref().map_or(Ok(()), |reference| write!(f, "#{reference}"))
            }
            Self::Download(url) => f.write_str(&self.without_credentials(url)),
            Self::Archive(file) => file.display().fmt(f),
            Self::Blob { bucket, key } => write!(f, "blob:{bucket}/{key}"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// `user:password` of a URL (RFC 3986, section 3.2.1).
fn credentials(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    authority.rsplit_once('@').map(|(secret, _)| secret)
}

fn is_git(location: &str) -> bool {
    let scheme = ["https://", "http://", "ssh://", "git://", "file://"];
    let is_url = scheme.iter().any(|scheme| location.starts_with(scheme));
    // `git@host:path`, as ssh writes it.
    let is_scp = location.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    is_url || is_scp || location.ends_with(".git")
}

/// A repository on this machine is named relative to the file.
fn from_folder(location: &str, folder: &Path) -> String {
    if location.contains(':') {
        location.into()
    } else {
        folder.join(location).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use lethe_state::{blobs::Put, embedded::Embedded};

    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        Source::parse(text, Path::new("/app")).map(|source| source.to_string())
    }

    #[test]
    fn kinds() {
        assert_eq!(parse("https://h/shop.git#v1").unwrap(), "https://h/shop.git#v1");
        assert_eq!(parse("git@h:me/shop").unwrap(), "git@h:me/shop");
        assert_eq!(parse("../shop.git").unwrap(), "/app/../shop.git");
        assert_eq!(parse("dist/shop.tar.gz").unwrap(), "/app/dist/shop.tar.gz");
        assert_eq!(parse("blob:releases/a/b.tgz").unwrap(), "blob:releases/a/b.tgz");
        assert!(matches!(Source::parse("https://h/x.tgz", Path::new("/")), Ok(Source::Download(_))));
        for bad in
            ["", "-x.git", "--upload-pack=x", "blob:x", "blob:/x", "x.tar#v1", "x.git#", "x.git#-x", "shop"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let source = Source::parse("https://me:s3cret@h/shop.git", Path::new("/")).unwrap();
        assert_eq!(source.to_string(), "https://…@h/shop.git");
        assert_eq!(format!("{source:?}"), "Source(https://…@h/shop.git)");
        assert_eq!(source.without_credentials("fatal: 'https://me:s3cret@h/'"), "fatal: 'https://…@h/'");
    }

    #[tokio::test]
    async fn a_blob_and_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("app.py"), "print()").unwrap();
        let packed = std::process::Command::new("tar")
            .current_dir(folder.path())
            .args(["-czf", "app.tar.gz", "app.py"])
            .status();
        assert!(packed.unwrap().success());
        let engine = Embedded::open(&path("state")).unwrap();
        let blobs = engine.engines().blobs;

        let archive = Source::parse("app.tar.gz", folder.path()).unwrap();
        let current = archive.fetch(&path("sources"), &*blobs).await.unwrap();
        assert_eq!(fs::read_to_string(current.join("app.py")).unwrap(), "print()");

        let blob = Source::parse("blob:releases/app.tar.gz", folder.path()).unwrap();
        let error = blob.fetch(&path("sources"), &*blobs).await.unwrap_err();
        assert!(matches!(error, Error::NoBlob(_)), "{error}");
        assert!(current.join("app.py").exists(), "what was there is left alone");
        let archive = fs::read(path("app.tar.gz")).unwrap();
        let body = stream::iter([Ok(Bytes::from(archive))]).boxed();
        blobs.put("releases", "app.tar.gz", body, Put::default()).await.unwrap();
        fs::write(current.join("old"), "").unwrap();
        let current = blob.fetch(&path("sources"), &*blobs).await.unwrap();
        assert!(current.join("app.py").exists() && !current.join("old").exists());
        engine.close().await;
    }

    #[tokio::test]
    async fn a_repository_at_a_tag() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("app.git");
        let script = "git init -q app.git && cd app.git && git config user.email a@b && git config user.name a && \
                      echo 1 >version && git add . && git commit -qm 1 && git tag v1 && echo 2 >version && \
                      git commit -qam 2";
        let made = std::process::Command::new("sh").current_dir(folder.path()).args(["-c", script]).status();
        assert!(made.unwrap().success());
        let engine = Embedded::open(&folder.path().join("state")).unwrap();
        let blobs = engine.engines().blobs;
        let sources = folder.path().join("sources");
        for (reference, version) in [("#v1", "1\n"), ("", "2\n")] {
            let source =
                Source::parse(&format!("file://{}{reference}", repository.display()), Path::new("/"));
            let current = source.unwrap().fetch(&sources, &*blobs).await.unwrap();
            assert_eq!(fs::read_to_string(current.join("version")).unwrap(), version);
        }
        let gone = Source::parse(&format!("file://{}#v9", repository.display()), Path::new("/")).unwrap();
        let error = gone.fetch(&sources, &*blobs).await.unwrap_err().to_string();
        assert!(error.contains("v9") && error.contains("git ended with"), "{error}");
        assert!(sources.join("current/version").exists(), "what was there is left alone");
        engine.close().await;
    }
}

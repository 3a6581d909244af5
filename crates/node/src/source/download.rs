//! Downloads an archive. curl is told the URL and the login on its standard input, where a list of processes does not show
//! them, and what comes is counted here: not every server says how much it will be.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdout, Command},
    time::timeout,
};

use super::{
    tool::{self, FETCH_TIME_MAX, Failure, LOOK_TIME_MAX, Running},
    url::Url,
};
use crate::store::hex;

/// Largest archive, in bytes.
pub(super) const DOWNLOAD_BYTES_MAX: u64 = 2 << 30;
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What was downloaded.
pub(super) struct Downloaded {
    /// Its SHA-256, as hexadecimal digits.
    pub(super) sha256: String,
    /// What the server says of the version, if it does.
    pub(super) mark: Option<String>,
}

/// How a download went, beside what curl says.
pub(super) enum Ended {
    Whole(Downloaded),
    TooLarge,
    NotWritten(io::Error),
}

/// What the server says of the present version, without downloading it; `None` when it says nothing of use.
pub(super) async fn look(url: &Url) -> Result<Option<String>, Failure> {
    let mut curl = curl();
    curl.arg("--head");
    let printed = tool::run_with(curl, Some(&told(url)), LOOK_TIME_MAX).await?;
    Ok(mark(&String::from_utf8_lossy(&printed)))
}

/// Downloads into `file`; `scratch` is a folder for its own use.
pub(super) async fn download(url: &Url, file: &Path, scratch: &Path) -> Result<Ended, Failure> {
    let headers = scratch.join("headers");
    let mut curl = curl();
    // A connection that stands still is given up before the whole time is over.
    curl.args(["--speed-limit", "1", "--speed-time", "60", "--dump-header"]).arg(&headers);
    let running = Running::start(curl, true).map_err(Failure::Missing)?;
    let input = told(url);
    let is_too_large = AtomicBool::new(false);
    let end = running.end(&input, |stdout| save(stdout, file, &is_too_large));
    let ended = timeout(FETCH_TIME_MAX, end).await.unwrap_or(Err(Failure::Slow(FETCH_TIME_MAX)));
    if is_too_large.load(Ordering::Relaxed) {
        return Ok(Ended::TooLarge);
    }
    let sha256 = match ended? {
        Err(error) => return Ok(Ended::NotWritten(error)),
        Ok(sha256) => sha256,
    };
    let headers = fs::read(&headers).unwrap_or_default();
    Ok(Ended::Whole(Downloaded { sha256, mark: mark(&String::from_utf8_lossy(&headers)) }))
}

/// Writes what comes, up to the bound, and gives its SHA-256.
async fn save(mut stdout: ChildStdout, file: &Path, is_too_large: &AtomicBool) -> io::Result<String> {
    let mut out = tokio::fs::File::create(file).await?;
    let (mut hash, mut count, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        let read = stdout.read(&mut piece).await?;
        count += read as u64;
        if count > DOWNLOAD_BYTES_MAX {
            // curl ends when nobody reads on.
            is_too_large.store(true, Ordering::Relaxed);
            drop(stdout);
            break;
        }
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        out.write_all(&piece[..read]).await?;
    }
    out.flush().await?;
    Ok(hex(&hash.finalize()))
}

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--config",
        "-",
        "--fail",
        "--silent",
        "--show-error",
        "--globoff",
        "--connect-timeout",
        "30",
    ]);
    curl.args(["--location", "--max-redirs", "5", "--proto", "=http,https", "--proto-redir", "=http,https"]);
    curl
}

/// What curl reads (curl(1), `--config`).
fn told(url: &Url) -> Vec<u8> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut told = format!("url = \"{}\"\n", quoted(url.bare()));
    if let Some(login) = url.login() {
        told += &format!("user = \"{}:{}\"\n", quoted(&login.user), quoted(&login.password));
    }
    told.into_bytes()
}

/// The entity tag (RFC 9110, section 8.8.3) or else the date of the last answer's head; redirects have heads too.
fn mark(heads: &str) -> Option<String> {
    let last = heads.trim_end().rsplit("\r\n\r\n").next()?;
    let field = |wanted: &str| {
        let mut fields = last.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
    };
    field("etag").or_else(|| field("last-modified"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_head_counts() {
        let heads = "HTTP/1.1 302 Found\r\nETag: \"a\"\r\n\r\nHTTP/1.1 200 OK\r\netag: \"b\"\r\nLast-Modified: x\r\n\r\n";
        assert_eq!(mark(heads).as_deref(), Some("\"b\""));
        assert_eq!(mark("HTTP/1.1 200 OK\r\nLast-Modified: Sun\r\n\r\n").as_deref(), Some("Sun"));
        assert_eq!(mark("HTTP/1.1 200 OK\r\n\r\n"), None);
    }

    #[test]
    fn curl_is_told_in_quotes() {
        let url = Url::parse("https://me:a%22b%5C@h/x.tar").unwrap();
        assert_eq!(told(&url), b"url = \"https://h/x.tar\"\nuser = \"me:a\\\"b\\\\\"\n");
    }
}

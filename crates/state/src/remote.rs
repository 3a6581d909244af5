//! State that another process keeps, reached over its state API on a unix socket: what a worker holds instead
//! of an engine of its own. Calls share one connection that carries them in frames; what is large, or comes piece by piece, has
//! a connection over HTTP for as long as it takes.

mod blobs;
mod cache;
mod call;
mod connection;
mod feeds;
mod idempotency;
mod limits;
mod line;
mod locks;
mod payload;
mod pool;
mod problem;
mod sessions;
mod tables;

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf, sync::Arc};

use crate::{Engines, error::Error};

/// Longest path of a unix socket on Linux, in bytes (`sun_path` of unix(7), less its closing NUL).
const PATH_BYTES_MAX: usize = 107;

/// The state API of another process. Cheap to clone; all clones share their connections.
///
/// Reads are tried again for a short time when the other process is not there, as it may be starting anew. Of a write
/// the same holds until its first byte was sent; from then on a lost connection is [`Error::Unavailable`], and the
/// write may have happened or not.
#[derive(Clone, Debug)]
pub struct Remote {
    pool: Arc<pool::Pool>,
}

impl Remote {
    /// Takes `unix:///path/to/state.sock`, as `LETHE_STATE` holds it. Connects with the first call, not now.
    ///
    /// Fails with [`Error::Invalid`] for any other URL.
    pub fn connect(url: &str) -> Result<Self, Error> {
        Ok(Self { pool: Arc::new(pool::Pool::new(socket_path(url)?)) })
    }

    /// The same, with calls over HTTP only: for what stands in between and understands nothing else.
    pub fn over_http(url: &str) -> Result<Self, Error> {
        Ok(Self { pool: Arc::new(pool::Pool::over_http(socket_path(url)?)) })
    }

    /// The engines of this kind, for all that take them.
    pub fn engines(&self) -> Engines {
        let shared = Arc::new(self.clone());
        Engines {
            sessions: Arc::clone(&shared) as _,
            tables: Arc::clone(&shared) as _,
            blobs: Arc::clone(&shared) as _,
            limits: Arc::clone(&shared) as _,
            locks: Arc::clone(&shared) as _,
            idempotency: Arc::clone(&shared) as _,
            cache: shared,
        }
    }
}

/// The path in a `unix:` URL, where `%` and two hexadecimal digits stand for a byte (RFC 3986, section 2.1).
fn socket_path(url: &str) -> Result<PathBuf, Error> {
    let refuse = |why: &str| {
        Err(Error::Invalid(format!("the state URL is `{url}`, expected unix:///path/to/state.sock: {why}")))
    };
    let Some(rest) = url.strip_prefix("unix:") else {
        return match url.split_once(':') {
            Some((scheme, _)) => refuse(&format!("`{scheme}` is not a way to reach the state API")),
            None => refuse("it has no scheme"),
        };
    };
    let escaped = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return refuse("three slashes go before the path, since there is no host"),
        None if rest.starts_with('/') => rest,
        None => return refuse("the path must be absolute"),
    };
    let mut path = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or_default()).to_digit(16);
        path.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => {
                    return refuse(
                        "a `%` in it is not followed by two hexadecimal digits; write `%25` for a `%`",
                    );
                }
            },
            b'?' | b'#' => {
                return refuse("it has a query or fragment; write `%3F` for a `?` and `%23` for a `#`");
            }
            other => other,
        });
    }
    let path = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
    if path.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
        return refuse(&format!("the path of a unix socket has at most {PATH_BYTES_MAX} bytes"));
    }
    if path.as_os_str().as_bytes().contains(&0) || path.as_os_str() == "/" {
        return refuse("the path names no file");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn urls_name_a_socket() {
        for (url, path) in [
            ("unix:///run/lethe/state.sock", "/run/lethe/state.sock"),
            ("unix:/run/state.sock", "/run/state.sock"),
            ("unix:///a b/50%25%3f.sock", "/a b/50%?.sock"),
        ] {
            assert_eq!(socket_path(url).unwrap(), Path::new(path), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_with_what_was_expected() {
        let long = format!("unix:///{}", "x".repeat(PATH_BYTES_MAX));
        for (url, part) in [
            ("http://127.0.0.1:6379", "`http` is not a way"),
            ("redis://localhost", "`redis` is not a way"),
            ("/run/state.sock", "no scheme"),
            ("", "no scheme"),
            ("unix://run/state.sock", "three slashes"),
            ("unix:run/state.sock", "absolute"),
            ("unix:///run/50%.sock", "write `%25`"),
            ("unix:///run/state.sock?x=1", "query"),
            ("unix:///", "names no file"),
            ("unix:///a%00b", "names no file"),
            (&long, "at most 107 bytes"),
        ] {
            let error = Remote::connect(url).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("expected unix:///path"), "{url}: {error}");
        }
    }
}

//! Looks for the notice that this machine is to go: in a file that somebody writes, or at a URL such as EC2's metadata, which
//! answers 404 until there is one.

use std::{
    fmt, io, iter,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use http::Uri;
use lethe_admin::{
    interruption::{self, Terms},
    stop::Stop,
    timestamp::Timestamp,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one question may take.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Largest answer, and largest file, that is read.
const NOTICE_BYTES_MAX: u64 = 16 << 10;
/// Where a token is given out, beside a URL of EC2's metadata (IMDSv2).
const TOKEN_PATH: &str = "/latest/api/token";
/// For how long a token is asked for, in seconds: the most that there is.
const TOKEN_SECONDS: u32 = 21_600;
/// A notice of a time that has passed for so long was for somebody else.
const STALE: Duration = Duration::from_secs(300);
/// The least that is left to whom a notice comes late.
const LEAST: Duration = Duration::from_secs(1);

/// Where and how often is looked, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// What follows; it holds for SIGTERM too.
    pub terms: Terms,
    /// A file that is there when the machine is to go.
    pub file: Option<PathBuf>,
    /// An `http` URL that answers 200 then.
    pub url: Option<Uri>,
    /// The URL wants a token (IMDSv2).
    pub token: bool,
    /// From one look to the next.
    pub every: Duration,
}

impl Interruption {
    /// Whether there is anywhere to look.
    pub(crate) fn is_looked_for(&self) -> bool {
        self.file.is_some() || self.url.is_some()
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { settle, deadline } = self.terms;
        write!(f, "settle {settle:?}, deadline {deadline:?}, every {:?}", self.every)?;
        if let Some(file) = &self.file {
            write!(f, ", {}", file.display())?;
        }
        if let Some(url) = &self.url {
            write!(f, ", {url} {} a token", if self.token { "with" } else { "without" })?;
        }
        Ok(())
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Notice {
    why: String,
    /// When the machine goes, if that is said.
    at: Option<SystemTime>,
}

/// Looks again and again, and turns `stop` at the first notice. Cancellation safe.
pub async fn watch(interruption: Interruption, stop: Stop) {
    let mut ticks = tokio::time::interval(interruption.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asker = Asker::default();
    loop {
        ticks.tick().await;
        let notice = match look(interruption.file.as_deref()).await {
            Some(notice) => Some(notice),
            None => asker.look(&interruption).await,
        };
        let Some(notice) = notice else { continue };
        let Some(deadline) = left(&notice, interruption.terms.deadline, SystemTime::now()) else {
            asker.say_once(format!("{}: its time is long over, so it is not heeded", notice.why));
            continue;
        };
        interruption::heed(&stop, &notice.why, Terms { deadline, ..interruption.terms });
        return;
    }
}

/// How much time a notice leaves; `None` if it is an old one.
fn left(notice: &Notice, default: Duration, now: SystemTime) -> Option<Duration> {
    let Some(at) = notice.at else { return Some(default) };
    match at.duration_since(now) {
        Ok(left) => Some(left.max(LEAST)),
        Err(over) => (over.duration() < STALE).then_some(LEAST),
    }
}

/// Looks at the file.
async fn look(file: Option<&Path>) -> Option<Notice> {
    let file = file?;
    // What cannot be read is there all the same.
    if !tokio::fs::try_exists(file).await.unwrap_or(false) {
        return None;
    }
    let mut text = String::new();
    if let Ok(open) = tokio::fs::File::open(file).await {
        let _ = open.take(NOTICE_BYTES_MAX).read_to_string(&mut text).await;
    }
    Some(read(&text, &format!("the notice {}", file.display())))
}

/// Reads a notice: EC2's instance action (`{"action": "terminate", "time": "…Z"}`), a time alone, or anything else, which is a
/// notice without a time.
fn read(text: &str, from: &str) -> Notice {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let time = json["time"].as_str().unwrap_or(text.trim());
    let action = json["action"].as_str().map(|action| format!(" ({action})")).unwrap_or_default();
    Notice { why: format!("{from}{action}"), at: moment(time) }
}

/// A time in UTC, with milliseconds or, as at EC2, without.
fn moment(text: &str) -> Option<SystemTime> {
    let with_ms = || Timestamp::parse(&format!("{}.000Z", text.strip_suffix('Z')?));
    Timestamp::parse(text).or_else(with_ms).map(Timestamp::system_time)
}

/// Asks the URL.
#[derive(Debug, Default)]
struct Asker {
    token: Option<String>,
    /// What was said last, so that it is not said again at each look.
    said: Option<String>,
}

impl Asker {
    async fn look(&mut self, interruption: &Interruption) -> Option<Notice> {
        let url = interruption.url.as_ref()?;
        match timeout(ANSWER_WAIT, self.ask(url, interruption.token)).await {
            Ok(Ok(Some(text))) => return Some(read(&text, &format!("the notice of {url}"))),
            Ok(Ok(None)) => self.said = None,
            Ok(Err(error)) => self.say_once(format!("{url} cannot be asked for a notice: {error}")),
            Err(_) => {
                self.say_once(format!("{url} cannot be asked for a notice: no answer in {ANSWER_WAIT:?}"))
            }
        }
        None
    }

    fn say_once(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.said = Some(text);
        }
    }

    /// The text of the notice, if there is one.
    async fn ask(&mut self, url: &Uri, with_token: bool) -> io::Result<Option<String>> {
        if with_token && self.token.is_none() {
            let field = format!("X-aws-ec2-metadata-token-ttl-seconds: {TOKEN_SECONDS}\r\n");
            let (status, token) = request("PUT", url, TOKEN_PATH, &field).await?;
            if status != 200 {
                return Err(io::Error::other(format!("{TOKEN_PATH} answered {status}")));
            }
            // It goes into a field.
            self.token = Some(token.chars().filter(char::is_ascii_graphic).collect());
        }
        let field = self.token.as_ref().map(|token| format!("X-aws-ec2-metadata-token: {token}\r\n"));
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        match request("GET", url, path, &field.unwrap_or_default()).await? {
            (200, text) => Ok(Some(text)),
            (404, _) => Ok(None),
            (status, _) => {
                // It may be over, or of another boot.
                self.token = None;
                Err(io::Error::other(format!("it answered {status}")))
            }
        }
    }
}

/// One request of HTTP/1.0, to whose answer the end of the connection is the end: status and body.
async fn request(method: &str, url: &Uri, path: &str, fields: &str) -> io::Result<(u16, String)> {
    let host = url.host().ok_or(io::ErrorKind::InvalidInput)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((bare, url.port_u16().unwrap_or(80))).await?;
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {authority}\r\n{fields}Content-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(NOTICE_BYTES_MAX).read_to_end(&mut answer).await?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| io::Error::other("its answer is no HTTP"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    let version = words.next().filter(|version| version.starts_with("HTTP/1."));
    let status = iter::once(version?).chain(words).nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices() {
        let at = |text: &str| Timestamp::parse(text).map(Timestamp::system_time);
        let time = "2026-09-18T08:22:00.000Z";
        for (text, why, expected) in [
            (r#"{"action": "terminate", "time": "2026-09-18T08:22:00Z"}"#, "it (terminate)", at(time)),
            (r#"{"action": "stop"}"#, "it (stop)", None),
            ("2026-09-18T08:22:00Z\n", "it", at(time)),
            (time, "it", at(time)),
            ("", "it", None),
            ("soon", "it", None),
        ] {
            assert_eq!(read(text, "it"), Notice { why: why.into(), at: expected }, "{text}");
        }
        assert!(at(time).is_some());
    }

    #[test]
    fn what_time_is_left() {
        let now = SystemTime::now();
        let (minute, default) = (Duration::from_secs(60), Duration::from_secs(120));
        let notice = |at| Notice { why: String::new(), at };
        for (at, expected) in [
            (None, Some(default)),
            (Some(now + minute), Some(minute)),
            (Some(now), Some(LEAST)),
            (Some(now - minute), Some(LEAST)),
            (Some(now - 10 * minute), None),
        ] {
            assert_eq!(left(&notice(at), default, now), expected);
        }
    }

    #[test]
    fn answers() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n"), Some((200, "body\r\n\r\n".into())));
        assert_eq!(parse("HTTP/1.0 404 Not Found\r\n\r\n"), Some((404, String::new())));
        for text in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}

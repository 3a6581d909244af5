//! Runs a service's `build` command before its first worker, line by line to whoever watches.

use std::{path::Path, process::Stdio};

use lethe_model::service::ServiceName;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    sync::mpsc,
};

/// Last lines of a failed build that its error repeats.
const TAIL_LINES: usize = 30;
/// Lines read ahead of whoever watches.
const LINES_AHEAD: usize = 64;

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command could not be started.
    #[error("{service}: the build command `{command}` cannot be started")]
    Start {
        /// The service.
        service: ServiceName,
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ran and failed.
    #[error("{service}: the build failed ({status}); its command: {command}\n{tail}")]
    Failed {
        /// The service.
        service: ServiceName,
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines that it printed.
        tail: String,
    },
}

/// Runs `command` in `directory` and gives each line it prints to `watch`. Dropping the future kills the build.
pub async fn run(
    service: &ServiceName,
    command: &[String],
    directory: &Path,
    mut watch: impl FnMut(&str),
) -> Result<(), Error> {
    let shown = shell_words::join(command);
    let start = |source| Error::Start { service: service.clone(), command: shown.clone(), source };
    let (program, arguments) =
        command.split_first().ok_or_else(|| start(std::io::ErrorKind::InvalidInput.into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        tokio::spawn(read_lines(stdout, sender.clone()));
        tokio::spawn(read_lines(stderr, sender));
    }
    let mut tail = std::collections::VecDeque::with_capacity(TAIL_LINES);
    while let Some(line) = lines.recv().await {
        watch(&line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    let status = child.wait().await.map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let tail = Vec::from(tail).join("\n");
    Err(Error::Failed { service: service.clone(), command: shown, status, tail })
}

async fn read_lines(pipe: impl AsyncRead + Unpin, sender: mpsc::Sender<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if sender.send(text).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn build(script: &str) -> (Result<(), Error>, Vec<String>) {
        let service = ServiceName::new("web").unwrap();
        let command = ["sh", "-c", script].map(String::from);
        let mut lines = Vec::new();
        let result = run(&service, &command, Path::new("/"), |line| lines.push(line.to_owned())).await;
        (result, lines)
    }

    #[tokio::test]
    async fn shows_its_lines() {
        let (result, lines) = build("echo one; echo two").await;
        assert!(result.is_ok());
        assert_eq!(lines, ["one", "two"]);
    }

    #[tokio::test]
    async fn failure_repeats_the_last_lines() {
        let (result, _) = build("seq 100; echo wrong >&2; exit 3").await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("wrong"), "{error}");
    }
}

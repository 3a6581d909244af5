//! Nothing that a test starts outlives it. What is started in a place has the place's folder in its environment, however many
//! processes are in between, and so is found again, also when nobody knows its number: as that of a `lethe` that has taken over.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use crate::lethe::{alive, kill_9, pid};

/// After so long, what has not ended does not.
const PATIENCE: Duration = Duration::from_secs(120);
/// Times that what runs is looked for: what has not been killed yet may start more.
const LOOKS_MAX: usize = 100;

/// The environment variable with the folder: where `lethe` puts its sockets, too.
pub const VARIABLE: &str = "XDG_RUNTIME_DIR";

/// Waits for the end of the tests, however that comes, and kills what is left of them.
const SCRIPT: &str = r#"
read -r _
for environ in /proc/[0-9]*/environ; do
    if grep -zqs "^$1" "$environ"; then
        process=${environ#/proc/}
        kill -9 "${process%/environ}" 2>/dev/null
    fi
done
"#;

/// A process that was started in a place and runs.
#[derive(Debug)]
pub struct Started {
    pub pid: u32,
    #[allow(dead_code, reason = "is shown")]
    command: String,
}

/// What the names of all folders of this process begin with.
pub fn prefix() -> anyhow::Result<String> {
    struct Custodian {
        _process: Child,
        /// The kernel closes it with this process.
        _alive: ChildStdin,
    }
    static CUSTODIAN: OnceLock<Result<Custodian, String>> = OnceLock::new();
    // Short, since names of sockets are bounded.
    let prefix = format!("le-{:x}-", std::process::id());
    let start = || {
        let folders = std::env::temp_dir().join(&prefix);
        let found = format!("{VARIABLE}={}", folders.display());
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &found])
            .env_remove(VARIABLE)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let alive = process.stdin.take().ok_or("no pipe")?;
        Ok(Custodian { _process: process, _alive: alive })
    };
    match CUSTODIAN.get_or_init(start) {
        Ok(_) => Ok(prefix),
        Err(why) => anyhow::bail!("the custodian did not start: {why}"),
    }
}

/// What was started in this folder and runs.
pub fn started_in(folder: &Path) -> Vec<Started> {
    let mark = format!("{VARIABLE}={}", folder.display());
    let is_marked = |environ: &[u8]| environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
    let look = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str().context("no number").ok()?.parse().ok()?;
        // One that belongs to somebody else cannot be looked into, and was not started here.
        let environ = fs::read(entry.path().join("environ")).ok()?;
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
        (is_marked(&environ) && alive(pid)).then_some(Started { pid, command })
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(look).collect()
}

/// Kills all that was started in this folder.
pub fn end_all(folder: &Path) {
    for _ in 0..LOOKS_MAX {
        let left = started_in(folder);
        if left.is_empty() {
            return;
        }
        for process in left {
            // It has ended by itself if this fails.
            let _ = kill_9(process.pid);
        }
    }
}

/// Waits until a process has ended.
pub async fn gone(number: u32) -> anyhow::Result<()> {
    // It may have been reaped already.
    let Ok(process) = pidfd_open(pid(number)?, PidfdFlags::NONBLOCK) else { return Ok(()) };
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, which `AsyncFd` does last.
    let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
    tokio::time::timeout(PATIENCE, process.readable())
        .await
        .with_context(|| format!("{number} lives on"))??
        .retain_ready();
    Ok(())
}

/// Should the tests be killed, the custodian ends what they have started, and that alone.
#[test]
fn it_ends_what_is_marked() -> anyhow::Result<()> {
    let (mark, other) = ("lethe-e2e-custodian-test-", "lethe-e2e-custodian-other-");
    let sleeper = |mark: &str| Command::new("sleep").arg("1000").env(VARIABLE, format!("/{mark}1")).spawn();
    let (mut marked, mut unmarked) = (sleeper(mark)?, sleeper(other)?);
    let mut custodian = Command::new("sh")
        .args(["-c", SCRIPT, "sh", &format!("{VARIABLE}=/{mark}")])
        .env_remove(VARIABLE)
        .stdin(Stdio::piped())
        .spawn()?;
    drop(custodian.stdin.take());
    custodian.wait()?;
    let (ended, runs) = (marked.wait()?, unmarked.try_wait()?.is_none());
    unmarked.kill()?;
    unmarked.wait()?;
    anyhow::ensure!(ended.signal() == Some(9) && runs, "{ended}");
    Ok(())
}

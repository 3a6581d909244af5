//! `lethe prove` in a temporary folder of its own, and the store that fixed twins keep things in.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// Set where worlds cannot be made, and tests of them are left out on purpose.
const WITHOUT_WORLDS: &str = "LETHE_TEST_WITHOUT_WORLDS";

/// A folder for a test; what `lethe` makes for itself is in `scratch`, so that it is seen whether anything stays.
pub struct Lab {
    folder: TempDir,
}

/// What came of it.
pub struct Proof {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
    /// The report; `Null` if there is none.
    pub json: Value,
}

/// The same command where no namespaces can be made: by a user who may do nothing, in a user namespace that has no room for another.
pub fn without_privileges(command: &Command) -> Command {
    const DROP: &str = "echo 0 > /proc/sys/user/max_user_namespaces || exit 99; \
        exec setpriv --bounding-set=-all --inh-caps=-all --securebits=+noroot \"$@\"";
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--user", "--map-root-user", "sh", "-c", DROP, "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    wrapped
}

/// Whether tests that need worlds are left out on purpose.
pub fn is_without_worlds() -> bool {
    std::env::var_os(WITHOUT_WORLDS).is_some()
}

/// Whether [`without_privileges`] can do that here. If not, it is said: in many containers there are no user namespaces.
pub fn can_lose_privileges() -> bool {
    let done = without_privileges(&Command::new("true")).output().is_ok_and(|done| done.status.success());
    if !done {
        println!("NOT TESTED: privileges cannot be taken away here, since there are no user namespaces");
    }
    done && !is_without_worlds()
}

/// Where the examples are.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/violations").canonicalize().unwrap()
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("scratch")).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where `lethe` makes its folder.
    pub fn scratch(&self) -> PathBuf {
        self.path().join("scratch")
    }

    /// Where `lethe` remembers the last proof.
    fn remembered(&self) -> PathBuf {
        self.path().join("remembered")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `lethe prove --journey JOURNEY -- COMMAND…` in `folder`.
    pub fn command(&self, folder: &Path, journey: &Path, command: &[&str]) -> Command {
        self.command_with(&[], folder, journey, command)
    }

    /// The same with more flags.
    pub fn command_with(&self, flags: &[&str], folder: &Path, journey: &Path, command: &[&str]) -> Command {
        let mut lethe = self.lethe(flags);
        lethe.arg("--journey").arg(journey).arg("--").args(command).current_dir(folder);
        lethe
    }

    /// `lethe prove` with these flags, for a machine on which a start may take long. It writes `proof.json`, unless `--ci` says where.
    pub fn lethe(&self, flags: &[&str]) -> Command {
        let mut lethe = Command::new(env!("CARGO_BIN_EXE_lethe"));
        let is_patient = flags.contains(&"--start-timeout");
        lethe
            .arg("prove")
            .args(flags)
            .args(if is_patient { &[][..] } else { &["--start-timeout", "300"] })
            .args(std::env::var_os(WITHOUT_WORLDS).map(|_| "--copied"))
            .env("TMPDIR", self.scratch())
            .env("XDG_STATE_HOME", self.remembered())
            .stdin(Stdio::null());
        if !flags.contains(&"--ci") {
            lethe.arg("--json").arg(self.path().join("proof.json"));
        }
        lethe
    }

    pub fn prove(&self, folder: &Path, journey: &Path, command: &[&str]) -> Proof {
        self.run(&mut self.command(folder, journey, command))
    }

    /// `lethe prove --replay …` in `folder`, of what was proven there last.
    pub fn replay(&self, folder: &Path, words: &[&str]) -> Proof {
        let mut lethe = Command::new(env!("CARGO_BIN_EXE_lethe"));
        lethe.args(["prove", "--replay"]).args(words).current_dir(folder);
        self.run(lethe.env("TMPDIR", self.scratch()))
    }

    pub fn run(&self, command: &mut Command) -> Proof {
        let output = command.env("XDG_STATE_HOME", self.remembered()).output().unwrap();
        let json = fs::read(self.path().join("proof.json")).ok();
        let proof = Proof {
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            json: json.map_or(Value::Null, |json| serde_json::from_slice(&json).unwrap()),
        };
        let left: Vec<_> = fs::read_dir(self.scratch()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?} was left\n{}", proof.text());
        proof
    }
}

impl Proof {
    /// All that was printed, for messages.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}", self.status, self.err, self.out)
    }

    /// Whether workers were kept apart well enough for what this test is about. Fails if not, unless that was allowed; then it
    /// says so loudly.
    pub fn has_worlds(&self) -> bool {
        let isolation = self.json["coverage"]["isolation"].as_str().unwrap_or_default();
        let has = isolation.starts_with("overlay");
        if !has {
            assert!(
                is_without_worlds(),
                "worlds cannot be made here; {WITHOUT_WORLDS}=1 leaves the tests of them out\n{}",
                self.text()
            );
            println!(
                "NOT TESTED: worlds cannot be made here ({isolation}): {}",
                self.json["coverage"]["notices"]
            );
        }
        has
    }
}

/// A store beside, on this machine's loopback. Killed when dropped.
pub struct Store {
    child: Child,
    pub url: String,
}

impl Store {
    pub fn start() -> Self {
        let mut child = Command::new("python3")
            .args([examples().join("store.py").as_os_str(), OsStr::new("0")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, url: format!("http://127.0.0.1:{}", line.trim()) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The outer process of a world: makes the namespaces and waits for the first process inside. A process number belongs to
//! the namespace it was started in, so the one who makes the namespace cannot be in it.

use std::{
    fs, io,
    os::fd::OwnedFd,
    process::{Command, ExitCode},
};

use rustix::{
    process::{getegid, geteuid},
    thread::UnshareFlags,
};

use super::{Level, Reply, Spec, channel::Channel};

/// The hidden verb that starts [`super::init`].
const INIT_VERB: &str = "world-init";

/// Runs as the outer process; `spec` is the argument that it was started with, and its standard input is the channel.
/// Ends when the world has.
pub fn outer(spec: &str) -> ExitCode {
    match run(spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Who asked may have gone.
            let _ = channel().and_then(|channel| channel.send(&Reply::NoWorld(error.to_string()), &[]));
            ExitCode::FAILURE
        }
    }
}

fn run(spec: &str) -> io::Result<()> {
    let level = serde_json::from_str::<Spec>(spec)?.level;
    namespaces(level)?;
    let mut init =
        Command::new("/proc/self/exe").args([INIT_VERB, spec]).stdin(channel()?.into_socket()).spawn()?;
    // Only the inside holds this end now, so that it is seen when that is gone.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    init.wait()?;
    Ok(())
}

/// The channel, as another descriptor of standard input.
fn channel() -> io::Result<Channel> {
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    Ok(Channel::of(socket))
}

fn namespaces(level: Level) -> io::Result<()> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    if level == Level::Copied {
        return Ok(());
    }
    if level == Level::UserOverlay {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        unshare(UnshareFlags::NEWUSER).map_err(told("cannot make a user namespace"))?;
        // user_namespaces(7): an unprivileged process may map only itself, and must give up `setgroups` first.
        fs::write("/proc/self/setgroups", "deny").map_err(told("cannot give up setgroups"))?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1")).map_err(told("cannot map the user"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1")).map_err(told("cannot map the group"))?;
    }
    let all = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    unshare(all | UnshareFlags::NEWUTS).map_err(told("cannot make namespaces"))
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsafe only for `FILES`, which is not among the flags; and this process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

//! Random numbers that come again: the system call `getrandom` is answered by the first process of a world instead of the
//! kernel (`seccomp_unotify(2)`), in any language and without a library in the service. Two workers that are started with
//! one seed make the same secret at boot, if they make it of this; so a secret of boot can be told from memory.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::{fs::FileExt, process::CommandExt},
    },
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::channel::Channel;

/// Most bytes of one answer; more are asked for again, as after a signal (`getrandom(2)`).
const ANSWER_BYTES_MAX: usize = 256;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Whether this machine's system calls are known here.
pub const IS_KNOWN: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Starts `command` with random numbers that are drawn from `seed`, for each of its threads in the order of its calls, until
/// `has_booted`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn spawn(command: &mut Command, seed: u64, has_booted: Arc<AtomicBool>) -> io::Result<Child> {
    let (here, there) = Channel::pair()?;
    // SAFETY: between fork and exec it makes system calls only, on memory that is its own, and locks nothing.
    unsafe {
        command.pre_exec(move || {
            let listener = filter()?;
            hand_over(&there, &listener)
        });
    }
    let child = command.spawn()?;
    let (_, mut files): ((), _) = here.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let listener = files.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
    thread::Builder::new().name("entropy".into()).spawn(move || answer(&listener, seed, &has_booted))?;
    Ok(child)
}

/// Starts `command` as it is.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn spawn(command: &mut Command, _: u64, _: Arc<AtomicBool>) -> io::Result<Child> {
    command.spawn()
}

/// Sends the listener with the message that [`Channel::receive`] reads as `()`, without any allocation.
fn hand_over(channel: &Channel, listener: &OwnedFd) -> io::Result<()> {
    channel.send_raw(b"null", &[listener.as_fd()])
}

/// Has the calls of this process and its children be asked about; the listener is closed by exec.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn filter() -> io::Result<OwnedFd> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // `seccomp_data`: the number at 0, the architecture at 4.
        step(LOAD, 0, 0, 4),
        step(IF_EQUAL, 0, 3, ARCHITECTURE),
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, 0, 1, libc::SYS_getrandom as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives until after the call, which copies it (seccomp(2)); the result is a new descriptor.
    unsafe {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) {
            listener if listener >= 0 => Ok(OwnedFd::from_raw_fd(listener as i32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Answers until nobody is left to ask.
fn answer(listener: &OwnedFd, seed: u64, has_booted: &AtomicBool) {
    let mut calls: HashMap<u32, u64> = HashMap::new();
    while is_asked(listener) {
        // SAFETY: all zeros is a valid question, and the kernel wants it so.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a `seccomp_notif` there.
        let asked =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut question) };
        if asked != 0 {
            match io::Error::last_os_error().raw_os_error() {
                // Who asked is gone, or a signal came.
                Some(libc::ENOENT | libc::EINTR) => continue,
                _ => return,
            }
        }
        let call = calls.entry(question.pid).or_default();
        let [buffer, length, ..] = question.data.args;
        let mut length = ANSWER_BYTES_MAX.min(usize::try_from(length).unwrap_or(usize::MAX));
        let mut bytes = [0; ANSWER_BYTES_MAX];
        if has_booted.load(Ordering::Relaxed) {
            length = kernels(&mut bytes[..length]);
        } else {
            fill(&mut bytes[..length], seed ^ u64::from(question.pid) << 40 ^ *call);
        }
        *call += 1;
        let written = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/mem", question.pid))
            // If it still waits now, the number was its own when this was opened.
            .and_then(|memory| if waits(listener, question.id) { Ok(memory) } else { Err(gone()) })
            .and_then(|memory| memory.write_all_at(&bytes[..length], buffer));
        let mut response =
            libc::seccomp_notif_resp { id: question.id, val: length as i64, error: 0, flags: 0 };
        if written.is_err() {
            (response.val, response.error) = (0, -libc::EFAULT);
        }
        // Who asked may be gone meanwhile.
        // SAFETY: the kernel reads a `seccomp_notif_resp` there.
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    }
}

/// Waits for a question; false when nobody is left to ask, which reading alone does not always tell.
fn is_asked(listener: &OwnedFd) -> bool {
    loop {
        let mut waiting = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return waiting[0].revents().contains(PollFlags::IN),
        }
    }
}

/// Whether who asked still waits for the answer (`SECCOMP_IOCTL_NOTIF_ID_VALID`).
fn waits(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: the kernel reads a number there.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// What the kernel itself would answer; the number of bytes. Short only when a signal came.
fn kernels(bytes: &mut [u8]) -> usize {
    // SAFETY: the kernel writes at most as many bytes as there are.
    let read = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    usize::try_from(read).unwrap_or(0)
}

/// SplitMix64 (Steele, Lea and Flood, 2014): even, and different for each seed; nothing here is a secret.
fn fill(bytes: &mut [u8], mut state: u64) {
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again() {
        let drawn = |seed| {
            let mut bytes = [0; 20];
            fill(&mut bytes, seed);
            bytes
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }
}

//! A channel between `lethe` and a world: whole messages, which may carry open files (`unix(7)`, `SCM_RIGHTS`). A socket
//! that was made inside a network namespace stays in it wherever it is used, so no thread has to enter the namespace.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 128 << 10;

/// Most open files in a message; the kernel's own limit is 253 (`SCM_MAX_FD`).
pub const FILES_MAX: usize = 128;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends of a new one.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    /// The socket itself, to be handed to another process.
    pub fn into_socket(self) -> OwnedFd {
        self.0
    }

    /// An end that was handed to this process.
    pub fn of(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends `message` with `files`, of which there may be [`FILES_MAX`]. Waits while the other end does not read.
    pub fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_raw(&serde_json::to_vec(message)?, files)
    }

    /// Sends a message that is JSON already. Allocates nothing, so that it may be called between fork and exec.
    pub fn send_raw(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.len() > MESSAGE_BYTES_MAX || files.len() > FILES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Ends it: both ends read that no more comes, also while others still hold this one.
    pub fn end(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// The next message and its files; `None` when the other end is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        });
        let received = match received {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            received => received?,
        };
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut"));
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, files)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn messages_are_whole_and_carry_files() {
        let (here, there) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        file.rewind().unwrap();
        here.send(&"one", &[file.as_fd(), file.as_fd()]).unwrap();
        here.send(&"two", &[]).unwrap();
        let (text, mut files): (String, _) = there.receive().unwrap().unwrap();
        assert_eq!((text.as_str(), files.len()), ("one", 2));
        let mut read = String::new();
        File::from(files.remove(0)).read_to_string(&mut read).unwrap();
        assert_eq!(read, "inside");
        assert_eq!(there.receive::<String>().unwrap().unwrap().0, "two");
        drop(here);
        assert!(there.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn what_is_too_large_is_not_sent() {
        let (here, _there) = Channel::pair().unwrap();
        assert!(here.send(&"x".repeat(MESSAGE_BYTES_MAX), &[]).is_err());
    }
}

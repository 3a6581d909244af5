//! Accepts client connections, each of which becomes a task of its own.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SocketFlags, acceptfrom_with},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    connection,
    core::{Books, Core},
    tls::Acceptor,
    watch::{Phase, Watched},
};

/// How long a core stops accepting when it has no file descriptor left, or the last connection is open.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// One of a core's listeners, and how those who come through it are treated.
pub(crate) struct Door {
    listener: AsyncFd<TcpListener>,
    manner: Manner,
}

impl Door {
    /// A listener that does not block.
    pub(crate) fn new(listener: TcpListener, manner: Manner) -> io::Result<Self> {
        // SAFETY: a `TcpListener` has one descriptor all its life, and this one is only ever looked at until it is dropped.
        let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
        Ok(Self { listener, manner })
    }
}

/// How a connection begins.
#[derive(Clone)]
pub(crate) struct Manner {
    /// With TLS.
    pub(crate) tls: Option<Acceptor>,
    /// With a PROXY protocol header, before anything else.
    pub(crate) proxy_protocol: bool,
}

/// Accepts connections at all doors until dropped.
pub(crate) async fn run(core: &Rc<Core>, doors: &[Door]) {
    let mut attended: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> =
        doors.iter().map(|door| Box::pin(attend(core, door)) as _).collect();
    std::future::poll_fn(|cx: &mut Context<'_>| {
        for door in &mut attended {
            let _ = door.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

async fn attend(core: &Rc<Core>, door: &Door) {
    loop {
        if !core.has_room() {
            // Those who wait do so in the kernel's queue. Another core may make room, hence the timeout.
            let _ = tokio::time::timeout(FULL_PAUSE, core.moved.notified()).await;
            continue;
        }
        // Those who are connected have their turn between two of those who come.
        tokio::task::consume_budget().await;
        let next = door.listener.readable().await.and_then(|mut ready| {
            let next = accept(ready.get_inner());
            // Nobody else is here yet, nor does the runtime hear of anybody before this has been noted: who comes then wakes it.
            if !others_wait(ready.get_inner()) {
                ready.clear_ready();
            }
            next
        });
        match next {
            Ok((stream, peer)) => start(core, &door.manner, stream, peer),
            Err(error) if is_of_connection(&error) || error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; raise the limit of open files if it is reached");
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
    }
}

/// Takes what the kernel has accepted already, so that closing the listeners resets nobody.
pub(crate) fn rest(core: &Rc<Core>, doors: Vec<Door>) {
    for Door { listener, manner } in doors {
        while core.has_room()
            && let Ok((stream, peer)) = accept(listener.get_ref())
        {
            start(core, &manner, stream, peer);
        }
    }
}

/// Takes the next connection, as one that does not block. The runtime does not watch it yet.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|peer| peer.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), peer))
}

/// Whether there is a next connection. The kernel makes a socket before it looks whether there is somebody for it, so an
/// `accept` in vain costs it eight times as much as this question.
fn others_wait(listener: &TcpListener) -> bool {
    let mut asked = [PollFd::new(listener, PollFlags::IN)];
    // Asked in vain, `accept` will say what is wrong.
    !matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
}

/// Errors of the connection that would have been accepted, not of the listener (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}

fn start(core: &Rc<Core>, manner: &Manner, stream: TcpStream, peer: SocketAddr) {
    let watched = Watched::new(Phase::Head);
    let books = Books::of_connection(core);
    let id = books.id();
    let (serving_core, serving_watched, manner) = (Rc::clone(core), Rc::clone(&watched), manner.clone());
    // Made inside: a future that is made outside and moved in takes its room twice. Boxed, since the runtime moves what it is
    // given several times.
    let task = tokio::task::spawn_local(Box::pin(async move {
        let _books = books;
        connection::serve(serving_core, serving_watched, manner, stream, peer).await;
    }));
    core.opened(id, watched, task.abort_handle());
}

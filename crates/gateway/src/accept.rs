//! Accepts client connections and serves each in a task of its own.

use std::{io, rc::Rc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use crate::{
    buffer::Buffer,
    client::Client,
    core::{Books, Core},
    http1,
    socket::Socket,
    watch::{Phase, Watched},
};

/// How long to wait when the process has no file descriptor left, or the last connection is open.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until dropped.
pub(crate) async fn run(core: &Rc<Core>, listener: &TcpListener) {
    let mut id = 0;
    loop {
        if !core.has_room() {
            // Those who wait do so in the kernel's queue. Another core may make room, hence the timeout.
            let _ = tokio::time::timeout(FULL_PAUSE, core.moved.notified()).await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                id += 1;
                start(core, id, stream, peer);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; raise the limit of open files if it is reached");
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
    }
}

/// Takes what the kernel has accepted already, so that closing the listener resets nobody.
pub(crate) fn rest(core: &Rc<Core>, listener: TcpListener) {
    let Ok(listener) = listener.into_std() else { return };
    // Apart from those of `run`, which count upwards from 1.
    let mut id = u64::MAX;
    while core.has_room()
        && let Ok((stream, peer)) = listener.accept()
    {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            start(core, id, stream, peer);
            id -= 1;
        }
    }
}

/// Errors of the connection that would have been accepted, not of the listener (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}

fn start(core: &Rc<Core>, id: u64, stream: TcpStream, peer: std::net::SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "client connection ended before it began");
        return;
    }
    let watched = Watched::new(Phase::Head);
    let books = Books::new(core, id);
    let task = tokio::task::spawn_local({
        let (core, watched) = (Rc::clone(core), Rc::clone(&watched));
        async move {
            let _books = books;
            let client = Client::new(peer, false);
            http1::serve(core, client, watched, Socket::Tcp(stream), Buffer::default()).await;
        }
    });
    core.opened(id, watched, task.abort_handle());
}

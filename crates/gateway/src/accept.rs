//! Accepts client connections, each of which becomes a task of its own.

use std::{
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

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
    pub(crate) listener: TcpListener,
    pub(crate) manner: Manner,
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
        match door.listener.accept().await {
            Ok((stream, peer)) => start(core, &door.manner, stream, peer),
            Err(error) if is_of_connection(&error) => {}
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
        let Ok(listener) = listener.into_std() else { continue };
        while core.has_room()
            && let Ok((stream, peer)) = listener.accept()
        {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                start(core, &manner, stream, peer);
            }
        }
    }
}

/// Errors of the connection that would have been accepted, not of the listener (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}

fn start(core: &Rc<Core>, manner: &Manner, stream: TcpStream, peer: std::net::SocketAddr) {
    let watched = Watched::new(Phase::Head);
    let books = Books::of_connection(core);
    let id = books.id();
    let (serving_core, serving_watched, manner) = (Rc::clone(core), Rc::clone(&watched), manner.clone());
    // Made inside: a future that is made outside and moved in takes its room twice.
    let task = tokio::task::spawn_local(async move {
        let _books = books;
        connection::serve(serving_core, serving_watched, manner, stream, peer).await;
    });
    core.opened(id, watched, task.abort_handle());
}

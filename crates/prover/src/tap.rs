//! A connection that says how far a request has come, so that its worker can be killed at a moment that is the same each time.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use lethe_journey::destination::Destination;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// Which moment is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The request was written to its end.
    Sent,
    /// The same, and nothing is given to who reads after it: the worker is to be killed before its answer counts.
    Delivered,
    /// Something of the response is there; it is not given to who reads, and nothing after it.
    Answering,
}

/// A destination whose first connection tells of `event`.
pub(crate) fn tapped(of: &Destination, event: Event) -> (Destination, oneshot::Receiver<()>) {
    let (tell, told) = oneshot::channel();
    let (of, tell) = (of.clone(), Arc::new(Mutex::new(Some(tell))));
    let connect = of.name().to_owned();
    let destination = Destination::by(connect, move || {
        let (of, tell) = (of.clone(), Arc::clone(&tell));
        async move {
            let stream = of.connect().await?;
            Ok(Tap { stream, event, tell, has_written: false, is_deaf: false })
        }
    });
    (destination, told)
}

struct Tap<S> {
    stream: S,
    event: Event,
    tell: Arc<Mutex<Option<oneshot::Sender<()>>>>,
    has_written: bool,
    /// Whether it has told, and gives nothing to read any more.
    is_deaf: bool,
}

impl<S> Tap<S> {
    /// Tells it if it was not told yet; whether there was anybody.
    fn tell(&self) -> bool {
        let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner).take();
        tell.is_some_and(|tell| tell.send(()).is_ok())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Pending;
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let has_come = into.filled().len() > before;
        if has_come && self.has_written && self.event == Event::Answering && self.tell() {
            self.is_deaf = true;
            into.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.has_written |= !bytes.is_empty();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// A client flushes when it has written all of a request.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.has_written && matches!(self.event, Event::Sent | Event::Delivered) {
            let has_told = self.tell();
            self.is_deaf |= has_told && self.event == Event::Delivered;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! In how many system calls responses go out.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::*;

const RESPONSES: usize = 10;

/// A socket whose writes are counted.
struct Counted(TcpStream, Rc<Cell<usize>>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[test]
fn responses_that_are_ready_together_are_written_together() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let writes = Rc::new(Cell::new(0));
        let counted = Rc::clone(&writes);
        tokio::task::spawn_local(async move {
            let stream = Counted(listener.accept().await.unwrap().0, counted);
            let on_request = |request, stream| {
                tokio::task::spawn_local(answer(request, stream));
            };
            serve(
                stream,
                &Limits::default(),
                super::super::Leaving { draining: std::future::pending(), parting: std::future::pending() },
                on_request,
            )
            .await;
        });
        let mut peer = Peer::greet(address).await;
        // What comes back is as long, and so longer than what h2 copies for a socket that takes several pieces at once.
        let padded = request("GET", &[("x-pad", &"x".repeat(400))]);
        let streams = (0..RESPONSES as u32).map(|number| 2 * number + 1);
        let all = streams.map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &padded));
        let before = writes.get();
        peer.send(&all.collect::<Vec<_>>().concat()).await;
        for _ in 0..RESPONSES {
            peer.until(|frame| frame.kind == DATA && frame.ends_stream()).await;
        }
        let took = writes.get() - before;
        assert!(took <= RESPONSES / 2, "{took} writes for {RESPONSES} responses");
    });
}

//! What follows a 101: bytes passed both ways between client and worker until both have ended, with the worker's gate
//! held so that it counts as a request inside.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use crate::{
    buffer::LARGE_BYTES,
    core::Core,
    downstream::{Downstream, Piece},
    link::Link,
    queue::Pass,
    record::Record,
    watch::{Phase, Watched},
};

/// Passes bytes until both directions have ended or one has failed. Either side may just vanish; that is how such
/// connections end.
pub(crate) async fn run(
    core: &Rc<Core>,
    watched: &Rc<Watched>,
    down: &mut impl Downstream,
    link: &mut Link,
    record: &Record,
    _pass: Option<Pass>,
) {
    let (mut upward, mut downward) = (Upward::default(), Downward::default());
    std::future::poll_fn(|cx| {
        watched.remember(cx.waker());
        let moved = |_: usize| watched.enter(Phase::Tunnel);
        let up = upward.pass(cx, down, link, moved);
        let back = downward.pass(cx, core, down, link, |count| {
            record.sent(count);
            moved(count);
        });
        match (up, back) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}

/// From the client to the worker.
#[derive(Default)]
struct Upward {
    bytes: Vec<u8>,
    sent: usize,
    ended: bool,
    done: bool,
}

impl Upward {
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut impl Downstream,
        link: &mut Link,
        moved: impl Fn(usize),
    ) -> Poll<Result<(), ()>> {
        while !self.done {
            if self.sent < self.bytes.len() {
                let count = ready!(link.poll_write_raw(cx, &self.bytes[self.sent..])).map_err(|_| ())?;
                if count == 0 {
                    return Poll::Ready(Err(()));
                }
                self.sent += count;
                moved(count);
                continue;
            }
            if self.ended {
                ready!(link.poll_end_raw(cx)).map_err(|_| ())?;
                self.done = true;
                break;
            }
            self.bytes.clear();
            self.sent = 0;
            match down.poll_body(cx, &mut self.bytes, LARGE_BYTES).map_err(|_| ())? {
                Poll::Ready(Piece::Data(_)) => {}
                Poll::Ready(Piece::End(_)) => self.ended = true,
                Poll::Pending => {
                    // It may be long until something comes, and there may be many who say nothing.
                    self.bytes = Vec::new();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// From the worker to the client.
#[derive(Default)]
struct Downward {
    ended: bool,
    done: bool,
}

impl Downward {
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        down: &mut impl Downstream,
        link: &mut Link,
        moved: impl Fn(usize),
    ) -> Poll<Result<(), ()>> {
        while !self.done {
            if self.ended {
                ready!(down.poll_finish(cx, b"")).map_err(|_| ())?;
                self.done = true;
                break;
            }
            let read = match link.poll_raw(cx, &core.pool) {
                Poll::Ready(read) => read.map_err(|_| ())?,
                Poll::Pending => {
                    let _ = down.poll_flush(cx).map_err(|_| ())?;
                    return Poll::Pending;
                }
            };
            if read == 0 {
                self.ended = true;
                continue;
            }
            let count = ready!(down.poll_write(cx, &link.data()[..read])).map_err(|_| ())?;
            link.took(count);
            moved(count);
        }
        Poll::Ready(Ok(()))
    }
}

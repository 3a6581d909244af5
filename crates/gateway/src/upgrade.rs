//! What follows a 101: bytes passed both ways between client and worker until either ends, with the worker's gate
//! held so that it counts as a request inside.

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use crate::{link::Link, queue::Pass};

/// The worker's half of an agreed upgrade.
pub(crate) struct Tunnel {
    pub(crate) link: Box<Link>,
    pub(crate) pass: Pass,
}

impl Tunnel {
    /// Passes bytes until both directions have ended or one has failed. `received` came from the client after its
    /// request and belongs to the new protocol.
    pub(crate) async fn run(self, mut client: TcpStream, received: Bytes) {
        let Self { link, pass: _pass } = self;
        let Some((mut worker, sent)) = link.into_upgraded().await else { return };
        let through = async {
            worker.write_all(&received).await?;
            client.write_all(&sent).await?;
            copy_bidirectional(&mut client, &mut worker).await
        };
        // Either side may just vanish; that is how such connections end.
        if let Err(error) = through.await {
            tracing::debug!(%error, "upgraded connection ended");
        }
    }
}

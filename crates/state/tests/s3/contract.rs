//! The contract of blobs, on both servers. Parts are as small as they may be, so that larger blobs have several.

mod on_s3s {
    use lethe_state::contract::Fixture;

    use crate::server::{self, Server};

    async fn engine() -> Fixture {
        let server = Server::start().await;
        server::fixture(&server.url("&part_mib=5")).keeping(server)
    }

    lethe_state::contract_blobs!(engine);
}

mod on_moto {
    use lethe_state::contract::Fixture;

    use crate::{moto, server};

    async fn engine() -> Fixture {
        server::fixture(&moto::shared().url("&part_mib=5").parse().unwrap())
    }

    lethe_state::contract_blobs!(engine);
}

//! The contract of every kind of state, through both ends of the API: with calls in frames, and over HTTP alone.

use lethe_state::{contract::Fixture, remote::Remote, server::socket};

use crate::harness::Server;

async fn through_the_api() -> Fixture {
    let server = Server::start().await;
    let (remote, clock) = (server.remote(), server.clock.clone());
    Fixture::new(remote.engines()).with_clock(move |by| clock.advance(by)).keeping(server)
}

lethe_state::contract_suite!(through_the_api);

mod over_http {
    use super::*;

    async fn through_the_api() -> Fixture {
        let server = Server::start().await;
        let (remote, clock) = (Remote::over_http(&socket::url(&server.path)).unwrap(), server.clock.clone());
        Fixture::new(remote.engines()).with_clock(move |by| clock.advance(by)).keeping(server)
    }

    lethe_state::contract_suite!(through_the_api);
}

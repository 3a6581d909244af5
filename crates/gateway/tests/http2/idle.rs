//! HTTP/2 connections on which nothing is asked: a client's makes room for others, and one to a worker does not keep that from
//! ending.

use std::time::Duration;

use lethe_gateway::config::{Config, Service};
use lethe_model::roster::{Protocol, WorkerState};

use crate::{
    echo,
    exchange::{ask, client, submit, watched, whole},
    lab::{self, Lab, run},
};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_client_that_asks_nothing_makes_room() {
    run(async {
        let mut lab = Lab::with(1, |config| {
            config.limits.connections_max = 2;
            config.limits.idle_timeout = LONG;
        })
        .await;
        echo(&mut lab.workers[0]);
        let (mut used, (mut idle, end)) = (client(lab.address).await, watched(lab.address).await);
        let (response, mut sending) = crate::exchange::begin(&mut used, "POST", &[]);
        assert_eq!(whole(ask(&mut idle, "GET", "/")).await.status(), 200);
        let mut third = client(lab.address).await;
        assert_eq!(whole(ask(&mut third, "GET", "/")).await.status(), 200);
        // The third may have heard of its place before the idle one of its end.
        end.await.unwrap().expect("it was told to go");
        sending.send_data("hello".into(), true).unwrap();
        assert!(whole(response).await.text().ends_with("hello"), "who has a request is left alone");
    });
}

#[test]
fn a_worker_that_is_leaving_is_left_by_the_gateway() {
    run(async {
        let speaks_h2c = |config: &mut Config| {
            config.services.insert(lab::service(), Service { protocol: Protocol::H2c, ..Service::default() });
        };
        let mut lab = Lab::with(1, speaks_h2c).await;
        let mut client = client(lab.address).await;
        let responses = [(); 2].map(|()| submit(&mut client, "POST", &[], "hello"));
        let mut connection = h2::server::handshake(lab.workers[0].accept().await.stream).await.unwrap();
        let (_, mut first) = connection.accept().await.unwrap().unwrap();
        let (_, mut second) = connection.accept().await.unwrap().unwrap();
        let serving = tokio::spawn(async move {
            // Until the gateway ends it.
            while let Some(Ok(_)) = connection.accept().await {}
        });
        let [one, other] = responses;
        first.send_response(http::Response::new(()), true).unwrap();
        assert_eq!(whole(one).await.status(), 200);
        lab.workers[0].entry.state = WorkerState::Draining;
        lab.publish();
        // What it still has it may end.
        second.send_response(http::Response::new(()), true).unwrap();
        assert_eq!(whole(other).await.status(), 200);
        serving.await.unwrap();
        assert_eq!(lab.gateway.snapshot().workers.len(), 1, "it is still on the roster");
    });
}

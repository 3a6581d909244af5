//! Clients that say much beside what they ask, and mean it: gRPC libraries answer what they get with a PING, by which they
//! measure the way, and with window updates. They are no floods, however long it goes on.

use super::{
    echo,
    lab::{Lab, run},
    peer::*,
};

/// A connection that is so treated for ever has seen each bound of the floods several times.
const ROUNDS: u32 = 5000;

/// Enough for all that comes.
const ALL_WINDOW: u32 = 1 << 30;
const PING_BYTES: usize = 9 + 8;
const UPDATE_BYTES: usize = 9 + 4;

/// What a library says when it got something: how far is it, and room for so much more.
fn said(stream: u32) -> Vec<u8> {
    [frame(PING, 0, 0, [7; 8]), window_update(0, 100), window_update(stream, 100)].concat()
}

#[test]
fn calls_one_after_the_other_with_pings() {
    run(async {
        let mut lab = Lab::new(1).await;
        echo(&mut lab.workers[0]);
        let mut client = Peer::greet(lab.address).await;
        client.send(&window_update(0, ALL_WINDOW)).await;
        for round in 0..ROUNDS {
            let stream = 2 * round + 1;
            client.send(&get(stream)).await;
            assert!(!client.body(stream).await.is_empty(), "call {round}");
            client.send(&said(stream)[..PING_BYTES + UPDATE_BYTES]).await;
        }
        assert_eq!(lab.gateway.snapshot().connections, 1);
    });
}

#[test]
fn a_stream_of_small_messages_each_of_which_is_answered() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = Peer::greet(lab.address).await;
        client.send(&get(1)).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for round in 0..ROUNDS {
            worker.send("5\r\nhello\r\n").await;
            let message = client.until(|frame| frame.kind == DATA).await;
            assert_eq!(message.payload, b"hello", "message {round}");
            client.send(&said(1)).await;
        }
        worker.send("0\r\n\r\n").await;
        client.until(|frame| frame.ends_stream()).await;
    });
}

/// Of each two calls one runs out of time, in an overload of the service, and is taken back.
#[test]
fn half_of_the_calls_are_taken_back() {
    run(async {
        let mut lab = Lab::new(1).await;
        echo(&mut lab.workers[0]);
        let mut client = Peer::greet(lab.address).await;
        client.send(&window_update(0, ALL_WINDOW)).await;
        for round in 0..ROUNDS / 2 {
            let (whole, late) = (4 * round + 1, 4 * round + 3);
            client.send(&[get(whole), post(late)].concat()).await;
            assert!(!client.body(whole).await.is_empty(), "call {round}");
            client.send(&reset(late, CANCEL)).await;
        }
        client.send(&get(4 * ROUNDS + 1)).await;
        assert!(!client.body(4 * ROUNDS + 1).await.is_empty());
    });
}

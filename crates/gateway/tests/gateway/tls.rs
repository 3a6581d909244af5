//! TLS as clients of the gateway see it: what is agreed on, which certificate they get, and what becomes of both when
//! certificates are replaced.

use std::{fs, path::Path, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use lethe_gateway::config::{CertificateFiles, Config, Listener, Network, Tls};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::lab::{FakeWorker, Lab, Peer, config, run};

const GET: &str = "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n";

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// Makes a certificate for `name` and puts it into `folder`, each file taking its predecessor's place at once.
fn issue(folder: &Path, name: &str) -> (CertificateFiles, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = CertificateFiles {
        chain: folder.join(format!("{name}.chain")),
        key: folder.join(format!("{name}.key")),
    };
    let contents = [pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", key.serialized_der())];
    for (path, contents) in [&files.chain, &files.key].into_iter().zip(contents) {
        let new = path.with_extension("new");
        fs::write(&new, contents).unwrap();
        fs::rename(new, path).unwrap();
    }
    (files, certificate.der().clone())
}

fn speaks_tls(config: &mut Config, files: Vec<CertificateFiles>) {
    config.listeners[0].tls = true;
    config.tls = Some(Tls::Files(files));
}

/// A client that trusts these certificates, and offers these protocols.
fn connector(trusted: &[&CertificateDer<'static>], protocols: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for &certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    // Each connection is to see the certificate that is in use.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn connect(lab: &Lab, connector: &TlsConnector, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(lab.address).await?;
    stream.set_nodelay(true)?;
    connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

/// The certificate that the gateway has shown.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[test]
fn http1_and_http2_by_what_is_agreed_on() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| speaks_tls(config, vec![files])).await;
        for protocols in [&["http/1.1"][..], &[]] {
            let stream = connect(&lab, &connector(&[&certificate], protocols), "shop.test").await.unwrap();
            let mut client = Peer::over(stream);
            client.send(GET).await;
            let (mut worker, request) = lab.workers[0].request().await;
            assert_eq!(request.header("x-forwarded-proto"), Some("https"));
            worker.answer("ok").await;
            assert_eq!(client.response().await.text(), "ok");
            // Kept alive.
            client.send(GET).await;
            worker.request().await;
            worker.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
            assert_eq!(client.response().await.text(), "ok");
        }
        let connector = connector(&[&certificate], &["h2", "http/1.1"]);
        let stream = connect(&lab, &connector, "shop.test").await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("https://shop.test/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        worker.answer("ok").await;
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn each_name_has_its_certificate() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (one, first) = issue(folder.path(), "one.test");
        let (two, second) = issue(folder.path(), "two.test");
        let lab = Lab::with(1, |config| speaks_tls(config, vec![one, two])).await;
        let connector = connector(&[&first, &second], &[]);
        assert_eq!(shown(&connect(&lab, &connector, "one.test").await.unwrap()), first);
        assert_eq!(shown(&connect(&lab, &connector, "two.test").await.unwrap()), second);
        // Any other name gets the first, which is not valid for it.
        assert!(connect(&lab, &connector, "three.test").await.is_err());
        lab.until(|snapshot| snapshot.tls_failed == 1).await;
    });
}

#[test]
fn large_bodies_pass_both_ways() {
    const BYTES: usize = 4 << 20;
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| speaks_tls(config, vec![files])).await;
        let stream = connect(&lab, &connector(&[&certificate], &[]), "shop.test").await.unwrap();
        let body: Vec<u8> = (0..BYTES as u32 / 4).flat_map(|n| n.to_be_bytes()).collect();
        let (reading, mut writing) = tokio::io::split(stream);
        let upload = async {
            let head = format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {BYTES}\r\n\r\n");
            writing.write_all(head.as_bytes()).await.unwrap();
            writing.write_all(&body).await.unwrap();
            writing.flush().await.unwrap();
        };
        let worker = async {
            let mut worker = lab.workers[0].accept().await;
            worker.head().await;
            worker.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n")).await;
            for _ in 0..BYTES >> 14 {
                let piece = worker.exactly(1 << 14).await.unwrap();
                worker.send(piece).await;
            }
            worker
        };
        let download = async {
            let mut client = Peer::over(tokio::io::join(reading, tokio::io::sink()));
            client.response().await
        };
        let ((), _worker, response) = tokio::join!(upload, worker, download);
        assert!(response.body == body, "something else came back");
    });
}

/// What TLS has taken is not with the client yet: one that reads nothing is cut off all the same, and what it does not
/// read does not gather here.
#[test]
fn a_reader_that_stalls_is_cut_off() {
    const ENDLESS: usize = 1 << 30;
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let sized = format!("content-length: {ENDLESS}");
        for framing in [sized.as_str(), "transfer-encoding: chunked"] {
            let lab = Lab::with(1, |config| {
                speaks_tls(config, vec![files.clone()]);
                config.limits.stall_timeout = Duration::from_millis(300);
            })
            .await;
            let connector = connector(&[&certificate], &["http/1.1"]);
            let mut client = Peer::over(connect(&lab, &connector, "shop.test").await.unwrap());
            client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
            let (mut worker, _) = lab.workers[0].request().await;
            worker.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
            // Chunks, or what looks like them.
            let mut sent = 0;
            let chunk = [&b"10000\r\n"[..], &[b'x'; 1 << 16], b"\r\n"].concat();
            while sent < ENDLESS && worker.try_send(&chunk).await {
                sent += chunk.len();
            }
            assert!(sent < ENDLESS / 8, "{sent} bytes were taken from the worker");
            lab.until(|snapshot| snapshot.connections == 0).await;
            assert_eq!(lab.gateway.snapshot().client_gone, 1);
            drop(client);
        }
    });
}

#[test]
fn a_websocket_passes() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| speaks_tls(config, vec![files])).await;
        let stream = connect(&lab, &connector(&[&certificate], &[]), "shop.test").await.unwrap();
        let mut client = Peer::over(stream);
        client.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(client.response().await.status(), 101);
        for _ in 0..3 {
            client.send("ping").await;
            assert_eq!(worker.exactly(4).await.unwrap(), b"ping");
            worker.send("pong").await;
            assert_eq!(client.exactly(4).await.unwrap(), b"pong");
        }
        client.stream.shutdown().await.unwrap();
        assert_eq!(worker.stream.read_u8_or_end().await, None, "the end passes");
        worker.send("still here").await;
        assert_eq!(client.exactly(10).await.unwrap(), b"still here");
        drop(worker);
        client.closed().await;
    });
}

/// One byte, or the end.
trait OrEnd {
    async fn read_u8_or_end(&mut self) -> Option<u8>;
}

impl OrEnd for TcpStream {
    async fn read_u8_or_end(&mut self) -> Option<u8> {
        tokio::io::AsyncReadExt::read_u8(self).await.ok()
    }
}

#[test]
fn http_without_tls_is_told_so() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, _) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| speaks_tls(config, vec![files])).await;
        let mut client = lab.send(GET).await;
        let response = client.response().await;
        assert_eq!(response.status(), 400);
        assert!(response.text().contains("https"), "{}", response.text());
        client.closed().await;
        // What is neither is closed, and counted as well.
        let mut client = lab.send(b"\x16\x03\x01\x00\x05hello").await;
        client.try_send([0; 100]).await;
        client.rest().await;
        lab.until(|snapshot| snapshot.tls_failed == 2 && snapshot.connections == 0).await;
        assert!(!lab.workers[0].is_called());
    });
}

#[test]
fn a_handshake_that_never_ends_is_closed() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, _) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| {
            speaks_tls(config, vec![files]);
            config.limits.head_timeout = Duration::from_millis(50);
        })
        .await;
        lab.client().await.closed().await;
        lab.send(b"\x16\x03\x01").await.closed().await;
        lab.until(|snapshot| snapshot.connections == 0).await;
    });
}

/// Browsers open connections that they may need later.
#[test]
fn a_drain_does_not_wait_for_those_who_have_said_nothing() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        for proxied in [false, true] {
            let lab = Lab::with(1, |config| {
                speaks_tls(config, vec![files.clone()]);
                config.listeners[0].proxy_protocol = proxied;
                config.trusted_proxies = vec![Network { address: [127, 0, 0, 1].into(), prefix_bits: 32 }];
                config.limits.drain_timeout = Duration::from_secs(1000);
                config.limits.head_timeout = Duration::from_secs(1000);
                config.limits.idle_timeout = Duration::from_secs(1000);
            })
            .await;
            let silent = lab.client().await;
            let begun = if proxied {
                None
            } else {
                Some(connect(&lab, &connector(&[&certificate], &[]), "shop.test").await.unwrap())
            };
            let open = 1 + u64::from(begun.is_some());
            lab.until(|snapshot| snapshot.connections == open).await;
            lab.gateway.drain().await;
            silent.closed().await;
        }
    });
}

#[test]
fn tls_follows_the_proxy_protocol() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| {
            speaks_tls(config, vec![files]);
            config.listeners[0].proxy_protocol = true;
            config.trusted_proxies = vec![Network { address: [127, 0, 0, 1].into(), prefix_bits: 32 }];
        })
        .await;
        for protocols in [&["http/1.1"][..], &["h2"]] {
            let mut stream = TcpStream::connect(lab.address).await.unwrap();
            stream.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 443\r\n").await.unwrap();
            let name = ServerName::try_from("shop.test").unwrap();
            let stream = connector(&[&certificate], protocols).connect(name, stream).await.unwrap();
            let asking = tokio::spawn(async move {
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
                    tokio::spawn(connection);
                    let request = http::Request::get("https://shop.test/").body(()).unwrap();
                    client.send_request(request, true).unwrap().0.await.unwrap().status().as_u16()
                } else {
                    let mut client = Peer::over(stream);
                    client.send(GET).await;
                    client.response().await.status()
                }
            });
            let (mut worker, request) = lab.workers[0].request().await;
            assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.7"));
            assert_eq!(request.header("x-forwarded-proto"), Some("https"));
            worker.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
            assert_eq!(asking.await.unwrap(), 200);
        }
    });
}

#[test]
fn a_listener_each_with_and_without() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| {
            speaks_tls(config, vec![files]);
            config.listeners.push(Listener::plain(([127, 0, 0, 1], 0).into()));
        })
        .await;
        let stream = connect(&lab, &connector(&[&certificate], &[]), "shop.test").await.unwrap();
        let mut secret = Peer::over(stream);
        let mut open = Peer::new(TcpStream::connect(lab.addresses[1]).await.unwrap());
        secret.send(GET).await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        worker.answer("ok").await;
        secret.response().await;
        open.send(GET).await;
        assert_eq!(worker.request().await.header("x-forwarded-proto"), Some("http"));
        worker.answer("ok").await;
        open.response().await;
    });
}

/// A worker that answers by itself, and always the same.
fn answering(worker: &mut FakeWorker) {
    let listener = worker.take_listener();
    tokio::spawn(async move {
        loop {
            let mut peer = Peer::new(listener.accept().await.unwrap().0);
            tokio::spawn(async move {
                while peer.try_request().await.is_some() {
                    peer.answer("ok").await;
                }
            });
        }
    });
}

#[test]
fn certificates_are_replaced_under_load() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, old) = issue(folder.path(), "shop.test");
        let mut lab = Lab::with(1, |config| {
            speaks_tls(config, vec![files.clone()]);
            config.cores = 2;
        })
        .await;
        answering(&mut lab.workers[0]);
        let mut kept = Peer::over(connect(&lab, &connector(&[&old], &[]), "shop.test").await.unwrap());
        let mut given = vec![old];
        for _ in 0..3 {
            let (files, new) = issue(folder.path(), "shop.test");
            given.push(new.clone());
            let trusted: Vec<_> = given.iter().collect();
            let connector = connector(&trusted, &[]);
            let mut config = config();
            speaks_tls(&mut config, vec![files]);
            lab.gateway.reload(config).await.unwrap();
            // Whoever comes now and whoever came before are served.
            for _ in 0..10 {
                let stream = connect(&lab, &connector, "shop.test").await.unwrap();
                assert_eq!(shown(&stream), new);
                let mut client = Peer::over(stream);
                client.send(GET).await;
                kept.send(GET).await;
                assert_eq!((client.response().await.text(), kept.response().await.text()), ("ok", "ok"));
            }
        }
        // What cannot be used changes nothing.
        fs::write(&files.chain, "no certificate").unwrap();
        let mut bad = config();
        speaks_tls(&mut bad, vec![files]);
        bad.routes.clear();
        assert!(lab.gateway.reload(bad).await.is_err());
        let trusted: Vec<_> = given.iter().collect();
        let stream = connect(&lab, &connector(&trusted, &[]), "shop.test").await.unwrap();
        assert_eq!(Some(&shown(&stream)), given.last());
        kept.send(GET).await;
        assert_eq!(kept.response().await.status(), 200, "the routes stay, too");
    });
}

#[test]
fn changed_files_are_taken_up() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, old) = issue(folder.path(), "shop.test");
        let lab = Lab::with(1, |config| speaks_tls(config, vec![files])).await;
        let new = issue(folder.path(), "shop.test").1;
        let connector = connector(&[&old, &new], &[]);
        let seen = async {
            // Files are looked at now and then, and nothing but the next handshake tells that they were.
            while shown(&connect(&lab, &connector, "shop.test").await.unwrap()) != new {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = lab.gateway.follow_certificates() => unreachable!("it never ends"),
            () = seen => {}
        }
    });
}

/// Between its handshake and its first request, a client of a gateway that gives its listeners to another one has time, as
/// it has with HTTP/1.1.
#[test]
fn a_client_that_has_just_connected_is_served_by_the_one_that_leaves() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, certificate) = issue(folder.path(), "shop.test");
        let old = Lab::with(1, |config| speaks_tls(config, vec![files.clone()])).await;
        let stream = connect(&old, &connector(&[&certificate], &["h2"]), "shop.test").await.unwrap();
        old.until(|snapshot| snapshot.tls_handshakes == 1).await;
        let _new = Lab::after(&old, 1, |config| speaks_tls(config, vec![files])).await;
        let client = async {
            let mut stream = stream;
            // The preface, SETTINGS, and HEADERS with GET, https, / and an authority, all at once, as clients begin.
            let head = b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09shop.test";
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stream.write_all(&[&preface[..], head].concat()).await.unwrap();
            old.workers[0].request().await.0.answer("ok").await;
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                stream.read_exact(&mut payload).await.unwrap();
                if head[3] == 0 {
                    assert_eq!(payload, b"ok");
                    break;
                }
            }
        };
        tokio::join!(biased; old.gateway.release(), client);
    });
}

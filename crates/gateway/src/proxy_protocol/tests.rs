//! Headers byte by byte, and what is refused at which byte.

use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::{v2::crc32c, *};

fn relayed(source: &str, destination: &str, tls: bool) -> Header {
    Header::Relayed { source: source.parse().unwrap(), destination: destination.parse().unwrap(), tls }
}

/// A header of version 2, with its length filled in.
fn v2(command: u8, family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = (body.len() as u16).to_be_bytes();
    [v2::SIGNATURE, &[command, family][..], &length, &body].concat()
}

/// The field with the checksum of the header that it ends.
fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
    header.extend([3, 0, 4]);
    let length = (header.len() + 4 - 16) as u16;
    header[14..16].copy_from_slice(&length.to_be_bytes());
    let sum = crc32c([&header, &[0; 4]]);
    header.extend(sum.to_be_bytes());
    header
}

const IPV4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xc0, 0x00, 0x01, 0xbb];
const IPV6: &[u8] = &[
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
    0xc0, 0x00, 0x01, 0xbb,
];

fn good() -> Vec<(Vec<u8>, Header)> {
    let four = |tls| relayed("192.0.2.7:49152", "198.51.100.1:443", tls);
    let six = relayed("[2001:db8::1]:49152", "[2001:db8::2]:443", false);
    let text = |line: &str| line.as_bytes().to_vec();
    vec![
        (text("PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n"), four(false)),
        (
            text("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
            relayed("255.255.255.255:65535", "255.255.255.255:65535", false),
        ),
        (text("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), relayed("0.0.0.0:0", "0.0.0.0:0", false)),
        (text("PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 49152 443\r\n"), six),
        (text("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), relayed("[::ffff:192.0.2.7]:1", "[::1]:2", false)),
        (text("PROXY UNKNOWN\r\n"), Header::Own),
        (text("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), Header::Own),
        (text("PROXY UNKNOWN \0\x01\u{fe}  \r\n"), Header::Own),
        // The longest line there can be.
        (format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16)).into_bytes(), Header::Own),
        (v2(0x21, 0x11, &[IPV4]), four(false)),
        (v2(0x21, 0x21, &[IPV6]), six),
        // Over QUIC.
        (v2(0x21, 0x12, &[IPV4]), four(false)),
        (v2(0x21, 0x22, &[IPV6]), six),
        // Unix sockets, and what is not told.
        (v2(0x21, 0x31, &[&[b'/'; 216]]), Header::Own),
        (v2(0x21, 0x32, &[&[0; 216], &[4, 0, 0]]), Header::Own),
        (v2(0x21, 0x00, &[]), Header::Own),
        (v2(0x21, 0x00, &[b"anything"]), Header::Own),
        (v2(0x21, 0x10, &[IPV4]), Header::Own),
        (v2(0x21, 0x01, &[]), Header::Own),
        // LOCAL, whatever else it says.
        (v2(0x20, 0x00, &[]), Header::Own),
        (v2(0x20, 0x11, &[IPV4]), Header::Own),
        (v2(0x20, 0xff, &[b"anything"]), Header::Own),
        // Fields: ALPN, authority, nothing; then the most that is accepted.
        (v2(0x21, 0x11, &[IPV4, &[1, 0, 2, b'h', b'2'], &[2, 0, 1, b'h'], &[4, 0, 0]]), four(false)),
        (v2(0x21, 0x11, &[IPV4, &[4, 0x0f, 0xfd], &[0; 4093]]), four(false)),
        (v2(0x21, 0x31, &[&[0; 216], &[4, 0x0f, 0xfd], &[0; 4093]]), Header::Own),
        (v2(0x20, 0x00, &[&[0xee; 4096]]), Header::Own),
        // TLS: by the client, and not.
        (v2(0x21, 0x11, &[IPV4, &[0x20, 0, 5, 1, 0, 0, 0, 1]]), four(true)),
        (v2(0x21, 0x11, &[IPV4, &[0x20, 0, 16, 7, 0, 0, 0, 0, 0x21, 0, 8], b"TLSv1.3\0"]), four(true)),
        (v2(0x21, 0x11, &[IPV4, &[0x20, 0, 5, 2, 0, 0, 0, 1]]), four(false)),
        // Checksums: alone, after another field, and before one.
        (with_checksum(v2(0x21, 0x11, &[IPV4])), four(false)),
        (with_checksum(v2(0x21, 0x21, &[IPV6, &[4, 0, 1, 0]])), six),
        (
            // Calculated by another implementation.
            v2(0x21, 0x11, &[IPV4, &[3, 0, 4, 0x43, 0xc9, 0x35, 0xb6], &[4, 0, 2, 0, 0]]),
            four(false),
        ),
    ]
}

#[test]
fn good_headers() {
    for (bytes, expected) in good() {
        let shown = bytes.escape_ascii();
        assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))), "{shown}");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{shown}, the first {end} bytes");
        }
        let followed = [&bytes[..], b"\r\nGET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed), Ok(Some((expected, bytes.len()))), "{shown}, and more");
    }
}

/// Each is refused at its last byte, and not before.
#[test]
fn bad_headers_are_refused_at_once() {
    let text: &[&[u8]] = &[
        b"G",
        b"\x16",
        b"\n",
        b"\0",
        b"p",
        b"PRI",
        b"PROXY\r",
        b"PROXY  ",
        b"PROXY TCP5",
        b"PROXY UD",
        b"PROXY UNKNOWNS",
        b"PROXY UNKNOWN\n",
        b"PROXY UNKNOWN x\n",
        b"PROXY UNKNOWN\r\r",
        b"PROXY UNKNOWN \r ",
        b"PROXY TCP4 x",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\r",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 443 \r",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152\r",
        b"PROXY TCP4 192.0.2.7 198.51.100.1\r",
        b"PROXY TCP4\r",
        b"PROXY TCP4 192.0.2.7  198.51.100.1 49152 443\r",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 49152 443\r",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 49152 443\r",
        b"PROXY TCP4 192.0.2 198.51.100.1 49152 443\r",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 049152 443\r",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 +",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 -",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 \r",
        b"PROXY TCP4 :",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 49152 443\r",
        b"PROXY TCP6 ::1 ::1%",
        b"PROXY TCP6 [",
        b"PROXY TCP6 ::1 1:2:3:4:5:6:7:8:9 1 2\r",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\n\r",
        b"\r\n\r\n\0\r\nQUIT\n\x11",
        b"\r\n\r\n\0\r\nQUIT\n\x22",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x03",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x13",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x41",
        // Too short for the addresses, or longer than is accepted.
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0b",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x23",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd7",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x0d",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x10\x01",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    let mut bad: Vec<Vec<u8>> = text.iter().map(|bytes| bytes.to_vec()).collect();
    bad.push(format!("PROXY UNKNOWN {}", "x".repeat(107 - 14)).into_bytes());
    bad.push(format!("PROXY UNKNOWN {}\r", "x".repeat(107 - 15)).into_bytes());
    for fields in [
        &[4][..],
        &[4, 0],
        &[4, 0, 1],
        &[4, 0, 0, 4, 0],
        &[4, 0xff, 0xff, 0],
        &[0x20, 0, 4, 1, 0, 0, 0],
        &[3, 0, 3, 0, 0, 0],
        &[3, 0, 5, 0, 0, 0, 0, 0],
        &[3, 0, 4, 0, 0, 0, 0],
    ] {
        bad.push(v2(0x21, 0x11, &[IPV4, fields]));
        bad.push(v2(0x21, 0x31, &[&[0; 216], fields]));
    }
    let checked = with_checksum(v2(0x21, 0x11, &[IPV4]));
    for at in [16, 20, 27, checked.len() - 1] {
        let mut damaged = checked.clone();
        damaged[at] ^= 0x10;
        bad.push(damaged);
    }
    bad.push(with_checksum(checked));
    for bytes in bad {
        let shown = bytes.escape_ascii();
        let refusal = parse(&bytes).expect_err(&shown.to_string());
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(None), "{shown}, all but the last byte");
        for more in [&b"\r\n"[..], b"\n", b" ", &[0; 5000]] {
            assert!(parse(&[&bytes, more].concat()).is_err(), "{shown}, {refusal}, and more");
        }
    }
}

#[test]
fn checksums() {
    // RFC 3720, appendix B.4, and the catalogue's check value.
    assert_eq!(crc32c([&[0; 32]]), 0x8a91_36aa);
    assert_eq!(crc32c([&[0xff; 32]]), 0x62a8_ab43);
    assert_eq!(crc32c([b"12345", b"", b"6789"]), 0xe306_9283);
}

#[tokio::test]
async fn nothing_but_the_header_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (header, expected) in good() {
        for pieces in [1, 2, 3, header.len()] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.set_nodelay(true).unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            let size = header.len().div_ceil(pieces);
            let send = async {
                for piece in header.chunks(size) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.write_all(b"\x16\x03\x01").await.unwrap();
                client.shutdown().await.unwrap();
            };
            let take = async {
                let header = read(&mut accepted).await.unwrap();
                let mut rest = Vec::new();
                accepted.read_to_end(&mut rest).await.unwrap();
                (header, rest)
            };
            let ((), taken) = tokio::join!(send, take);
            assert_eq!(taken, (expected, b"\x16\x03\x01".to_vec()), "{}", header.escape_ascii());
            // Thousands of sockets in TIME_WAIT are of no use.
            if header.len() > 300 {
                break;
            }
        }
    }
    for (sent, expected) in [
        (&b"PROXY TCP4 192.0.2.7"[..], io::ErrorKind::UnexpectedEof),
        (b"", io::ErrorKind::UnexpectedEof),
        (b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData),
    ] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        assert_eq!(read(&mut accepted).await.unwrap_err().kind(), expected);
    }
}

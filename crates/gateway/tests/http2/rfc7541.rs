//! h2spec's cases of HPACK (RFC 7541): header blocks that cannot be decoded end the connection.

use super::{
    conformance::{Case, Expect::*},
    peer::*,
};

/// All of them, in their order.
pub fn cases() -> Vec<Case> {
    let wrong = |name, block: Vec<u8>| {
        Case::new(name)
            .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
            // h2 says PROTOCOL_ERROR where RFC 9113, section 4.3 has COMPRESSION_ERROR; the connection ends all the same.
            .expect(ConnectionError(&[COMPRESSION_ERROR, PROTOCOL_ERROR]))
    };
    let after = |more: &[u8]| [request("GET", &[]), more.to_vec()].concat();
    vec![
        wrong("hpack/2.3.3/1 an indexed field with an invalid index", after(&[0xff, 0x00])),
        wrong(
            "hpack/2.3.3/2 a literal with an invalid index",
            after(&[0x7f, 0x07, 0x04, b't', b'e', b's', b't']),
        ),
        wrong("hpack/4.2/1 a table size update at the end of a block", after(&[0x20])),
        wrong(
            "hpack/5.2/1 Huffman padding longer than 7 bits",
            after(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        ),
        wrong(
            "hpack/5.2/2 Huffman padding with zeros",
            after(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        ),
        wrong(
            "hpack/5.2/3 a Huffman code of EOS",
            after(b"\x00\x85\xf2\xb2\x4a\x84\xff\x88\x49\x50\x9f\xff\xff\xff\xff\xff"),
        ),
        wrong("hpack/6.1/1 an indexed field with index 0", after(&[0x80])),
        wrong(
            "hpack/6.3/1 a table size above the limit",
            [vec![0x3f, 0xe1, 0xff, 0x03], request("GET", &[])].concat(),
        ),
    ]
}

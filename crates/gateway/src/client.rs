//! Who a connection comes from, as the workers are told.

use std::{io::Write, net::IpAddr, rc::Rc};

use crate::forwarded::{Origin, Scheme, Seen};

/// Room that is made at once for the fields; those with the longest of addresses need more.
const USUAL_FIELDS_BYTES: usize = 112;

/// The client of one connection, or a proxy that speaks for clients.
pub(crate) struct Client {
    /// Its address.
    pub(crate) address: IpAddr,
    pub(crate) scheme: Scheme,
    /// Its word on where its requests come from is taken.
    pub(crate) trusted: bool,
    /// The fields that tell workers about it, ready to be put into each head.
    pub(crate) fields: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: IpAddr, scheme: Scheme, trusted: bool) -> Rc<Self> {
        // IPv4 through an IPv6 socket is IPv4.
        let address = address.to_canonical();
        let mut fields = Vec::with_capacity(USUAL_FIELDS_BYTES);
        // Writing to a vector cannot fail.
        let _ = write!(fields, "x-forwarded-for: {address}\r\nx-forwarded-proto: {}\r\n", scheme.as_str());
        fields.extend_from_slice(b"forwarded: ");
        // Which host it asks for says each request, in `Host`.
        Origin::seen(Seen { peer: address, scheme, host: b"" }).write_forwarded(&mut fields);
        fields.extend_from_slice(b"\r\n");
        Rc::new(Self { address, scheme, trusted, fields })
    }
}

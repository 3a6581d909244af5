//! Who a connection comes from, as the workers are told.

use std::{net::IpAddr, rc::Rc};

use crate::forwarded::Scheme;

/// The client of one connection, or a proxy that speaks for clients.
pub(crate) struct Client {
    /// Its address.
    pub(crate) address: IpAddr,
    pub(crate) scheme: Scheme,
    /// Its word on where its requests come from is taken.
    pub(crate) trusted: bool,
    /// The fields that tell workers about it, ready to be put into each head.
    pub(crate) fields: Box<[u8]>,
}

impl Client {
    pub(crate) fn new(address: IpAddr, scheme: Scheme, trusted: bool) -> Rc<Self> {
        // IPv4 through an IPv6 socket is IPv4.
        let address = address.to_canonical();
        let fields = format!("x-forwarded-for: {address}\r\nx-forwarded-proto: {}\r\n", scheme.as_str());
        Rc::new(Self { address, scheme, trusted, fields: fields.into_bytes().into() })
    }
}

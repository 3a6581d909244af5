//! Who a connection comes from, as the workers are told.

use std::{net::SocketAddr, rc::Rc};

/// The client of one connection.
pub(crate) struct Client {
    /// Its address.
    pub(crate) address: std::net::IpAddr,
    /// The fields that tell workers about it, ready to be put into each head.
    pub(crate) fields: Box<[u8]>,
}

impl Client {
    /// `is_secure` tells that the connection is encrypted.
    pub(crate) fn new(peer: SocketAddr, is_secure: bool) -> Rc<Self> {
        // IPv4 through an IPv6 socket is IPv4.
        let address = peer.ip().to_canonical();
        let scheme = if is_secure { "https" } else { "http" };
        let fields = format!("x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\n");
        Rc::new(Self { address, fields: fields.into_bytes().into() })
    }
}

//! Ranges of addresses, as they are written and as they are looked up.

use std::{net::IpAddr, str::FromStr};

use crate::config::Network;

/// Why something is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What is before the `/` is no address.
    #[error("`{0}` is neither an address nor a network; write one as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")]
    Address(String),
    /// What is after the `/` is no length, or too large.
    #[error("`{text}`: after the `/` there must be how many bits make the network, from 0 to {bits_max}")]
    Prefix {
        /// The whole.
        text: String,
        /// How many there are in such an address.
        bits_max: u8,
    },
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `address/bits`, or an address that stands for itself. IPv4 mapped into IPv6 becomes IPv4.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address(text.into()))?;
        let bits_max = bits_of(address);
        let prefix_bits = match bits {
            None => bits_max,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|&count| count <= bits_max && bits.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| NetworkError::Prefix { text: text.into(), bits_max })?,
        };
        Ok(Self { address, prefix_bits }.to_canonical())
    }
}

impl Network {
    /// Whether `address` is in it. IPv4 mapped into IPv6 (`::ffff:10.0.0.1`) is as IPv4, on both sides; no other network of
    /// IPv6 has any of IPv4 in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Range::of(self).contains(address.to_canonical())
    }

    /// A network of the mapped addresses as the one of IPv4 that it stands for.
    fn to_canonical(self) -> Self {
        match self.address.to_canonical() {
            address @ IpAddr::V4(_) if self.address.is_ipv6() && self.prefix_bits >= 96 => {
                Self { address, prefix_bits: self.prefix_bits - 96 }
            }
            _ => self,
        }
    }
}

/// How many bits an address has.
fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A network as numbers.
#[derive(Clone, Copy, Debug)]
enum Range {
    V4 { network: u32, mask: u32 },
    V6 { network: u128, mask: u128 },
}

impl Range {
    fn of(network: &Network) -> Self {
        let network = network.to_canonical();
        let host_bits = u32::from(bits_of(network.address).saturating_sub(network.prefix_bits));
        match network.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                Self::V4 { network: address.to_bits() & mask, mask }
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Self::V6 { network: address.to_bits() & mask, mask }
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4 { network, mask }, IpAddr::V4(address)) => address.to_bits() & mask == *network,
            (Self::V6 { network, mask }, IpAddr::V6(address)) => address.to_bits() & mask == *network,
            _ => false,
        }
    }
}

/// The networks whose word about clients is taken.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    ranges: Box<[Range]>,
}

impl Trust {
    /// Trusts those in `networks`, and nobody else.
    pub fn new(networks: &[Network]) -> Self {
        Self { ranges: networks.iter().map(Range::of).collect() }
    }

    /// Whether what comes from `address` is believed. Costs nearly nothing if nobody is trusted.
    pub fn trusts(&self, address: IpAddr) -> bool {
        if self.ranges.is_empty() {
            return false;
        }
        let address = address.to_canonical();
        self.ranges.iter().any(|range| range.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_network() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "9.255.255.255", "::a00:1"][..],
            ),
            // Any address in it names it.
            ("10.1.2.3/8", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0"]),
            ("192.0.2.7", &["192.0.2.7", "::ffff:192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            ("192.0.2.6/31", &["192.0.2.6", "192.0.2.7"], &["192.0.2.5", "192.0.2.8"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], &["::1", "2001:db8::1"]),
            ("::1", &["::1"], &["::", "::2", "127.0.0.1"]),
            ("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], &["2001:db9::"]),
            ("::/0", &["::", "2001:db8::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.0"]),
            ("::ffff:0:0/96", &["10.1.2.3"], &["::1"]),
            ("::ffff:10.0.0.1", &["10.0.0.1"], &["10.0.0.2"]),
        ] {
            let parsed: Network = network.parse().unwrap();
            let trust = Trust::new(&["203.0.113.1".parse().unwrap(), parsed]);
            for (addresses, expected) in [(inside, true), (outside, false)] {
                for address in addresses {
                    let address: IpAddr = address.parse().unwrap();
                    assert_eq!(parsed.contains(address), expected, "{network} {address}");
                    assert_eq!(trust.trusts(address), expected, "{network} {address}");
                }
            }
        }
        assert!(!Trust::default().trusts("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network() {
        for (text, expected) in [
            ("", "`` is neither an address nor a network"),
            ("localhost", "`localhost` is neither"),
            ("10.0.0.0.0/8", "`10.0.0.0.0/8` is neither"),
            ("10.0.0/8", "`10.0.0/8` is neither"),
            ("010.0.0.0/8", "`010.0.0.0/8` is neither"),
            ("[::1]/128", "`[::1]/128` is neither"),
            ("fe80::1%eth0", "`fe80::1%eth0` is neither"),
            (" 10.0.0.0/8", "` 10.0.0.0/8` is neither"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/-1", "from 0 to 32"),
            ("10.0.0.0/8/8", "from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        // Made by hand, it is not checked; it must not panic.
        let odd = Network { address: [10, 0, 0, 1].into(), prefix_bits: 200 };
        assert!(odd.contains([10, 0, 0, 1].into()) && !odd.contains([10, 0, 0, 2].into()));
    }
}

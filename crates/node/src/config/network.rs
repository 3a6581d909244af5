//! Networks as people write them: an address, or an address and how many of its bits count (CIDR, RFC 4632; RFC 4291,
//! section 2.3).

use std::net::{IpAddr, Ipv4Addr};

use lethe_gateway::config::Network;

/// Reads `10.0.0.0/8`, `192.0.2.7`, `fd00::/8` or `::1`. The error is a sentence that goes after the value.
pub(super) fn parse(text: &str) -> Result<Network, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let next = match (shortened(address, prefix), address.bytes().any(|b| b.is_ascii_alphabetic())) {
            (Some(whole), _) => format!("write \"{whole}\""),
            (None, true) if !address.contains(':') => {
                "names are not looked up; write its address, such as \"192.0.2.7\"".into()
            }
            _ => {
                "write an address such as \"192.0.2.7\" or \"::1\", or a range such as \"10.0.0.0/8\"".into()
            }
        };
        return Err(format!("is not a network: {next}"));
    };
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let Some(prefix) = prefix else { return Ok(Network { address, prefix_bits: bits_max }) };
    match prefix.parse::<u8>() {
        Ok(prefix_bits) if prefix_bits <= bits_max => Ok(Network { address, prefix_bits }),
        Ok(_) => Err(format!("is not a network: at most {bits_max} bits count in \"{address}\"")),
        Err(_) if prefix.parse::<Ipv4Addr>().is_ok() => {
            Err(format!("is not a network: write how many bits count, such as \"{address}/8\", not a mask"))
        }
        Err(_) => Err(format!("is not a network: write a number of bits after `/`, such as \"{address}/8\"")),
    }
}

/// What `10/8` and `192.168/16` stand for to some.
fn shortened(address: &str, prefix: Option<&str>) -> Option<String> {
    let parts: Vec<u8> = address.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    let whole = [parts.as_slice(), &[0; 4]].concat();
    let [a, b, c, d] = whole.get(..4)?.try_into().ok()?;
    (parts.len() < 4).then(|| format!("{}/{}", Ipv4Addr::new(a, b, c, d), prefix.unwrap_or("8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, address, bits) in [
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("192.0.2.7", "192.0.2.7", 32),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("::1", "::1", 128),
            ("fd00::/8", "fd00::", 8),
        ] {
            let expected = Network { address: address.parse().unwrap(), prefix_bits: bits };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for (text, why) in [
            ("", "write an address"),
            ("10.0.0.0/33", "at most 32"),
            ("::/129", "at most 128"),
            ("10.0.0.0/", "\"10.0.0.0/8\""),
            ("10.0.0.0/x", "\"10.0.0.0/8\""),
            ("10.0.0.0/-1", "\"10.0.0.0/8\""),
            ("10.0.0.0/255.0.0.0", "not a mask"),
            ("10/8", "\"10.0.0.0/8\""),
            ("192.168/16", "\"192.168.0.0/16\""),
            ("proxy.internal", "names are not looked up"),
            ("10.0.0.1:80", "write an address"),
            ("[::1]", "write an address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

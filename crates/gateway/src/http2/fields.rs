//! Header fields between HTTP/2, where they are a map, and the HTTP/1.1 text in which heads and trailers cross the
//! gateway.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields of HTTP/1.1 that are about a connection and do not exist in HTTP/2 (RFC 9113, section 8.2.2).
pub(crate) fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || name == "keep-alive"
        || name == "proxy-connection"
}

/// Appends `name: value\r\n`.
pub(crate) fn append_line(into: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    into.extend_from_slice(name);
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

/// A map as field lines.
pub(crate) fn to_lines(map: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in map {
        append_line(&mut lines, name.as_str().as_bytes(), value.as_bytes());
    }
    lines
}

/// Field lines as a map; without those of a connection, and without what is no field.
pub(crate) fn from_lines(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines_of(lines) {
        append(&mut map, name, value);
    }
    map
}

/// The fields of field lines, each without the white space around its value.
pub(crate) fn lines_of(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Adds a field, unless it is one of a connection, or none at all.
pub(crate) fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let Ok(name) = HeaderName::from_bytes(name)
        && !is_of_connection(&name)
        && let Ok(mut value) = HeaderValue::from_bytes(value)
    {
        // HPACK's table is for what comes again (RFC 7541, section 6.2.3). These never do: they would only push out of it
        // what does, and be compared with all that were before.
        if name == "x-request-id" || name == "traceparent" {
            value.set_sensitive(true);
        }
        let _full = map.try_append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_again_is_not_indexed() {
        let map = from_lines(b"x-request-id: 1\r\nTraceparent: 2\r\nserver: 3\r\n");
        let never: Vec<_> = map.values().map(HeaderValue::is_sensitive).collect();
        assert_eq!(never, [true, true, false]);
    }

    #[test]
    fn lines_become_a_map_and_lines_again() {
        let map =
            from_lines(b"Grpc-Status: 0\r\nx-a:1\r\nx-a:  2 \r\nConnection: close\r\nno field\r\n: x\r\n");
        assert_eq!(to_lines(&map), b"grpc-status: 0\r\nx-a: 1\r\nx-a: 2\r\n");
    }
}

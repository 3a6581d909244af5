//! Header fields as engines store them: as HTTP writes them, since neither names nor values have line ends in them.

use bytes::Bytes;

/// Fields in their order, as `name:value` and a line end each.
pub(crate) fn write(fields: &[(String, Bytes)]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        for part in [name.as_bytes(), b":", value, b"\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
}

/// Reads what [`write`] has written.
pub(crate) fn read(lines: &Bytes) -> Vec<(String, Bytes)> {
    let mut fields = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = String::from_utf8_lossy(&line[..colon]).into_owned();
        fields.push((name, lines.slice_ref(&line[colon + 1..])));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let fields: Vec<(String, Bytes)> = [("a", &b"b: c"[..]), ("empty", b""), ("a", b"\xff:\t x")]
            .map(|(name, value)| (name.to_owned(), Bytes::from_static(value)))
            .into();
        assert_eq!(read(&write(&fields).into()), fields);
        assert_eq!(read(&write(&[]).into()), []);
    }
}

//! What a file has in it, told by how it begins.

use std::{fs::File, io::Read, path::Path};

/// Bytes of a file's beginning that are looked at.
const HEAD_BYTES: u64 = 4096;

/// What one of SQLite has in it, which a database server is the remedy for.
pub(crate) const SQLITE: &str = "SQLite database";

/// First bytes, and what begins with them.
const SIGNATURES: [(&[u8], &str); 10] = [
    // "Database File Format", 1.3, of SQLite's documentation.
    (b"SQLite format 3\0", SQLITE),
    // PNG, 3rd edition, 5.2.
    (b"\x89PNG\r\n\x1a\n", "PNG image"),
    // JFIF and Exif both: SOI and the begin of a marker (ITU T.81, B.1.1.3).
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF-", "PDF document"),
    // APPNOTE.TXT, 4.3.7; also documents of offices, and jars.
    (b"PK\x03\x04", "ZIP archive"),
    // RFC 1952, section 2.3.1.
    (b"\x1f\x8b", "gzip data"),
    (b"\x7fELF", "program"),
    (b"#!", "script"),
    (b"-----BEGIN ", "PEM text"),
];

/// What the file at `path` has in it, in a few words; if it cannot be read, that it is a file.
pub(crate) fn of(path: &Path) -> &'static str {
    let mut head = Vec::new();
    match File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head)) {
        Ok(_) => kind(&head),
        Err(_) => "file",
    }
}

/// What a file that begins so has in it, in a few words.
fn kind(head: &[u8]) -> &'static str {
    let known = SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature));
    if let Some((_, kind)) = known {
        return kind;
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut in two at the end.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return "binary data",
    };
    let first = text.trim_start().chars().next();
    match first {
        _ if text.chars().any(|char| char.is_control() && !char.is_whitespace()) => "binary data",
        None if head.is_empty() => "empty",
        Some('{' | '[') => "JSON",
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_beginning() {
        for (head, expected) in [
            (&b"SQLite format 3\0\x10\0"[..], "SQLite database"),
            (b"SQLite format 3 is what this is about", "text"),
            (b"\x89PNG\r\n\x1a\n\0\0", "PNG image"),
            (b"PK\x03\x04\x14", "ZIP archive"),
            (b"", "empty"),
            (b" \n{\"a\": 1}", "JSON"),
            (b"milk\tand honey\r\n", "text"),
            ("caf\u{e9}".as_bytes(), "text"),
            (b"caf\xc3", "text"),
            (b"caf\xe9!", "binary data"),
            (b"a\0b", "binary data"),
        ] {
            assert_eq!(kind(head), expected, "{head:?}");
        }
    }
}

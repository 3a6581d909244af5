//! Server-sent events, as a client reads them (the HTML standard, section 9.2.6). Of an event only its data is taken.

/// The most bytes of a line, and of an event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Puts events together.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    data: Option<String>,
    /// Whether the last line ended with a carriage return, to which a line feed may still belong.
    was_return: bool,
    /// Whether a line was read.
    has_begun: bool,
}

impl Decoder {
    /// The data of each event that is whole with these bytes.
    ///
    /// # Errors
    /// In words, if an event is too long; nothing more can be read then.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut events = Vec::new();
        for byte in bytes {
            let was_return = std::mem::replace(&mut self.was_return, *byte == b'\r');
            match byte {
                b'\n' if was_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                byte => self.line.push(*byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > EVENT_BYTES_MAX {
                return Err(format!("sent an event of more than {} KiB", EVENT_BYTES_MAX >> 10));
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = line.strip_prefix('\u{feff}').filter(|_| is_first).unwrap_or(&line);
        if line.is_empty() {
            return self.data.take();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => data.extend(["\n", value]),
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_lines_of_every_kind() {
        let text = "\u{feff}: hello\n\ndata: one\r\ndata:two\r\n\r\nevent: x\rdata\rid: 3\r\rdata:  four\n\ndata: lost";
        for piece in [1, 3, 1000] {
            let mut decoder = Decoder::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(piece) {
                events.extend(decoder.push(piece).unwrap());
            }
            assert_eq!(events, ["one\ntwo", "", " four"]);
        }
        let endless = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert!(Decoder::default().push(&endless).unwrap_err().contains("1024 KiB"));
    }
}

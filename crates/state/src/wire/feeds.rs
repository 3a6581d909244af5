//! Feeds as server-sent events (WHATWG HTML, section 9.2): `changed`, whose data is the name as a string of JSON, so that a
//! line end in it is none of the stream; `beat`; and, as the last, `failed` with the problem.

#[cfg(feature = "server")]
use bytes::Bytes;

#[cfg(feature = "remote")]
use super::Problem;
use crate::feed::Notice;

/// The media type of a stream of events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// Most bytes of one event: the longest name, of which JSON may write each byte as six, and a problem.
#[cfg(feature = "remote")]
const EVENT_BYTES_MAX: usize = 16 << 10;

/// One event.
#[cfg(feature = "remote")]
#[derive(Debug)]
pub(crate) enum Event {
    /// Of the feed.
    Notice(Notice),
    /// It ends, for this reason.
    Failed(Box<Problem>),
}

/// The event that tells of a notice.
#[cfg(feature = "server")]
pub(crate) fn notice(notice: &Notice) -> Bytes {
    match notice {
        Notice::Changed(name) => {
            // Text can always be written as JSON.
            format!("event: changed\ndata: {}\n\n", serde_json::Value::from(&**name)).into()
        }
        Notice::Beat => Bytes::from_static(b"event: beat\ndata: null\n\n"),
    }
}

/// The last event of a feed that fails. JSON has no line end in it.
#[cfg(feature = "server")]
pub(crate) fn failed(problem: &[u8]) -> Bytes {
    [b"event: failed\ndata: ", problem, b"\n\n"].concat().into()
}

/// Reads events from a stream that comes in pieces. Events and fields that it does not know are passed over.
#[cfg(feature = "remote")]
#[derive(Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it ends no other line.
    is_after_return: bool,
    kind: String,
    data: String,
}

#[cfg(feature = "remote")]
impl Events {
    /// Reads on, and gives the events that are whole now. Fails with what is wrong with the stream.
    pub(crate) fn read(&mut self, bytes: &[u8], mut give: impl FnMut(Event)) -> Result<(), String> {
        for &byte in bytes {
            let was_after_return = std::mem::replace(&mut self.is_after_return, byte == b'\r');
            match byte {
                b'\n' if was_after_return => {}
                b'\n' | b'\r' => {
                    if let Some(event) = self.end_line()? {
                        give(event);
                    }
                    self.line.clear();
                }
                _ if self.line.len() + self.data.len() >= EVENT_BYTES_MAX => {
                    return Err(format!("an event of more than {EVENT_BYTES_MAX} bytes"));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, String> {
        if self.line.is_empty() {
            return self.end_event();
        }
        let line = str::from_utf8(&self.line).map_err(|_| "a line that is not UTF-8".to_owned())?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // Also a comment, which is a field without a name.
            _ => {}
        }
        Ok(None)
    }

    fn end_event(&mut self) -> Result<Option<Event>, String> {
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        let wrong = |error| format!("an event that cannot be read: {error}");
        Ok(match kind.as_str() {
            // An event without data is none.
            _ if data.is_empty() => None,
            "changed" => {
                let name: String = serde_json::from_str(&data).map_err(wrong)?;
                Some(Event::Notice(Notice::Changed(name.into())))
            }
            "beat" => Some(Event::Notice(Notice::Beat)),
            "failed" => Some(Event::Failed(serde_json::from_str(&data).map_err(wrong)?)),
            _ => None,
        })
    }
}

#[cfg(all(test, feature = "remote", feature = "server"))]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<Notice>, String> {
        let (mut events, mut all) = (Events::default(), Vec::new());
        for piece in pieces {
            events.read(piece, |event| match event {
                Event::Notice(notice) => all.push(notice),
                Event::Failed(problem) => panic!("{problem:?}"),
            })?;
        }
        Ok(all)
    }

    fn changed(name: &str) -> Notice {
        Notice::Changed(name.into())
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let names = [
            "a",
            "a\nb",
            "\r\n\nevent: beat\ndata: null\n\n",
            "\u{2028}\u{feff}\"\\",
            "é 🦀",
            &"\u{1}".repeat(1024),
        ];
        let mut all: Vec<Notice> = names.into_iter().map(changed).collect();
        all.insert(2, Notice::Beat);
        let stream: Vec<u8> = all.iter().flat_map(|each| notice(each).to_vec()).collect();
        assert_eq!(read(&[&stream]).unwrap(), all);
        for size in [1, 2, 3, 7, 100] {
            assert_eq!(read(&stream.chunks(size).collect::<Vec<_>>()).unwrap(), all, "{size}");
        }
    }

    #[test]
    fn it_is_read_as_the_standard_says() {
        for (stream, expected) in [
            (&b"event:changed\ndata:\"a\"\n\n"[..], vec![changed("a")]),
            (b": a comment\nid: 7\nretry: 1\nevent: changed\r\ndata: \"a\"\r\n\r\n", vec![changed("a")]),
            (b"event: changed\rdata: \"a\"\r\revent: beat\rdata\r\r", vec![changed("a"), Notice::Beat]),
            (b"event: changed\ndata: \ndata: \"a\"\n\n", vec![changed("a")]),
            (b"event: changed\n\ndata: \"a\"\n\n", vec![]),
            (b"event: news\ndata: \"a\"\n\n", vec![]),
            (b"event: changed\ndata: \"not the end", vec![]),
        ] {
            assert_eq!(read(&[stream]).unwrap(), expected, "{}", String::from_utf8_lossy(stream));
        }
    }

    #[test]
    fn what_is_no_such_stream_is_refused() {
        for (stream, part) in [
            (&b"event: changed\ndata: a\n\n"[..], "cannot be read"),
            (b"event: \xff\n", "not UTF-8"),
            (&[b'x'; EVENT_BYTES_MAX + 1], "more than 16384 bytes"),
            (&b"data: x\n".repeat(EVENT_BYTES_MAX / 2), "more than 16384 bytes"),
        ] {
            let error = read(&[stream]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}

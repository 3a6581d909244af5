//! A request's body as a worker reads it: by the length that was told, or chunk by chunk. By hand and not one byte ahead,
//! so that what is read when the worker dies is exact.

use std::io::{self, Read};

/// A body that is being read.
pub struct Inbound<R> {
    from: R,
    /// What is left of the chunk in hand; nothing in a body whose length was told.
    chunk: Option<usize>,
}

impl<R: Read> Inbound<R> {
    pub fn new(from: R, is_chunked: bool) -> Self {
        Self { from, chunk: is_chunked.then_some(0) }
    }

    /// Reads as much as there is room for.
    pub fn read(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        let Some(mut left) = self.chunk else { return self.from.read_exact(into) };
        while !into.is_empty() {
            if left == 0 {
                left = self.size()?;
            }
            let (now, later) = into.split_at_mut(left.min(into.len()));
            self.from.read_exact(now)?;
            left -= now.len();
            if left == 0 {
                self.line()?;
            }
            into = later;
        }
        self.chunk = Some(left);
        Ok(())
    }

    /// Reads what follows the last byte of it.
    pub fn end(mut self) -> io::Result<()> {
        let Some(left) = self.chunk else { return Ok(()) };
        let is_whole = left == 0 && self.line()? == "0" && self.line()?.is_empty();
        if is_whole { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn size(&mut self) -> io::Result<usize> {
        let size = usize::from_str_radix(&self.line()?, 16).ok().filter(|&size| size > 0);
        size.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn line(&mut self) -> io::Result<String> {
        let (mut line, mut byte) = (String::new(), [0]);
        while !line.ends_with("\r\n") {
            self.from.read_exact(&mut byte)?;
            line.push(char::from(byte[0]));
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }
}

//! The terminal while the table is on it: taken over, and given back as it was, also when the program panics.

use std::{
    io::{self, Write},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr},
};

use super::frame::Size;

/// No cursor, and no wrapping: a row that is wider than was thought is cut by the terminal.
const TAKE: &str = "\x1b[?25l\x1b[?7l";
const GIVE_BACK: &str = "\x1b[?2026l\x1b[?7h\x1b[?25h\x1b[0m";

/// What a terminal that does not know its size is taken for.
const SIZE_DEFAULT: Size = Size { columns: 80, rows: 24 };

static TAKEN: AtomicBool = AtomicBool::new(false);
static MODES: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Whether this process may write to and change its terminal: `lethe up &` may not.
pub(super) fn is_foreground() -> bool {
    tcgetpgrp(io::stdout()).is_ok_and(|group| group == getpgrp())
}

/// The size now.
pub(super) fn size() -> Size {
    let size = tcgetwinsize(io::stdout()).ok();
    let known = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    known.map_or(SIZE_DEFAULT, |size| Size { columns: size.ws_col.into(), rows: size.ws_row.into() })
}

/// Takes the terminal over. What was on it goes to its history.
pub(super) fn take() -> io::Result<()> {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
    if let Ok(modes) = tcgetattr(io::stdout()) {
        let mut quiet = modes.clone();
        // Keys would be shown in the middle of the table. Ctrl-C and Ctrl-Z stay signals.
        quiet.local_modes.remove(LocalModes::ECHO);
        *MODES.lock().unwrap_or_else(PoisonError::into_inner) = Some(modes);
        tcsetattr(io::stdout(), OptionalActions::Now, &quiet)?;
    }
    TAKEN.store(true, Ordering::SeqCst);
    write(&format!("{}{TAKE}", "\n".repeat(size().rows)))
}

/// Gives it back: the cursor stands below what is shown. Does nothing when it was not taken.
pub(super) fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // The terminal may be gone, and there is nobody to tell then.
    let _ = write(&format!("{GIVE_BACK}\x1b[{};1H\n", size().rows));
    if let Some(modes) = MODES.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // What was typed meanwhile was not meant for the shell.
        let _ = tcsetattr(io::stdout(), OptionalActions::Flush, &modes);
    }
}

/// Writes at once.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

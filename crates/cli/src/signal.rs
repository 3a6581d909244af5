//! Signals as people name them.

/// The signals of Linux (signal(7)) that are worth sending to a worker.
const NAMES: [(&str, i32); 17] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
];

/// Reads `KILL`, `SIGKILL`, `kill` or `9`.
///
/// # Errors
/// What would be right.
pub fn parse(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|known| known.0 == name).map(|known| known.1);
    let number = || text.parse().ok().filter(|number| (1..=64).contains(number));
    named.or_else(number).ok_or_else(|| {
        let names: Vec<&str> = NAMES.iter().map(|known| known.0).collect();
        format!("use a number from 1 to 64 or one of {}", names.join(", "))
    })
}

/// `SIGKILL` for 9; `signal 40` for one without a name here.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|known| known.1 == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["KILL", "SIGKILL", "kill", "sigkill", "9"] {
            assert_eq!(parse(text), Ok(9), "{text}");
        }
        assert_eq!((parse("64"), name(64)), (Ok(64), "signal 64".into()));
        for text in ["", "SIG", "FOO", "0", "65", "-9", "9x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (name, number) in NAMES {
            assert_eq!(super::name(number), format!("SIG{name}"));
        }
    }
}

//! Load as it is written: lines of a time in seconds and of requests a second from then on, `0,120`. A first line
//! of words is a heading.

/// No trace is longer, in seconds: a year.
pub const SECONDS_MAX: usize = 366 * 86_400;

/// Why a text is no load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Error {
    line: usize,
    what: String,
}

/// Requests a second, for each second from the first time to the last. The last line's rate holds for as long as the
/// one before it did.
pub fn read(text: &str) -> Result<Vec<f64>, Error> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refuse = |what: String| Error { line: at + 1, what };
        let mut fields = line.split([',', ';', '\t']).map(|field| field.trim().parse::<f64>());
        let (Some(Ok(time)), Some(Ok(rate))) = (fields.next(), fields.next()) else {
            if at == 0 && is_heading(line) {
                continue;
            }
            return Err(refuse(format!(
                "{line:?} is not a time in seconds and a number of requests a second"
            )));
        };
        if !(0.0..1e9).contains(&rate) {
            return Err(refuse(format!("{rate} requests a second cannot be")));
        }
        if points.last().is_some_and(|(before, _)| time <= *before) || !time.is_finite() {
            return Err(refuse(format!("{time} s is not after the line before")));
        }
        points.push((time, rate));
    }
    let Some((begin, _)) = points.first().copied() else {
        return Err(Error { line: 1, what: "there is no load; write lines such as 0,120".into() });
    };
    let last = points.windows(2).last().map_or(1.0, |pair| pair[1].0 - pair[0].0);
    let ends = points.iter().skip(1).map(|(time, _)| *time);
    let end = points.last().map_or(begin, |(time, _)| *time) + last;
    let mut seconds = Vec::new();
    for ((_, rate), end) in points.iter().zip(ends.chain([end])) {
        let until = (end - begin).round() as usize;
        if until > SECONDS_MAX {
            return Err(Error { line: 1, what: format!("it is longer than {SECONDS_MAX} s") });
        }
        seconds.resize(until.max(seconds.len()), *rate);
    }
    Ok(seconds)
}

/// Whether it names its columns. A line with a number in it was meant as a point.
fn is_heading(line: &str) -> bool {
    line.contains(char::is_alphabetic) && !line.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rate_holds_until_the_next() {
        assert_eq!(
            read("time,rate\n10,5\n12,7.5\n15,0\n").unwrap(),
            [5.0, 5.0, 7.5, 7.5, 7.5, 0.0, 0.0, 0.0]
        );
        assert_eq!(read("0;3").unwrap(), [3.0]);
        assert_eq!(read("\n0\t3\n\n1\t4\n").unwrap(), [3.0, 4.0]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line) in [
            ("", "line 1: there is no load"),
            ("time,rate\n", "line 1: there is no load"),
            ("O,1\n1,2", "line 1: \"O,1\" is not a time"),
            ("0,1\nx,2", "line 2: \"x,2\" is not a time"),
            ("0,1\n0,2", "line 2: 0 s is not after"),
            ("0,1\n1,-2", "line 2: -2 requests"),
            ("0,1\n1,NaN", "line 2: NaN requests"),
            ("0,1\n1e12,1", "line 1: it is longer"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with(line), "{text:?}: {error}");
        }
    }
}

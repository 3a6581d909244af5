//! `[interruption]`: how it is known that the machine is to go, and what time there is then.

use std::{path::Path, time::Duration};

use http::Uri;
use lethe_admin::interruption::Terms;
use toml::de::DeValue;

use super::{
    problem::Report,
    table::{Table, Value, wrong_type},
};
use crate::interruption::Interruption;

/// What `[interruption]` may say.
pub(super) const KEYS: [&str; 6] = ["file", "url", "token", "settle", "deadline", "every"];

const EVERY_DEFAULT: Duration = Duration::from_secs(5);
/// The shortest time between two looks, and the shortest deadline.
const SHORTEST: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const URL_EXPECTED: &str = "a URL such as `\"http://169.254.169.254/latest/meta-data/spot/instance-action\"`";

/// Reads it; files are relative to `folder`.
pub(super) fn read(value: &Value<'_>, folder: &Path, report: &mut Report<'_>) -> Option<Interruption> {
    let DeValue::Table(entries) = value.get_ref() else {
        wrong_type("`interruption`", "a table such as `{ file = \"/run/notice\" }`", value, report);
        return None;
    };
    let table = Table::open("[interruption]".into(), value.span(), entries, &KEYS, report);
    let usual = Terms::default();
    let file = table.parsed("file", "a file such as `\"/run/notice\"`", report, |text| match text {
        "" => Err("is no file".into()),
        text if text.contains('\0') => Err("has a NUL character".into()),
        text => Ok(folder.join(text)),
    });
    let url = table.parsed("url", URL_EXPECTED, report, url);
    let settle = table.duration("settle", Duration::ZERO..=HOUR, report).unwrap_or(usual.settle);
    let deadline = table.duration("deadline", SECOND..=HOUR, report).unwrap_or(usual.deadline);
    Some(Interruption {
        terms: Terms { settle, deadline },
        file,
        url,
        token: table.boolean("token", report).unwrap_or(true),
        every: table.duration("every", SHORTEST..=HOUR, report).unwrap_or(EVERY_DEFAULT),
    })
}

fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(_)) => Ok(uri),
        (Some("https"), _) => {
            Err("is asked without TLS: metadata is on the machine itself, by http://".into())
        }
        _ => Err(format!("is no URL: write {URL_EXPECTED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, tests::folder, tests::load_path};

    fn load(interruption: &str) -> Result<Option<Interruption>, String> {
        let toml = format!("[services.web]\ncommand = 'sh'\n{interruption}");
        let (_kept, path) = folder(&[("lethe.toml", &toml)]);
        load_path(&path, Overrides::default()).map(|config| config.interruption)
    }

    #[test]
    fn it_is_read() {
        assert_eq!(load(""), Ok(None));
        let usual = load("[interruption]\n").unwrap().unwrap();
        assert_eq!((usual.terms, usual.every, usual.token), (Terms::default(), EVERY_DEFAULT, true));
        let said = "[interruption]\nfile = '/run/notice'\nurl = 'http://[::1]:80/x?y'\ntoken = false\nsettle = '0s'\n\
                    deadline = '30s'\nevery = '1s'\n";
        let said = load(said).unwrap().unwrap();
        assert_eq!(said.file.as_deref(), Some(Path::new("/run/notice")));
        assert_eq!(said.url.unwrap().to_string(), "http://[::1]:80/x?y");
        assert_eq!(said.terms, Terms { settle: Duration::ZERO, deadline: Duration::from_secs(30) });
        assert_eq!((said.token, said.every), (false, Duration::from_secs(1)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (said, at, why) in [
            ("url = 'https://x/'", "4:7", "is asked without TLS"),
            ("url = '/latest'", "4:7", "is no URL"),
            ("url = 'http://a b/'", "4:7", "is no URL"),
            ("deadline = '0s'", "4:12", "is too short: write at least \"1s\""),
            ("settle = '2h'", "4:10", "is too long"),
            ("every = '1ms'", "4:9", "is too short"),
            ("token = 'yes'", "4:9", "`true` or `false`"),
            ("urll = 'http://x/'", "4:1", "unknown key `urll` in [interruption]; did you mean `url`?"),
        ] {
            let error = load(&format!("[interruption]\n{said}\n")).unwrap_err();
            assert!(error.contains(&format!("lethe.toml:{at}")) && error.contains(why), "{said}\n{error}");
        }
    }
}

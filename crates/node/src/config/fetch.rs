//! `source` of a service: where its program is fetched from, and whether what is new there is deployed by itself.

use std::{path::Path, time::Duration};

use toml::de::DeValue;

use super::{
    problem::Report,
    table::{Table, Text, bad_value},
};
use crate::source::{self, Source};

/// What the table may say.
pub(super) const KEYS: [&str; 8] = ["git", "ref", "archive", "sha256", "folder", "blob", "auto", "every"];
/// How often a source is looked at that is followed.
const EVERY_DEFAULT: Duration = Duration::from_secs(60);
/// How often it may be.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads it from the table of a service, with how often it is looked at if it is followed. `None` if it is not there, or
/// wrong and reported.
pub(super) fn read(
    table: &Table<'_, '_>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<(Source, Option<Duration>)> {
    const KEY: &str = "source";
    let value = table.value(KEY)?;
    let DeValue::Table(entries) = value.get_ref() else {
        let parsed = table.parsed(KEY, source::EXPECTED, report, |text| Source::parse(text, folder));
        return parsed.map(|source| (source, None));
    };
    let source = table.inner(KEY, value, entries, &KEYS, report);
    let kinds: Vec<&str> =
        ["git", "archive", "folder", "blob"].into_iter().filter(|key| source.value(key).is_some()).collect();
    let [kind] = kinds[..] else {
        if !["git", "archive", "folder", "blob"].iter().any(|key| source.was_tried(key)) || kinds.len() > 1 {
            let what = if kinds.is_empty() {
                "nothing to fetch".into()
            } else {
                format!("`{}`", kinds.join("` and `"))
            };
            let text = format!("`{KEY}` has {what}: write one of `git`, `archive`, `folder` and `blob`");
            report.at(value.span(), text);
        }
        return None;
    };
    for (key, of) in [("ref", "git"), ("sha256", "archive")] {
        if kind != of
            && let Some(odd) = source.value(key)
        {
            report
                .at(odd.span(), format!("`{key}` is of `{of}`, and `{kind}` is fetched: remove one of them"));
            return None;
        }
    }
    let expected = "a text, such as `\"main\"`";
    let second =
        |key: &str, report: &mut Report<'_>| source.text(key, expected, report).map(|text| text.text);
    let parsed = match kind {
        "git" => {
            let reference = second("ref", report);
            source.parsed(kind, "a git URL", report, |text| {
                sound(text)?;
                Source::git(text, reference, folder)
            })
        }
        "archive" => {
            let sha256 = second("sha256", report);
            source.parsed(kind, "a URL or a file", report, |text| {
                sound(text)?;
                Source::archive(text, sha256, folder)
            })
        }
        "folder" => source.parsed(kind, "a folder such as `\"../shop\"`", report, |text| {
            let path = folder.join(text);
            match path.is_dir() {
                true => Ok(Source::Folder { folder: path, digest: None }),
                false => Err(format!("is no folder in {}; it is relative to the file", folder.display())),
            }
        }),
        _ => source.parsed(kind, "`\"BUCKET/KEY\"`", report, Source::blob),
    };
    let follow = follow(&source, parsed.as_ref(), report);
    parsed.map(|parsed| (parsed, follow))
}

/// How often it is looked at.
fn follow(table: &Table<'_, '_>, source: Option<&Source>, report: &mut Report<'_>) -> Option<Duration> {
    let auto = table.boolean("auto", report).unwrap_or(false);
    let every = table.duration("every", EVERY_MIN..=EVERY_MAX, report);
    if let (false, Some(value)) = (auto, table.value("every")) {
        report.at(
            value.span(),
            "`every` is how often a followed source is looked at: add auto = true, or remove it",
        );
    }
    if auto && let (Some(why), Some(value)) = (source.and_then(Source::stands_still), table.value("auto")) {
        bad_value(
            "auto",
            &Text { text: "true", span: value.span() },
            &format!("follows nothing: {why}"),
            report,
        );
    }
    auto.then(|| every.unwrap_or(EVERY_DEFAULT))
}

/// What a program would read as an option, or as several lines.
fn sound(text: &str) -> Result<(), String> {
    let is_sound = !text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control);
    if is_sound { Ok(()) } else { Err("is nothing to fetch from: write a URL or a path".into()) }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides, Source, load};

    fn read(source: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("app")).unwrap();
        let text = format!("[services.web]\ncommand = \"sh\"\nsource = {source}\n");
        std::fs::write(folder.path().join("lethe.toml"), text).unwrap();
        load(Source::Path(folder.path().into()), Overrides::default()).map_err(|errors| errors.to_string())
    }

    fn shown(source: &str) -> String {
        let service = &read(source).unwrap().services[0];
        let source = service.source.as_ref().unwrap();
        let shown = source.to_string();
        let folder = service.follow.map_or(String::new(), |every| format!(" every {every:?}"));
        shown.rsplit_once("/app").map_or(shown.clone(), |(_, rest)| format!("app{rest}")) + &folder
    }

    #[test]
    fn tables_and_texts() {
        let hash = "ab".repeat(32);
        for (source, expected) in [
            ("\"https://me:pw@h/x.git#v1\"", "https://…@h/x.git#v1".to_owned()),
            ("\"app\"", "app".into()),
            ("\"./app#main\"", "app#main".into()),
            ("{ git = \"https://me:pw@h/x\", ref = \"main\" }", "https://…@h/x#main".into()),
            ("{ git = \"https://h/x\", auto = true }", "https://h/x every 60s".into()),
            ("{ git = \"https://h/x\", auto = true, every = \"5s\" }", "https://h/x every 5s".into()),
            ("{ archive = \"https://h/latest\", auto = true }", "https://h/latest every 60s".into()),
            (
                &format!("{{ archive = \"https://h/x.tar?t=1\", sha256 = \"{hash}\" }}"),
                "https://h/x.tar?…".into(),
            ),
            (&format!("\"https://h/x.tgz#sha256={hash}\""), "https://h/x.tgz".into()),
            ("{ folder = \"app\" }", "app".into()),
            ("{ blob = \"releases/x.tgz\" }", "blob:releases/x.tgz".into()),
        ] {
            assert_eq!(shown(source), expected, "{source}");
        }
    }

    #[test]
    fn mistakes_name_the_key_and_no_password() {
        let hash = "ab".repeat(32);
        for (source, part) in [
            ("{}", "`source` has nothing to fetch"),
            ("{ git = \"https://h/x\", folder = \"app\" }", "has `git` and `folder`"),
            ("{ gti = \"https://h/x\" }", "did you mean `git`?"),
            ("{ folder = \"app\", ref = \"main\" }", "`ref` is of `git`"),
            ("{ git = \"https://h/x\", sha256 = \"1\" }", "`sha256` is of `archive`"),
            ("{ git = \"--upload-pack=x\" }", "nothing to fetch from"),
            ("{ git = \"https://h/x\", ref = \"-x\" }", "has no branch, tag or commit"),
            ("{ git = \"https://h/x\", every = \"5s\" }", "add auto = true"),
            ("{ git = \"https://h/x\", auto = true, every = \"5ms\" }", "too short"),
            ("{ folder = \"app\", auto = true }", "follows nothing"),
            (
                &format!("{{ git = \"https://h/x\", ref = \"{}\", auto = true }}", "a".repeat(40)),
                "a commit never changes",
            ),
            (
                &format!("{{ archive = \"https://h/x.tar\", sha256 = \"{hash}\", auto = true }}"),
                "never changes",
            ),
            ("{ archive = \"ftp://h/x.tar\" }", "neither http:// nor https://"),
            ("{ folder = \"no\" }", "is no folder"),
            ("\"https://me:hunter2@h/x.tar#v1\"", "is an archive"),
            ("{ archive = \"https://me:hunter2@h/x.tar\", sha256 = \"12\" }", "64 hexadecimal digits"),
        ] {
            let error = read(source).unwrap_err();
            assert!(error.contains(part), "{source}\n{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

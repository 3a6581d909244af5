//! What is no TOML at all, and what is there twice.

use super::check;
use crate::config::{Errors, file};

#[test]
fn no_toml() {
    check(
        r#"
[services.shop]
command = python3 app.py
drain = 10s # soon
instances = 2..8
"#,
        r#"
lethe.toml:2:11: `command`: `python3 app.py` needs quotes: write command = "python3 app.py"
  2 | command = python3 app.py
    |           ^^^^^^^^^^^^^^
lethe.toml:3:9: `drain`: `10s` needs quotes: write drain = "10s"
  3 | drain = 10s # soon
    |         ^^^
lethe.toml:4:13: `instances`: `2..8` needs quotes: write instances = "2..8"
  4 | instances = 2..8
    |             ^^^^"#,
    );
    check(
        r#"
[services.shop]
command =
"#,
        r#"
lethe.toml:2:1: `command` has no value: write one after the `=`
  2 | command =
    | ^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop
command = 'sh'
"#,
        r#"
lethe.toml:1:15: not valid TOML: unclosed table, expected `]`
  1 | [services.shop
    |               ^"#,
    );
    check(
        r#"
[services.shop]
command = "sh
"#,
        r#"
lethe.toml:2:14: the string has no closing quote: add it at the end of the line
  2 | command = "sh
    |              ^"#,
    );
    check(
        r#"
[services.shop]
command = ['sh', 'x'
ready = '/'
"#,
        r#"
lethe.toml:3:1: not valid TOML: missing comma between array elements, expected `,`
  3 | ready = '/'
    | ^"#,
    );
    check(
        r#"
[services.shop]
command: 'sh'
"#,
        r#"
lethe.toml:2:8: TOML has `=` between a key and its value, not `:`
  2 | command: 'sh'
    |        ^"#,
    );
    check(
        r#"
services = 1
[services.shop]
command = 'sh'
"#,
        r#"
lethe.toml:2:2: not valid TOML: cannot extend value of type integer with a dotted key
  2 | [services.shop]
    |  ^^^^^^^^"#,
    );
}

/// One slip anywhere in a file full of what is hard to point at: letters of several bytes, `\r\n`, strings over lines.
#[test]
fn no_damage_is_a_panic() {
    const WHOLE: &str = "# é\r\nlisten = 8080\nstate = { url = \"embedded:é\" }\n[services.shop]\n\
                         command = ['sh', \"a\\u00e9\"]\nenv = { A = \'\'\'é\n\'\'\' }\n[[routes]]\npath = '/x' # é\n";
    const SLIPS: [&str; 16] =
        ["", "é", "\"", "'", "[", "]", "{", "}", "=", ".", "#", ":", "\n", "\r", "\0", "\u{feff}"];
    let folder = tempfile::tempdir().unwrap();
    let read = |toml: &str| file::read(toml, "lethe.toml", folder.path()).map_err(Errors);
    assert!(read(WHOLE).is_ok());
    let mut wrong = 0;
    for (at, letter) in WHOLE.char_indices() {
        for slip in SLIPS {
            let toml = format!("{}{slip}{}", &WHOLE[..at], &WHOLE[at + letter.len_utf8()..]);
            let Err(errors) = read(&toml) else { continue };
            wrong += 1;
            let said = errors.to_string();
            assert!(said.starts_with("lethe.toml:") && !said.contains('\0'), "{toml}\n{said}");
        }
        let _ = read(&WHOLE[..at]);
    }
    assert!(wrong > WHOLE.len(), "{wrong} of all slips were noticed");
}

#[test]
fn what_is_there_twice() {
    check(
        r#"
listen = '8080'
[services.shop]
command = 'sh'

[services.shop]
command = 'sh'
ready = '/'
"#,
        r#"
lethe.toml:5:11: two services are named `shop`, first on line 2; rename one, or put their keys into one table
  5 | [services.shop]
    |           ^^^^"#,
    );
    check(
        r#"
listen = '1'
listen = '2'
[services.shop]
command = 'sh'
command = 'bash'"#,
        r#"
lethe.toml:2:1: `listen` is there twice in the same table; keep one
  2 | listen = '2'
    | ^^^^^^
lethe.toml:5:1: `command` is there twice in the same table; keep one
  5 | command = 'bash'
    | ^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[state]
url = 'a'
[state] # again
url = 'b'
x = 1"#,
        r#"
lethe.toml:5:2: `state` is there twice, first on line 3; rename one, or put their keys into one table
  5 | [state] # again
    |  ^^^^^
lethe.toml:7:1: unknown key `x` in [state]; known there: `url`, `sessions`, `tables`, `blobs`, `limits`, `idempotency`, `locks` and `cache`
  7 | x = 1
    | ^"#,
    );
}

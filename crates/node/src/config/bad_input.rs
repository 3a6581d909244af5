//! Every slip that a `lethe.toml` can have, and exactly what is said about it.

use super::{Errors, file};

/// Reads `toml` as the `lethe.toml` of an empty folder and compares all that is said about it. Both texts begin on a
/// line of their own.
fn check(toml: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let toml = toml.strip_prefix('\n').unwrap();
    let said = match file::read(toml, "lethe.toml", &folder) {
        Ok(_) => "nothing is wrong".into(),
        Err(problems) => Errors(problems).to_string(),
    };
    let said = said.replace(folder.to_str().unwrap(), "DIR");
    assert_eq!(said, expected.strip_prefix('\n').unwrap(), "what is said about:\n{toml}");
}

#[test]
fn unknown_keys() {
    check(
        r#"
listn = '8080'
[services.shop]
comand = 'sh'"#,
        r#"
lethe.toml:1:1: unknown key `listn`; did you mean `listen`?
  1 | listn = '8080'
    | ^^^^^
lethe.toml:3:1: unknown key `comand` in [services.shop]; did you mean `command`?
  3 | comand = 'sh'
    | ^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
listen = '8080'
path = '/'
replicas = 3"#,
        r#"
lethe.toml:3:1: unknown key `listen` in [services.shop]; it belongs at the top of the file, before the first [table]
  3 | listen = '8080'
    | ^^^^^^
lethe.toml:4:1: unknown key `path` in [services.shop]; it belongs under [[routes]]
  4 | path = '/'
    | ^^^^
lethe.toml:5:1: unknown key `replicas` in [services.shop]; known there: `command`, `source`, `build`, `instances`, `ready`, `listener`, `drain`, `env`, `directory`, `protocol`, `concurrency`, `slow-start`, `eject` and `health`
  5 | replicas = 3
    | ^^^^^^^^"#,
    );
    check(
        r#"
[service.shop]
command = 'sh'
[[routes]]
service = 'shop'"#,
        r#"
lethe.toml:1:2: unknown key `service`; did you mean `services`?
  1 | [service.shop]
    |  ^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[state]
path = 'x'"#,
        r#"
lethe.toml:4:1: unknown key `path` in [state]; known there: `url`, `sessions`, `tables`, `blobs`, `limits`, `idempotency` and `locks`
  4 | path = 'x'
    | ^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[[routes]]
services = 'shop'
rewrite = 1"#,
        r#"
lethe.toml:4:1: unknown key `services` in [[routes]]; did you mean `service`?
  4 | services = 'shop'
    | ^^^^^^^^
lethe.toml:5:1: unknown key `rewrite` in [[routes]]; known there: `host`, `path`, `service`, `idempotent`, `balance`, `timeout`, `class`, `retry-on`, `resume` and `server-timing`
  5 | rewrite = 1
    | ^^^^^^^"#,
    );
}

#[test]
fn no_service() {
    check(
        r#"
"#,
        r#"
lethe.toml:1:1: no service: add [services.NAME] with a command = "…""#,
    );
    check(
        r#"
[services]"#,
        r#"
lethe.toml:1:1: no service: add [services.NAME] with a command = "…"
  1 | [services]
    | ^^^^^^^^^^"#,
    );
    check(
        r#"
command = 'sh'"#,
        r#"
lethe.toml:1:1: unknown key `command`; it belongs under [services.NAME]
  1 | command = 'sh'
    | ^^^^^^^
lethe.toml:1:1: no service: add [services.NAME] with a command = "…"
  1 | command = 'sh'
    | ^"#,
    );
    check(
        r#"
[services.shop]
ready = '/'"#,
        r#"
lethe.toml:1:1: [services.shop] has no `command`: add one, such as command = "python3 app.py"
  1 | [services.shop]
    | ^^^^^^^^^^^^^^^"#,
    );
}

#[test]
fn wrong_types() {
    check(
        r#"
listen = true
admin = []
state = 1
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:10: `listen` must be an address such as `"127.0.0.1:8080"`, not the boolean `true`
  1 | listen = true
    |          ^^^^
lethe.toml:2:9: `admin` must be an address such as `"127.0.0.1:8081"`, or `"off"`, not an array
  2 | admin = []
    |         ^^
lethe.toml:3:9: `state` must be a folder such as `".lethe"`, or a URL such as `"redis://127.0.0.1"`, not the integer `1`
  3 | state = 1
    |         ^"#,
    );
    check(
        r#"
[services.shop]
command = 7
build = 1.5
instances = true
ready = 1
listener = 3
drain = 10
env = 'A=b'
directory = 1979-05-27"#,
        r#"
lethe.toml:2:11: `command` in [services.shop] must be a command such as `"python3 app.py"` or `["python3", "app.py"]`, not the integer `7`
  2 | command = 7
    |           ^
lethe.toml:3:9: `build` in [services.shop] must be a command such as `"python3 app.py"` or `["python3", "app.py"]`, not the float `1.5`
  3 | build = 1.5
    |         ^^^
lethe.toml:4:13: `instances` in [services.shop] must be a number such as `3` or a range such as `"2..8"`, not the boolean `true`
  4 | instances = true
    |             ^^^^
lethe.toml:5:9: `ready` in [services.shop] must be a path such as `"/healthz"`, not the integer `1`
  5 | ready = 1
    |         ^
lethe.toml:6:12: `listener` in [services.shop] must be `"port"`, `"inherited"` or `"socket"`, not the integer `3`
  6 | listener = 3
    |            ^
lethe.toml:7:9: `drain` in [services.shop] must be a duration such as `"10s"`, not the integer `10`
  7 | drain = 10
    |         ^^
lethe.toml:8:7: `env` in [services.shop] must be a table such as `{ RUST_LOG = "info" }`, not the string `'A=b'`
  8 | env = 'A=b'
    |       ^^^^^
lethe.toml:9:13: `directory` in [services.shop] must be a folder such as `"."`, not the datetime `1979-05-27`
  9 | directory = 1979-05-27
    |             ^^^^^^^^^^"#,
    );
    check(
        r#"
services = 1"#,
        r#"
lethe.toml:1:12: `services` must be tables, each begun by [services.NAME], not the integer `1`
  1 | services = 1
    |            ^"#,
    );
    check(
        r#"
services.shop = 'sh'"#,
        r#"
lethe.toml:1:17: `[services.shop]` must be a table with a `command`, not the string `'sh'`
  1 | services.shop = 'sh'
    |                 ^^^^"#,
    );
    check(
        r#"
[[services]]
command = 'sh'"#,
        r#"
lethe.toml:1:1: `services` must be tables, each begun by [services.NAME], not an array
  1 | [[services]]
    | ^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = ['sh', 1]"#,
        r#"
lethe.toml:2:18: each word of `command` in [services.shop] must be a string, not the integer `1`
  2 | command = ['sh', 1]
    |                  ^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[routes]
path = '/'"#,
        r#"
lethe.toml:3:1: `routes` must be a list, each begun by [[routes]] with two brackets, not a table
  3 | [routes]
    | ^^^^^^^^"#,
    );
    check(
        r#"
routes = ['/']
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:11: each of `routes` must be a table such as `{ path = "/", service = "shop" }`, not the string `'/'`
  1 | routes = ['/']
    |           ^^^"#,
    );
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
lethe.toml:7:1: unknown key `x` in [state]; known there: `url`, `sessions`, `tables`, `blobs`, `limits`, `idempotency` and `locks`
  7 | x = 1
    | ^"#,
    );
}

#[test]
fn addresses_and_state() {
    check(
        r#"
listen = 99999
admin = 'localhost'
state = 'mongodb://localhost'
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:10: `listen`: `99999` is not an address: the last port is 65535
  1 | listen = 99999
    |          ^^^^^
lethe.toml:2:9: `admin`: `localhost` is not an address: write a port such as "8080", or an address and a port such as "127.0.0.1:8080"
  2 | admin = 'localhost'
    |         ^^^^^^^^^^^
lethe.toml:3:9: `state`: the address needs the engine `mongodb`, which this version does not have; there are `embedded`, `redis://`, `postgres://` and `s3://`"#,
    );
    check(
        r#"
[state]
url = 'embedded:'
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:2:7: `url`: `embedded:` names no folder: write ".lethe" or "embedded:.lethe"
  2 | url = 'embedded:'
    |       ^^^^^^^^^^^"#,
    );
}

#[test]
fn services() {
    check(
        r#"
[services.Shop_1]
command = 'sh'"#,
        r#"
lethe.toml:1:11: `Shop_1` is not a service name: use lower-case letters, digits and `-`, beginning with a letter, at most 40 characters
  1 | [services.Shop_1]
    |           ^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
instances = '8..2'"#,
        r#"
lethe.toml:3:13: `instances`: `8..2` is upside down: write "2..8"
  3 | instances = '8..2'
    |             ^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
instances = 0"#,
        r#"
lethe.toml:3:13: `instances`: `0` is too few: a service needs at least 1 worker
  3 | instances = 0
    |             ^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
instances = 99999999999999999999"#,
        r#"
lethe.toml:3:13: `instances`: `99999999999999999999` is too many: a service has at most 1000 workers
  3 | instances = 99999999999999999999
    |             ^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
drain = '10 secs'"#,
        r#"
lethe.toml:3:9: `drain`: `10 secs` is not a duration: write a whole number and a unit, such as "250ms", "10s", "5m" or "1h"
  3 | drain = '10 secs'
    |         ^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
drain = '10'"#,
        r#"
lethe.toml:3:9: `drain`: `10` needs a unit: write "10s", or "10ms", "10m", "10h"
  3 | drain = '10'
    |         ^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
ready = 'healthz'
listener = 'inherit'
directory = 'src'"#,
        r#"
lethe.toml:3:9: `ready`: `healthz` must begin with `/`: write "/healthz"
  3 | ready = 'healthz'
    |         ^^^^^^^^^
lethe.toml:4:12: `listener`: `inherit` is no kind of listener; did you mean "inherited"?
  4 | listener = 'inherit'
    |            ^^^^^^^^^
lethe.toml:5:13: `directory`: `src` is no folder in DIR; it is relative to the file
  5 | directory = 'src'
    |             ^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
ready = 'http://localhost/healthz'
listener = 'tcp'"#,
        r#"
lethe.toml:3:9: `ready`: `http://localhost/healthz` is a URL: write the path alone, such as "/healthz"
  3 | ready = 'http://localhost/healthz'
    |         ^^^^^^^^^^^^^^^^^^^^^^^^^^
lethe.toml:4:12: `listener`: `tcp` is no kind of listener: write "port" (the worker opens $PORT itself), "socket" (it opens the unix socket $SOCKET) or "inherited" (it is given an open socket)
  4 | listener = 'tcp'
    |            ^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
env = { PORT = '1', SOCKET = '/s', LETHE_STATE = 'x', A = 1, '' = 'x' }"#,
        r#"
lethe.toml:3:9: `env`: `PORT` is given to each worker by lethe; remove it
  3 | env = { PORT = '1', SOCKET = '/s', LETHE_STATE = 'x', A = 1, '' = 'x' }
    |         ^^^^
lethe.toml:3:21: `env`: `SOCKET` is given to each worker by lethe; remove it
  3 | env = { PORT = '1', SOCKET = '/s', LETHE_STATE = 'x', A = 1, '' = 'x' }
    |                     ^^^^^^
lethe.toml:3:36: `env`: `LETHE_STATE` is given to each worker by lethe; remove it
  3 | env = { PORT = '1', SOCKET = '/s', LETHE_STATE = 'x', A = 1, '' = 'x' }
    |                                    ^^^^^^^^^^^
lethe.toml:3:59: `A` in `env` must be a string, such as `"1"`, not the integer `1`
  3 | env = { PORT = '1', SOCKET = '/s', LETHE_STATE = 'x', A = 1, '' = 'x' }
    |                                                           ^
lethe.toml:3:62: `env`: `` is no name: use letters, digits and `_`
  3 | env = { PORT = '1', SOCKET = '/s', LETHE_STATE = 'x', A = 1, '' = 'x' }
    |                                                              ^^"#,
    );
}

#[test]
fn commands() {
    check(
        r#"
[services.shop]
command = ''"#,
        r#"
lethe.toml:2:11: `command` in [services.shop] is empty: write a command such as `"python3 app.py"` or `["python3", "app.py"]`
  2 | command = ''
    |           ^^"#,
    );
    check(
        r#"
[services.shop]
command = []
build = ' '"#,
        r#"
lethe.toml:2:11: `command` in [services.shop] is empty: write a command such as `"python3 app.py"` or `["python3", "app.py"]`
  2 | command = []
    |           ^^
lethe.toml:3:9: `build` in [services.shop] is empty: write a command such as `"python3 app.py"` or `["python3", "app.py"]`
  3 | build = ' '
    |         ^^^"#,
    );
    check(
        r#"
[services.shop]
command = "sh 'x""#,
        r#"
lethe.toml:2:11: `command`: `sh 'x` has a quote that is not closed: close it, or put `\` before it
  2 | command = "sh 'x"
    |           ^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = "sh \u0000""#,
        r#"
lethe.toml:2:11: `command` in [services.shop] has a NUL character, which no program can be given
  2 | command = "sh \u0000"
    |           ^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'cd x && ./run'"#,
        r#"
lethe.toml:2:11: `command`: `cd x && ./run` uses `&&`, and is started without a shell: write ["sh", "-c", "cd x && ./run"]
  2 | command = 'cd x && ./run'
    |           ^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'A=b ./run --bind $PORT'"#,
        r#"
lethe.toml:2:11: `command`: `A=b ./run --bind $PORT` sets `A` before the program: put it in `env`, or write ["sh", "-c", "A=b ./run --bind $PORT"]
  2 | command = 'A=b ./run --bind $PORT'
    |           ^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = ['gunicorn', '-b', ':$PORT']"#,
        r#"
lethe.toml:2:11: `command`: `gunicorn -b ':$PORT'` uses `$PORT`, which only a shell replaces, and is started without one: write ["sh", "-c", "gunicorn -b ':$PORT'"]
  2 | command = ['gunicorn', '-b', ':$PORT']
    |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'gunicorn -b unix:${SOCKET}'"#,
        r#"
lethe.toml:2:11: `command`: `gunicorn -b unix:${SOCKET}` uses `$SOCKET`, which only a shell replaces, and is started without one: write ["sh", "-c", "gunicorn -b unix:${SOCKET}"]
  2 | command = 'gunicorn -b unix:${SOCKET}'
    |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'no-such-program --x'"#,
        r#"
lethe.toml:2:11: `command`: `no-such-program` is no program in PATH: install it, or write its path
  2 | command = 'no-such-program --x'
    |           ^^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'target/release/shop'"#,
        r#"
lethe.toml:2:11: `command`: `target/release/shop` is not in DIR: build it first, or say how in `build`
  2 | command = 'target/release/shop'
    |           ^^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = ['./']"#,
        r#"
lethe.toml:2:11: `command`: `./` is a folder, not a program
  2 | command = ['./']
    |           ^^^^^^"#,
    );
}

#[test]
fn routes() {
    check(
        r#"
[services.a]
command = 'sh'
[services.b]
command = 'sh'"#,
        r#"
lethe.toml:1:2: 2 services and no route: add [[routes]] for each that gets requests, such as one with path = "/" and service = "a"
  1 | [services.a]
    |  ^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[[routes]]
service = 'shp'
[[routes]]
path = '/x'
service = 'basket'"#,
        r#"
lethe.toml:4:11: `service`: `shp` is no service of this file; did you mean `shop`?
  4 | service = 'shp'
    |           ^^^^^
lethe.toml:7:11: `service`: `basket` is no service of this file; there are: `shop`
  7 | service = 'basket'
    |           ^^^^^^^^"#,
    );
    check(
        r#"
[services.a]
command = 'sh'
[services.b]
command = 'sh'
[[routes]]
path = '/'"#,
        r#"
lethe.toml:5:1: this route has no `service`: add one of `a` and `b`
  5 | [[routes]]
    | ^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[[routes]]
host = 'a.b'
path = '/x'
[[routes]]
path = '/x'
[[routes]]
host = 'A.b'
path = '/x/'"#,
        r#"
lethe.toml:8:1: two routes for `a.b/x`, first on line 3; remove one
  8 | [[routes]]
    | ^^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[[routes]]
host = 'a.b:80'
path = 'x'
idempotent = 'yes'
balance = 'fair'
timeout = '0s'"#,
        r#"
lethe.toml:4:8: `host`: `a.b:80` is not a host: leave the port out, such as "a.b"
  4 | host = 'a.b:80'
    |        ^^^^^^^^
lethe.toml:5:8: `path`: `x` must begin with `/`: write "/x"
  5 | path = 'x'
    |        ^^^
lethe.toml:6:14: `idempotent` in [[routes]] must be `true` or `false`, not the string `'yes'`
  6 | idempotent = 'yes'
    |              ^^^^^
lethe.toml:7:11: `balance`: `fair` is no way to balance: write "round-robin", "least-loaded" or "random"
  7 | balance = 'fair'
    |           ^^^^^^
lethe.toml:8:11: `timeout`: `0s` is no time at all: write at least "1ms"
  8 | timeout = '0s'
    |           ^^^^"#,
    );
}

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
fn sources() {
    check(
        r#"
[services.shop]
source = 'shop'
directory = '../x'
command = 'no-such-program'"#,
        r#"
lethe.toml:2:10: `source`: `shop` is neither a git URL nor an archive: write a git URL such as `"https://example.org/shop.git#v1.2"`, an archive such as `"https://example.org/shop.tar.gz"` or `"dist/shop.tar.gz"`, or a blob such as `"blob:releases/shop.tar.gz"`
  2 | source = 'shop'
    |          ^^^^^^
lethe.toml:3:13: `directory`: `../x` must be a folder of the `source`: write it without `..` or a leading `/`
  3 | directory = '../x'
    |             ^^^^^^"#,
    );
}

#[test]
fn whom_to_believe() {
    check(
        r#"
proxy-protocol = true
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:18: `proxy-protocol` is on and nobody is trusted, so every connection would be closed: name the proxies, such as trusted-proxies = ["10.0.0.0/8"]
  1 | proxy-protocol = true
    |                  ^^^^"#,
    );
    check(
        r#"
proxy-protocol = 'yes'
trusted-proxies = ['10/8', 'proxy', 7, '10.0.0.0/33']
access-log = '/no/such/folder/log'
cores = 0
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:18: `proxy-protocol` must be `true` or `false`, not the string `'yes'`
  1 | proxy-protocol = 'yes'
    |                  ^^^^^
lethe.toml:2:20: `trusted-proxies`: `10/8` is not a network: write "10.0.0.0/8"
  2 | trusted-proxies = ['10/8', 'proxy', 7, '10.0.0.0/33']
    |                    ^^^^^^
lethe.toml:2:28: `trusted-proxies`: `proxy` is not a network: names are not looked up; write its address, such as "192.0.2.7"
  2 | trusted-proxies = ['10/8', 'proxy', 7, '10.0.0.0/33']
    |                            ^^^^^^^
lethe.toml:2:37: each of `trusted-proxies` must be a network such as `"10.0.0.0/8"`, not the integer `7`
  2 | trusted-proxies = ['10/8', 'proxy', 7, '10.0.0.0/33']
    |                                     ^
lethe.toml:2:40: `trusted-proxies`: `10.0.0.0/33` is not a network: at most 32 bits count in "10.0.0.0"
  2 | trusted-proxies = ['10/8', 'proxy', 7, '10.0.0.0/33']
    |                                        ^^^^^^^^^^^^^
lethe.toml:3:14: `access-log`: `/no/such/folder/log` cannot be written: there is no folder /no/such/folder; make it first
  3 | access-log = '/no/such/folder/log'
    |              ^^^^^^^^^^^^^^^^^^^^^
lethe.toml:4:9: `cores`: `0` is out of bounds: write a number from 1 to 1024
  4 | cores = 0
    |         ^"#,
    );
    check(
        r#"
trusted-proxies = '10.0.0.0/8'
access-log = true
cores = 'all'
trusted-proxy = 1
acces-log = 1
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:19: `trusted-proxies` must be a list such as `["10.0.0.0/8", "::1"]`, not the string `'10.0.0.0/8'`
  1 | trusted-proxies = '10.0.0.0/8'
    |                   ^^^^^^^^^^^^
lethe.toml:2:14: `access-log` must be `"off"`, `"stdout"` or a file such as `"access.log"`, not the boolean `true`
  2 | access-log = true
    |              ^^^^
lethe.toml:3:9: `cores` must be a whole number from 1 to 1024, not the string `'all'`
  3 | cores = 'all'
    |         ^^^^^
lethe.toml:4:1: unknown key `trusted-proxy`; did you mean `trusted-proxies`?
  4 | trusted-proxy = 1
    | ^^^^^^^^^^^^^
lethe.toml:5:1: unknown key `acces-log`; did you mean `access-log`?
  5 | acces-log = 1
    | ^^^^^^^^^"#,
    );
}

#[test]
fn tls() {
    check(
        r#"
[services.shop]
command = 'sh'
[tls]
lisen = 8443"#,
        r#"
lethe.toml:3:1: [tls] has no `certificates`: add certificates = [{ chain = "shop.pem", key = "shop.key" }], or start with --tls-self-signed and without [tls]
  3 | [tls]
    | ^^^^^
lethe.toml:4:1: unknown key `lisen` in [tls]; did you mean `listen`?
  4 | lisen = 8443
    | ^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[tls]
listen = '8443x'
certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]"#,
        r#"
lethe.toml:4:10: `listen`: `8443x` is not an address: write a port such as "8080", or an address and a port such as "127.0.0.1:8080"
  4 | listen = '8443x'
    |          ^^^^^^^
lethe.toml:5:17: this certificate has no `key`: write a table such as `{ chain = "shop.pem", key = "shop.key" }`
  5 | certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]
    |                 ^^^^^^^^^^^^^^^^^^^^^^^^
lethe.toml:5:27: `chain`: `absent.pem` is no file in DIR; it is relative to the file
  5 | certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]
    |                           ^^^^^^^^^^^^
lethe.toml:5:43: each of `certificates` in [tls] must be a table such as `{ chain = "shop.pem", key = "shop.key" }`, not the string `'shop.pem'`
  5 | certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]
    |                                           ^^^^^^^^^^
lethe.toml:5:65: `chain` in `certificates` in [tls] must be a file such as `"shop.pem"`, not the integer `1`
  5 | certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]
    |                                                                 ^
lethe.toml:5:74: `key`: `.` cannot be read: Is a directory (os error 21)
  5 | certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]
    |                                                                          ^^^
lethe.toml:5:79: unknown key `name` in `certificates` in [tls]; known there: `chain` and `key`
  5 | certificates = [{ chain = 'absent.pem' }, 'shop.pem', { chain = 1, key = '.', name = 'x' }]
    |                                                                               ^^^^"#,
    );
    check(
        r#"
tls = true
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:7: `tls` must be a table with `certificates`, not the boolean `true`
  1 | tls = true
    |       ^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[tls]
certificates = []
queue-max = 7"#,
        r#"
lethe.toml:4:16: `certificates` in [tls] is empty: add certificates = [{ chain = "shop.pem", key = "shop.key" }], or start with --tls-self-signed and without [tls]
  4 | certificates = []
    |                ^^
lethe.toml:5:1: unknown key `queue-max` in [tls]; it belongs under [limits]
  5 | queue-max = 7
    | ^^^^^^^^^"#,
    );
}

#[test]
fn limits() {
    check(
        r#"
[services.shop]
command = 'sh'
[limits]
head-bytes-max = '512B'
target-bytes-max = '64KB'
headers-max = 5
head-timeout = '50ms'
idle-timeout = 75
queue-max = -1
retry-percent-max = 101
replay-bytes-max = '4GiB'
hold-bytes-max = true
streams-max = 99999999999999999999
queue-time = '1s'
"#,
        r#"
lethe.toml:4:18: `head-bytes-max`: `512B` is too small: write at least "1KiB"
  4 | head-bytes-max = '512B'
    |                  ^^^^^^
lethe.toml:5:20: `target-bytes-max`: `64KB` is not a size: write "64KiB" (units of 1024)
  5 | target-bytes-max = '64KB'
    |                    ^^^^^^
lethe.toml:6:15: `headers-max`: `5` is out of bounds: write a number from 10 to 1000
  6 | headers-max = 5
    |               ^
lethe.toml:7:16: `head-timeout`: `50ms` is too short: write at least "100ms"
  7 | head-timeout = '50ms'
    |                ^^^^^^
lethe.toml:8:16: `idle-timeout` in [limits] must be a duration such as `"10s"`, not the integer `75`
  8 | idle-timeout = 75
    |                ^^
lethe.toml:9:13: `queue-max`: `-1` is out of bounds: write a number from 0 to 1000000
  9 | queue-max = -1
    |             ^^
lethe.toml:10:21: `retry-percent-max`: `101` is out of bounds: write a number from 0 to 100
  10 | retry-percent-max = 101
     |                     ^^^
lethe.toml:11:20: `replay-bytes-max`: `4GiB` is too large: write at most "1GiB"
  11 | replay-bytes-max = '4GiB'
     |                    ^^^^^^
lethe.toml:12:18: `hold-bytes-max` in [limits] must be a size such as `"32KiB"`, or a number of bytes, not the boolean `true`
  12 | hold-bytes-max = true
     |                  ^^^^
lethe.toml:13:15: `streams-max`: `99999999999999999999` is out of bounds: write a number from 1 to 65536
  13 | streams-max = 99999999999999999999
     |               ^^^^^^^^^^^^^^^^^^^^
lethe.toml:14:1: unknown key `queue-time` in [limits]; did you mean `queue-timeout`?
  14 | queue-time = '1s'
     | ^^^^^^^^^^"#,
    );
    check(
        r#"
limits = 7
queue-max = 7
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:10: `limits` must be a table such as `{ queue-max = 1024 }`, not the integer `7`
  1 | limits = 7
    |          ^
lethe.toml:2:1: unknown key `queue-max`; it belongs under [limits]
  2 | queue-max = 7
    | ^^^^^^^^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[limits]
head-bytes-max = '8KiB'
target-bytes-max = '16KiB'
replay-bytes-max = 2048
replay-total-bytes-max = 1024"#,
        r#"
lethe.toml:5:20: `target-bytes-max` in [limits] is larger than `head-bytes-max`, of which it is a part
  5 | target-bytes-max = '16KiB'
    |                    ^^^^^^^
lethe.toml:6:20: `replay-bytes-max` in [limits] is larger than `replay-total-bytes-max`, of which it is a part
  6 | replay-bytes-max = 2048
    |                    ^^^^"#,
    );
}

#[test]
fn treatment() {
    check(
        r#"
[services.shop]
command = 'sh'
protocol = 'grpc'
concurrency = 'adaptiv'
slow-start = '2h'
eject = 'never'
health = 'healthz'
[services.blog]
command = 'sh'
protocol = 1
concurrency = 0
slow-start = 10
eject = { failures = 0 }
health = { every = '1s', timeout = '2s', paht = '/' }
[services.wiki]
command = 'sh'
concurrency = { min = 9, max = 3, start = 1 }
eject = { shortest = '9s', longest = '3s', out-percent = 0 }
health = { timeout = '2s', every = '1s', failures = 0 }
[services.news]
command = 'sh'
concurrency = true
eject = 5
health = 5
[[routes]]
service = 'shop'"#,
        r#"
lethe.toml:3:12: `protocol`: `grpc` is no protocol: write "h2c" (HTTP/2 without TLS, which gRPC uses)
  3 | protocol = 'grpc'
    |            ^^^^^^
lethe.toml:4:15: `concurrency`: `adaptiv` is no limit; did you mean "adaptive"?
  4 | concurrency = 'adaptiv'
    |               ^^^^^^^^^
lethe.toml:5:14: `slow-start`: `2h` is too long: write at most "1h"
  5 | slow-start = '2h'
    |              ^^^^
lethe.toml:6:9: `eject`: `never` is not known: write a table such as `{ failures = 5 }`, or `"off"`
  6 | eject = 'never'
    |         ^^^^^^^
lethe.toml:7:10: `health`: `healthz` must begin with `/`: write "/healthz"
  7 | health = 'healthz'
    |          ^^^^^^^^^
lethe.toml:10:12: `protocol` in [services.blog] must be `"http1"` or `"h2c"`, not the integer `1`
  10 | protocol = 1
     |            ^
lethe.toml:11:15: `concurrency`: `0` is out of bounds: write a number from 1 to 1000000
  11 | concurrency = 0
     |               ^
lethe.toml:12:14: `slow-start` in [services.blog] must be a duration such as `"10s"`, not the integer `10`
  12 | slow-start = 10
     |              ^^
lethe.toml:13:22: `failures`: `0` ejects at nothing: write eject = "off"
  13 | eject = { failures = 0 }
     |                      ^
lethe.toml:14:42: unknown key `paht` in [services.blog.health]; did you mean `path`?
  14 | health = { every = '1s', timeout = '2s', paht = '/' }
     |                                          ^^^^
lethe.toml:17:15: `concurrency`: `min` (9) is above `max` (3)
  17 | concurrency = { min = 9, max = 3, start = 1 }
     |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
lethe.toml:17:35: unknown key `start` in [services.wiki.concurrency]; known there: `min` and `max`
  17 | concurrency = { min = 9, max = 3, start = 1 }
     |                                   ^^^^^
lethe.toml:18:9: `eject`: `shortest` is longer than `longest`; swap them
  18 | eject = { shortest = '9s', longest = '3s', out-percent = 0 }
     |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
lethe.toml:18:58: `out-percent`: `0` is out of bounds: write a number from 1 to 100
  18 | eject = { shortest = '9s', longest = '3s', out-percent = 0 }
     |                                                          ^
lethe.toml:19:10: [services.wiki.health] has no `path`: add one, such as path = "/healthz"
  19 | health = { timeout = '2s', every = '1s', failures = 0 }
     |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
lethe.toml:19:53: `failures`: `0` is out of bounds: write a number from 1 to 1000
  19 | health = { timeout = '2s', every = '1s', failures = 0 }
     |                                                     ^
lethe.toml:22:15: `concurrency` in [services.news] must be a number such as `40`, `"unlimited"`, `"adaptive"` or `{ min = 4, max = 200 }`, not the boolean `true`
  22 | concurrency = true
     |               ^^^^
lethe.toml:23:9: `eject` in [services.news] must be a table such as `{ failures = 5 }`, or `"off"`, not the integer `5`
  23 | eject = 5
     |         ^
lethe.toml:24:10: `health` in [services.news] must be a path such as `"/healthz"`, or a table such as `{ path = "/healthz", every = "5s" }`, not the integer `5`
  24 | health = 5
     |          ^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
[[routes]]
class = 'slow'
retry-on = ['503', 502, 'reset', true]
resume = 'no'
server-timing = 1
protocol = 'h2c'
[[routes]]
path = '/x'
retry-on = '503'"#,
        r#"
lethe.toml:4:9: `class`: `slow` is no class: write "timely" (somebody waits) or "batch" (nobody does)
  4 | class = 'slow'
    |         ^^^^^^
lethe.toml:5:20: each of `retry-on` must be `"503"` or `"timeout"`, not the integer `502`
  5 | retry-on = ['503', 502, 'reset', true]
    |                    ^^^
lethe.toml:5:25: `retry-on`: `reset` is no reason to try again: write "503" or "timeout"; lost workers need not be named
  5 | retry-on = ['503', 502, 'reset', true]
    |                         ^^^^^^^
lethe.toml:5:34: each of `retry-on` must be `"503"` or `"timeout"`, not the boolean `true`
  5 | retry-on = ['503', 502, 'reset', true]
    |                                  ^^^^
lethe.toml:6:10: `resume` in [[routes]] must be `true` or `false`, not the string `'no'`
  6 | resume = 'no'
    |          ^^^^
lethe.toml:7:17: `server-timing` in [[routes]] must be `true` or `false`, not the integer `1`
  7 | server-timing = 1
    |                 ^
lethe.toml:8:1: unknown key `protocol` in [[routes]]; it belongs under [services.NAME]
  8 | protocol = 'h2c'
    | ^^^^^^^^
lethe.toml:11:12: `retry-on` in [[routes]] must be a list such as `["503", "timeout"]`, not the string `'503'`
  11 | retry-on = '503'
     |            ^^^^^"#,
    );
}

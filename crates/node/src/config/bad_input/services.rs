//! Slips under [services.NAME].

use std::path::Path;

use super::{check, said};

#[test]
fn warm_ups() {
    check(
        r#"
[services.shop]
command = 'sh'
warm-up = ['/', 'catalogue', 5]
start-wait = '1ms'
[services.blog]
command = 'sh'
warm-up = true
[[routes]]
service = 'shop'
[[routes]]
path = '/blog'
service = 'blog'"#,
        r#"
lethe.toml:3:17: `warm-up`: `catalogue` must begin with `/`: write "/catalogue"
  3 | warm-up = ['/', 'catalogue', 5]
    |                 ^^^^^^^^^^^
lethe.toml:3:30: each path of `warm-up` in [services.shop] must be a path such as `"/"`, not the integer `5`
  3 | warm-up = ['/', 'catalogue', 5]
    |                              ^
lethe.toml:4:14: `start-wait`: `1ms` is too short: write at least "10ms"
  4 | start-wait = '1ms'
    |              ^^^^^
lethe.toml:7:11: `warm-up` in [services.blog] must be paths such as `["/", "/catalogue"]`, not the boolean `true`
  7 | warm-up = true
    |           ^^^^"#,
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
lethe.toml:3:13: `instances`: `0` is too few: a service needs at least 1 worker; write "0..1" for one that has none while nobody asks for anything
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
fn sources() {
    check(
        r#"
[services.shop]
source = 'shop'
directory = '../x'
command = 'no-such-program'"#,
        r#"
lethe.toml:2:10: `source`: `shop` is neither a git URL nor an archive nor a folder: write a git URL such as `"https://example.org/shop.git#v1.2"`, an archive such as `"https://example.org/shop.tar.gz"` or `"dist/shop.tar.gz"`, a folder such as `"../shop"`, or a blob such as `"blob:releases/shop.tar.gz"`
  2 | source = 'shop'
    |          ^^^^^^
lethe.toml:3:13: `directory`: `../x` must be a folder of the `source`: write it without `..` or a leading `/`
  3 | directory = '../x'
    |             ^^^^^^"#,
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
retry-on = '503'
response-stall-timeout = '9ms'"#,
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
     |            ^^^^^
lethe.toml:12:26: `response-stall-timeout`: `9ms` is too short: write at least "100ms", or "off" for no bound
  12 | response-stall-timeout = '9ms'
     |                          ^^^^^"#,
    );
}

#[test]
fn grants() {
    check(
        r#"
[services.shop]
command = 'sh'
state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }"#,
        r#"
lethe.toml:3:21: `tables`: `Orders` cannot be the name of a table: these are 1 to 64 lower-case letters, digits, `-` and `_`; did you mean "orders"?
  3 | state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }
    |                     ^^^^^^^^
lethe.toml:3:31: `tables`: `car*t` has a `*` that is not its end: write "car*" or a whole name
  3 | state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }
    |                               ^^^^^^^
lethe.toml:3:40: each of `tables` in [services.shop.state] must be a name such as `"orders"`, not the integer `7`
  3 | state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }
    |                                        ^
lethe.toml:3:54: `buckets` in [services.shop.state] must be a list: write ["photos"]
  3 | state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }
    |                                                      ^^^^^^^^
lethe.toml:3:64: unknown key `session` in [services.shop.state]; did you mean `sessions`?
  3 | state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }
    |                                                                ^^^^^^^
lethe.toml:3:89: `locks`: `` is empty: write a name, or "*" for all
  3 | state = { tables = ['Orders', 'car*t', 7], buckets = 'photos', session = true, locks = [''] }
    |                                                                                         ^^"#,
    );
    check(
        r#"
[services.shop]
command = 'sh'
state = '.lethe'"#,
        r#"
lethe.toml:3:9: `state` in [services.shop] must be a table of what the service may use, such as `{ tables = ["orders"], sessions = true }`; where all state is kept is said by `state` at the top of the file, before the first [table]
  3 | state = '.lethe'
    |         ^^^^^^^^"#,
    );
}

#[test]
fn sessions_of_a_grant() {
    for (service, sessions, why) in [
        ("shop", "'My Shop'", "\"My Shop\" cannot be the name of sessions: these are 1 to 40 lower-case"),
        ("shop", "''", "cannot be the name of sessions"),
        ("shop", "['shop']", "must be `true`, for sessions of its own, or a name such as `\"shop\"`"),
        ("shop", "1", "must be `true`, for sessions of its own"),
        (
            "common",
            "true",
            "are those of services without `state`: write `sessions = \"common\"` if they are meant",
        ),
    ] {
        let toml = format!("[services.{service}]\ncommand = 'sh'\nstate = {{ sessions = {sessions} }}\n");
        let text = said(&toml, Path::new("/"));
        assert!(text.contains("lethe.toml:3:22: `sessions`") && text.contains(why), "{sessions}: {text}");
    }
}

#[test]
fn rollouts() {
    for (line, wrong, why) in [
        ("min-healthy = '101%'", "`min-healthy`: `101%`", "is too much: write at most \"100%\""),
        ("max-surge = '1'", "`max-surge`: `1`", "is no share: write a whole number and `%`"),
        ("max-surge = '-1%'", "`max-surge`: `-1%`", "is no share"),
        ("errors = 'of'", "`errors`: `of`", "is no share"),
        ("latency = '10001%'", "`latency`: `10001%`", "is too much"),
        ("grace = '0s'", "`grace`: `0s`", "is too short"),
        ("bake = '25h'", "`bake`: `25h`", "is too long"),
        ("checkpoints = [50, 10]", "`checkpoints`", "must rise from 1 to 99"),
        ("checkpoints = [0]", "`checkpoints`", "must rise from 1 to 99"),
        ("checkpoints = [100]", "`checkpoints`", "must rise from 1 to 99"),
        ("checkpoints = 10", "`checkpoints`", "[10, 50]"),
        ("requests = 0", "`requests`: `0`", "is out of bounds"),
        ("rollback = 'off'", "`rollback`", "`true` or `false`"),
        ("min-helthy = '9%'", "`min-helthy`", "min-healthy"),
    ] {
        let toml = format!("[services.shop]\ncommand = 'sh'\n[services.shop.rollout]\n{line}\n");
        let text = said(&toml, Path::new("/"));
        assert!(
            text.contains("lethe.toml:4:") && text.contains(wrong) && text.contains(why),
            "{line}: {text}"
        );
    }
}

//! Every slip that a `lethe.toml` can have, and exactly what is said about it.

mod gateway;
mod limits;
mod scale;
mod services;
mod syntax;

use std::path::Path;

use super::{Errors, file};

/// Reads `toml` as the `lethe.toml` of an empty folder and compares all that is said about it. Both texts begin on a
/// line of their own.
fn check(toml: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let toml = toml.strip_prefix('\n').unwrap();
    let said = said(toml, &folder).replace(folder.to_str().unwrap(), "DIR");
    assert_eq!(said, expected.strip_prefix('\n').unwrap(), "what is said about:\n{toml}");
}

/// All that is said about it.
fn said(toml: &str, folder: &Path) -> String {
    match file::read(toml, "lethe.toml", folder) {
        Ok(_) => "nothing is wrong".into(),
        Err(problems) => Errors(problems).to_string(),
    }
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
lethe.toml:5:1: unknown key `replicas` in [services.shop]; known there: `command`, `source`, `build`, `build-timeout`, `instances`, `ready`, `listener`, `drain`, `env`, `directory`, `protocol`, `concurrency`, `slow-start`, `eject`, `health`, `state`, `rollout`, `warm-up`, `start-wait`, `resources` and `scale`
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
lethe.toml:4:1: unknown key `path` in [state]; known there: `url`, `sessions`, `tables`, `blobs`, `limits`, `idempotency`, `locks` and `cache`
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
lethe.toml:5:1: unknown key `rewrite` in [[routes]]; known there: `host`, `path`, `service`, `idempotent`, `idempotency`, `balance`, `timeout`, `response-stall-timeout`, `class`, `limit`, `retry-on`, `resume` and `server-timing`
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

//! Slips in `[services.NAME.scale]`.

use super::check;

/// A service whose `scale` says this.
fn scale(says: &str) -> String {
    format!("\n[services.web]\ncommand = 'sh'\n[services.web.scale]\n{says}")
}

#[test]
fn ranges() {
    check(
        &scale("instances = '8..2'"),
        r#"
lethe.toml:4:13: [services.web.scale] `instances`: `8..2` is upside down: write "2..8"
  4 | instances = '8..2'
    |             ^^^^^^"#,
    );
    check(
        &scale("instances = 3\ncpu = '70%'"),
        r#"
lethe.toml:4:13: [services.web.scale] `instances`: `3` is no range: write one such as "3..12", or `instances = 3` for the service, without `scale`
  4 | instances = 3
    |             ^"#,
    );
    check(
        &scale("cpu = '70%'"),
        r#"
lethe.toml:3:1: [services.web.scale] has no `instances`: add a range such as instances = "2..8"
  3 | [services.web.scale]
    | ^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        "
[services.web]
command = 'sh'
instances = 3
scale = { cpu = '70%' }",
        r#"
lethe.toml:4:9: [services.web.scale] has no `instances`: add a range such as instances = "2..8"; the service's own `instances = 3` is a number, not a range
  4 | scale = { cpu = '70%' }
    |         ^^^^^^^^^^^^^^^"#,
    );
    check(
        "
[services.web]
command = 'sh'
instances = '2..4'
scale = { instances = '2..8', cpu = '70%' }",
        r#"
lethe.toml:4:23: `instances` in [services.web.scale] contradicts `instances` on line 3: keep one of them
  4 | scale = { instances = '2..8', cpu = '70%' }
    |                       ^^^^^^"#,
    );
    check(
        &scale("instances = '2..2000'"),
        r#"
lethe.toml:4:13: [services.web.scale] `instances`: `2..2000` is too many: a service has at most 1000 workers
  4 | instances = '2..2000'
    |             ^^^^^^^^^"#,
    );
    check(
        &scale("instances = '1..4'\nidle = '5m'"),
        r#"
lethe.toml:5:8: [services.web.scale] `idle` is when the last worker leaves, and here one stays: write instances = "0..4", or leave `idle` out
  5 | idle = '5m'
    |        ^^^^"#,
    );
    check(
        "
[services.web]
command = 'sh'
scale = '2..8'",
        r#"
lethe.toml:3:9: `scale` in [services.web] must be a table such as `{ instances = "2..8", cpu = "70%" }`, not the string `'2..8'`
  3 | scale = '2..8'
    |         ^^^^^^"#,
    );
}

#[test]
fn targets() {
    check(
        &scale("instances = '2..8'\ncpu = 70\nrequests = 1000\nlatency = '100ms'\nconcurrency = '40'"),
        r#"
lethe.toml:5:7: [services.web.scale] `cpu`: `70` needs its sign: write "70%"
  5 | cpu = 70
    |       ^^
lethe.toml:6:12: `requests` in [services.web.scale] must be a rate such as `"1000/s"`, not the integer `1000`
  6 | requests = 1000
    |            ^^^^
lethe.toml:7:11: [services.web.scale] `latency`: `100ms` is no goal: write a quantile and a time, such as "p99 < 100ms"
  7 | latency = '100ms'
    |           ^^^^^^^
lethe.toml:8:15: [services.web.scale] `concurrency` must be a number such as `40`, not the string `'40'`
  8 | concurrency = '40'
    |               ^^^^"#,
    );
    check(
        &scale("instances = '2..8'\ncpu = '0%'\nrequests = '0/s'\nlatency = 'p99 < 0ms'\nconcurrency = 0"),
        r#"
lethe.toml:5:7: [services.web.scale] `cpu`: `0%` must be above zero, such as "70%"
  5 | cpu = '0%'
    |       ^^^^
lethe.toml:6:12: [services.web.scale] `requests`: `0/s` must be above zero
  6 | requests = '0/s'
    |            ^^^^^
lethe.toml:7:11: [services.web.scale] `latency`: `p99 < 0ms` must be above zero: no answer takes no time
  7 | latency = 'p99 < 0ms'
    |           ^^^^^^^^^^^
lethe.toml:8:15: [services.web.scale] `concurrency`: `0` must be above zero
  8 | concurrency = 0
    |               ^"#,
    );
    check(
        &scale(
            "instances = '2..8'\ncpu = '-70%'\nrequests = '-1/s'\nlatency = 'p100 < 10ms'\nconcurrency = -4",
        ),
        r#"
lethe.toml:5:7: [services.web.scale] `cpu`: `-70%` must be above zero, such as "70%"
  5 | cpu = '-70%'
    |       ^^^^^^
lethe.toml:6:12: [services.web.scale] `requests`: `-1/s` must be above zero
  6 | requests = '-1/s'
    |            ^^^^^^
lethe.toml:7:11: [services.web.scale] `latency`: `p100 < 10ms` has no such quantile: they go from p1 to p99.9
  7 | latency = 'p100 < 10ms'
    |           ^^^^^^^^^^^^^
lethe.toml:8:15: [services.web.scale] `concurrency`: `-4` must be above zero
  8 | concurrency = -4
    |               ^^"#,
    );
    check(
        &scale(
            "instances = '2..8'\ncpu = 'NaN%'\nrequests = 'inf/s'\nlatency = 'p99 < 1x'\nconcurrency = nan",
        ),
        r#"
lethe.toml:5:7: [services.web.scale] `cpu`: `NaN%` is no share: write whole percent, such as "70%"
  5 | cpu = 'NaN%'
    |       ^^^^^^
lethe.toml:6:12: [services.web.scale] `requests`: `inf/s` is no rate: write how many in what time, such as "1000/s" or "600/min"
  6 | requests = 'inf/s'
    |            ^^^^^^^
lethe.toml:7:11: [services.web.scale] `latency`: `p99 < 1x` has no time behind the `<`: it is not a duration: write a whole number and a unit, such as "250ms", "10s", "5m" or "1h"
  7 | latency = 'p99 < 1x'
    |           ^^^^^^^^^^
lethe.toml:8:15: [services.web.scale] `concurrency`: `nan` is no number that could be reached: write one above zero, such as 40
  8 | concurrency = nan
    |               ^^^"#,
    );
    check(
        &scale("instances = '2..8'\nconcurency = 4\nqps = 3"),
        r#"
lethe.toml:5:1: unknown key `concurency` in [services.web.scale]; did you mean `concurrency`?
  5 | concurency = 4
    | ^^^^^^^^^^
lethe.toml:6:1: unknown key `qps` in [services.web.scale]; known there: `instances`, `idle`, `cpu`, `requests`, `latency`, `concurrency`, `queue`, `metric`, `up`, `down` and `hpa`
  6 | qps = 3
    | ^^^"#,
    );
}

#[test]
fn speeds() {
    check(
        &scale(
            "instances = '2..8'\nup = { window = '61m' }\ndown = { window = '1500ms', every = '31m', percent = 0 }",
        ),
        r#"
lethe.toml:5:17: [services.web.scale.up] `window`: `61m` is too long: write at most "1h"
  5 | up = { window = '61m' }
    |                 ^^^^^
lethe.toml:6:19: [services.web.scale.down] `window`: `1500ms` must be whole seconds
  6 | down = { window = '1500ms', every = '31m', percent = 0 }
    |                   ^^^^^^^^
lethe.toml:6:37: [services.web.scale.down] `every`: `31m` is too long: write at most "30m"
  6 | down = { window = '1500ms', every = '31m', percent = 0 }
    |                                     ^^^^^
lethe.toml:6:54: [services.web.scale.down] `percent`: `0` is out of bounds: write a number from 1 to 100000
  6 | down = { window = '1500ms', every = '31m', percent = 0 }
    |                                                      ^"#,
    );
    check(
        &scale(
            "instances = '2..8'\nup = { every = '15s' }\ndown = { tolerance = nan, select = 'most', windw = '1s' }",
        ),
        r#"
lethe.toml:5:16: `every` in [services.web.scale.up] is of how many: add `percent` or `instances`
  5 | up = { every = '15s' }
    |                ^^^^^
lethe.toml:6:22: [services.web.scale.down] `tolerance`: `nan` must be a share from 0 to below 1, such as 0.1
  6 | down = { tolerance = nan, select = 'most', windw = '1s' }
    |                      ^^^
lethe.toml:6:36: [services.web.scale.down] `select`: `most` is not known: write `"max"` or `"min"`
  6 | down = { tolerance = nan, select = 'most', windw = '1s' }
    |                                    ^^^^^^
lethe.toml:6:44: unknown key `windw` in [services.web.scale.down]; did you mean `window`?
  6 | down = { tolerance = nan, select = 'most', windw = '1s' }
    |                                            ^^^^^"#,
    );
    check(
        &scale("instances = '2..8'\nup = 'never'\ndown = 3"),
        r#"
lethe.toml:5:6: [services.web.scale] `up`: `never` is not known: write a table such as `{ window = "5m", percent = 10, every = "60s" }`, or `"off"`
  5 | up = 'never'
    |      ^^^^^^^
lethe.toml:6:8: `down` in [services.web.scale] must be a table such as `{ window = "5m", percent = 10, every = "60s" }`, or `"off"`, not the integer `3`
  6 | down = 3
    |        ^"#,
    );
}

#[test]
fn numbers_from_elsewhere() {
    check(
        &scale("instances = '2..8'\nqueue = { url = 'ftp://h/q', per-instance = 10 }"),
        r#"
lethe.toml:5:17: [services.web.scale.queue] `url`: `ftp://h/q` is fetched by `ftp`, which is not spoken here: give an "http://" URL, or fetch it yourself and tell it by PUT
  5 | queue = { url = 'ftp://h/q', per-instance = 10 }
    |                 ^^^^^^^^^^^"#,
    );
    check(
        &scale("instances = '2..8'\nmetric = { url = 'h/q', per-instance = 10 }"),
        r#"
lethe.toml:5:18: [services.web.scale.metric] `url`: `h/q` has no scheme: write "http://" before it
  5 | metric = { url = 'h/q', per-instance = 10 }
    |                  ^^^^^"#,
    );
    check(
        &scale(
            "instances = '2..8'\nqueue = { url = 'https://h/q', per-instance = 10 }\nmetric = { name = 'cpu', target = 1 }",
        ),
        r#"
lethe.toml:5:17: [services.web.scale.queue] `url`: `https://h/q` has TLS, which is not spoken here: fetch it yourself and tell it by PUT
  5 | queue = { url = 'https://h/q', per-instance = 10 }
    |                 ^^^^^^^^^^^^^
lethe.toml:6:19: [services.web.scale.metric] `name`: `cpu` is the name of a number that lethe measures itself: choose another
  6 | metric = { name = 'cpu', target = 1 }
    |                   ^^^^^"#,
    );
    check(
        &scale(
            "instances = '2..8'\nmetric = [{ name = 'a b', target = 1 }, { url = 'http://u:p@h/', target = 1 }, { name = 'c' }, 4]",
        ),
        r#"
lethe.toml:5:20: [services.web.scale.metric] `name`: `a b` is no name: write up to 64 letters, digits, `-`, `_` and `.`
  5 | metric = [{ name = 'a b', target = 1 }, { url = 'http://***@h/', target = 1 }, { name = 'c' }, 4]
    |                    ^^^^^
lethe.toml:5:49: [services.web.scale.metric] `url`: `http://***@h/` has a user in it, who would be told to nobody: leave that out
  5 | metric = [{ name = 'a b', target = 1 }, { url = 'http://***@h/', target = 1 }, { name = 'c' }, 4]
    |                                                 ^^^^^^^^^^^^^^^
lethe.toml:5:80: [services.web.scale.metric] has no `per-instance`: add how much of it one worker is for, such as per-instance = 10, or `target` for what it should be as a whole
  5 | metric = [{ name = 'a b', target = 1 }, { url = 'http://***@h/', target = 1 }, { name = 'c' }, 4]
    |                                                                                ^^^^^^^^^^^^^^
lethe.toml:5:96: [services.web.scale] `metric` must be a table such as `{ name = "emails", per-instance = 10 }`, not the integer `4`
  5 | metric = [{ name = 'a b', target = 1 }, { url = 'http://***@h/', target = 1 }, { name = 'c' }, 4]
    |                                                                                                ^"#,
    );
    check(
        &scale(
            "instances = '2..8'\nmetric = [{ name = 'a', target = 0 }, { name = 'b', target = 1, per-instance = 1 }, { name = 'c', target = 1 }, { name = 'c', per-instance = 1 }]",
        ),
        r#"
lethe.toml:5:34: [services.web.scale.metric] `target`: `0` must be above zero
  5 | metric = [{ name = 'a', target = 0 }, { name = 'b', target = 1, per-instance = 1 }, { name = 'c', ta
    |                                  ^
lethe.toml:5:62: [services.web.scale.metric] `target` is of the whole number, and `per-instance` of each worker: keep one
  5 | et = 0 }, { name = 'b', target = 1, per-instance = 1 }, { name = 'c', target = 1 }, { name = 'c', pe
    |                                  ^
lethe.toml:5:113: [services.web.scale] there is a metric `c` already; give this one another `name`
  5 | = 'b', target = 1, per-instance = 1 }, { name = 'c', target = 1 }, { name = 'c', per-instance = 1 }]
    |                                                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
    check(
        &scale(
            "instances = '2..8'\nmetric = [{ name = 'a', target = 1, pointer = 'x.y', max-age = '2h' }, { target = 1 }, { url = 'http://h/a%20b', target = 1 }]",
        ),
        r#"
lethe.toml:5:47: [services.web.scale.metric] `pointer`: `x.y` is no JSON pointer: write "/x/y"
  5 | ame = 'a', target = 1, pointer = 'x.y', max-age = '2h' }, { target = 1 }, { url = 'http://h/a%20b', 
    |                                  ^^^^^
lethe.toml:5:47: [services.web.scale.metric] `pointer` is of what a URL answers: add `url`
  5 | ame = 'a', target = 1, pointer = 'x.y', max-age = '2h' }, { target = 1 }, { url = 'http://h/a%20b', 
    |                                  ^^^^^
lethe.toml:5:64: [services.web.scale.metric] `max-age`: `2h` is too long: write at most "1h"
  5 | rget = 1, pointer = 'x.y', max-age = '2h' }, { target = 1 }, { url = 'http://h/a%20b', target = 1 }]
    |                                      ^^^^
lethe.toml:5:72: [services.web.scale.metric] has no number: add `url` to have it fetched, or `name` if it is told by PUT
  5 | rget = 1, pointer = 'x.y', max-age = '2h' }, { target = 1 }, { url = 'http://h/a%20b', target = 1 }]
    |                                              ^^^^^^^^^^^^^^
lethe.toml:5:88: [services.web.scale.metric] needs a `name`: its URL gives none
  5 | rget = 1, pointer = 'x.y', max-age = '2h' }, { target = 1 }, { url = 'http://h/a%20b', target = 1 }]
    |                                                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
}

#[test]
fn a_file_of_kubernetes() {
    check(
        &scale("hpa = 'hpa.yaml'\ncpu = '70%'"),
        r#"
lethe.toml:4:7: [services.web.scale] `hpa`: `hpa.yaml` cannot be read: No such file or directory (os error 2); check that it is a file and its permissions
  4 | hpa = 'hpa.yaml'
    |       ^^^^^^^^^^
lethe.toml:5:7: [services.web.scale] `cpu` is said by the file of `hpa`: keep one of them
  5 | cpu = '70%'
    |       ^^^^^"#,
    );
    check(
        &scale("hpa = 3"),
        r#"
lethe.toml:4:7: `hpa` in [services.web.scale] must be a file such as `"hpa.yaml"`, not the integer `3`
  4 | hpa = 3
    |       ^"#,
    );
    check(
        "
[services.web]
command = 'sh'
instances = 2
scale = { hpa = 'scaler.yml' }",
        r#"
lethe.toml:3:13: `instances` is said by the file of `hpa` in [services.web.scale] too: keep one of them
  3 | instances = 2
    |             ^
lethe.toml:4:17: [services.web.scale] `hpa`: `scaler.yml` cannot be read: No such file or directory (os error 2); check that it is a file and its permissions
  4 | scale = { hpa = 'scaler.yml' }
    |                 ^^^^^^^^^^^^"#,
    );
}

//! Slips in what the gateway is told: addresses, routes, certificates, limits, and whose word is taken.

use super::check;

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
lethe.toml:3:9: `state`: the address needs the engine `mongodb`, which this version does not have; there are `embedded`, `redis://`, `postgres://`, `s3://`, `azure://` and `gs://`"#,
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
fn shares() {
    check(
        r#"
[services.shop]
command = 'sh'
[services.next]
command = 'sh'
[[routes]]
service = { shp = 9, next = 'much' }
[[routes]]
path = '/a'
service = { shop = 0 }"#,
        r#"
lethe.toml:6:13: `service`: `shp` is no service of this file; did you mean `shop`?
  6 | service = { shp = 9, next = 'much' }
    |             ^^^
lethe.toml:6:29: the weight of `next` must be a number from 0 to 1000, not the string `'much'`
  6 | service = { shp = 9, next = 'much' }
    |                             ^^^^^^
lethe.toml:9:11: nobody has a share of this route: give one of its services a weight above 0
  9 | service = { shop = 0 }
    |           ^^^^^^^^^^^^"#,
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
via = 'the edge'
[services.shop]
command = 'sh'"#,
        r#"
lethe.toml:1:7: `via`: `the edge` is no name for `Via`: write one of letters, digits, `-`, `.` and `_`, such as "edge-1"
  1 | via = 'the edge'
    |       ^^^^^^^^^^"#,
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

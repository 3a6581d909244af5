//! Slips in the limits of routes.

use super::check;

/// A service, and a route to it that says this.
fn route(says: &str) -> String {
    format!("\n[services.shop]\ncommand = 'sh'\n[[routes]]\n{says}")
}

#[test]
fn rates_and_what_is_counted() {
    check(
        &route("limit = 'often'"),
        r#"
lethe.toml:4:9: `limit`: `often` is not a rate: write how many in what time, such as "100/min", "5/s", "1000/day" or "20/10s"
  4 | limit = 'often'
    |         ^^^^^^^"#,
    );
    check(
        &route("limit = 5"),
        r#"
lethe.toml:4:9: `limit` in [[routes]] must be a rate such as `"100/min"`, a table such as `{ rate = "100/min", by = "address" }`, or a list of such tables, not the integer `5`
  4 | limit = 5
    |         ^"#,
    );
    check(
        &route("limit = [{ by = 'adress', burts = 1 }, 7]"),
        r#"
lethe.toml:4:10: [routes.limit] has no `rate`: add one, such as rate = "100/min"
  4 | limit = [{ by = 'adress', burts = 1 }, 7]
    |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
lethe.toml:4:17: `by`: `adress` is nothing to count by; did you mean "address"?
  4 | limit = [{ by = 'adress', burts = 1 }, 7]
    |                 ^^^^^^^^
lethe.toml:4:27: unknown key `burts` in [routes.limit]; did you mean `burst`?
  4 | limit = [{ by = 'adress', burts = 1 }, 7]
    |                           ^^^^^
lethe.toml:4:40: each of `limit` must be a rate such as `"100/min"`, a table such as `{ rate = "100/min", by = "address" }`, or a list of such tables, not the integer `7`
  4 | limit = [{ by = 'adress', burts = 1 }, 7]
    |                                        ^"#,
    );
    check(
        &route("limit = { rate = '0/s', name = 'Sign in', on-outage = 'open' }"),
        r#"
lethe.toml:4:18: `rate`: `0/s` cannot be: a quota of no calls, or of no burst, allows nothing: both are 1 at least
  4 | limit = { rate = '0/s', name = 'Sign in', on-outage = 'open' }
    |                  ^^^^^
lethe.toml:4:32: `name`: `Sign in` is no name of a limit: write up to 64 lower-case letters, digits, `-` and `_`
  4 | limit = { rate = '0/s', name = 'Sign in', on-outage = 'open' }
    |                                ^^^^^^^^^
lethe.toml:4:55: `on-outage`: `open` is not known: write "allow" (requests pass uncounted) or "refuse" (they are answered with 503)
  4 | limit = { rate = '0/s', name = 'Sign in', on-outage = 'open' }
    |                                                       ^^^^^^"#,
    );
    check(
        &route("limit = { rate = '1/day', burst = 4000000 }"),
        r#"
lethe.toml:4:9: `limit`: a burst of 4000000 at 1 calls in 86400s takes longer to come back than the limit of 3660 days
  4 | limit = { rate = '1/day', burst = 4000000 }
    |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
}

#[test]
fn names_that_meet() {
    check(
        &route("limit = ['5/s', '100/min']"),
        r#"
lethe.toml:4:17: `limit`: this route has one called `shop-address` already; give this one another `name`
  4 | limit = ['5/s', '100/min']
    |                 ^^^^^^^^^"#,
    );
    check(
        &route("path = '/a-b'\nlimit = '5/s'\n[[routes]]\npath = '/a/b'\nlimit = '5/s'"),
        r#"
lethe.toml:8:9: `limit`: it would be called `shop-a-b-address`, as the one on line 5; give it a `name` of its own, or both the same one to have them counted together
  8 | limit = '5/s'
    |         ^^^^^"#,
    );
    check(
        &route(
            "path = '/a'\nlimit = { rate = '5/s', name = 'x' }\n[[routes]]\npath = '/b'\n\
             limit = { rate = '6/s', name = 'x' }",
        ),
        r#"
lethe.toml:8:9: `limit`: the one called `x` on line 5 is another; those that are counted together must be alike
  8 | limit = { rate = '6/s', name = 'x' }
    |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^"#,
    );
}

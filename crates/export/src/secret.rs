//! Which environment variables are secrets, as far as their names and values tell. Wrong in one direction only: what is taken
//! for a secret costs somebody a command, what is not would stand in a repository.

/// Words in the names of variables that hold secrets.
const WORDS: [&str; 12] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PWD",
    "SECRET",
    "TOKEN",
    "KEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "PRIVATE",
    "DSN",
    "AUTH",
];

/// Whether the variable is one.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    // `APIKEY` and `DBPASSWORD` are written too.
    words.into_iter().any(|word| WORDS.iter().any(|secret| word == *secret || ends(word, secret)))
        || value.contains("-----BEGIN")
        || has_user(value)
}

fn ends(word: &str, secret: &str) -> bool {
    secret.len() > 3 && word.ends_with(secret) || word.ends_with("APIKEY")
}

/// Whether a value is a URL that names a user, and so probably a password.
fn has_user(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_back() {
        for (name, value) in [
            ("DB_PASSWORD", "x"),
            ("STRIPE_KEY", "x"),
            ("apikey", "x"),
            ("PGPASSWORD", "x"),
            ("GITHUB_TOKEN", "x"),
            ("SENTRY_DSN", "https://x"),
            ("DATABASE_URL", "postgres://shop:pw@db/shop"),
            ("REDIS", "redis://:pw@cache"),
            ("CERT", "-----BEGIN PRIVATE KEY-----"),
        ] {
            assert!(is_secret(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("RUST_LOG", "info"),
            ("DATABASE_URL", "postgres://db/shop"),
            ("MONKEY", "banana"),
            ("MAIL", "a@b.example"),
            ("LINK", "https://x.example/@user"),
            ("KEYBOARD", "qwerty"),
        ] {
            assert!(!is_secret(name, value), "{name}={value}");
        }
    }
}

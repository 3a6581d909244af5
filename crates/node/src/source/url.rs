//! A URL with its credentials taken out. What is left is what programs get as an argument and what people are shown; the
//! rest is handed over apart, since a list of processes shows arguments to everybody on the machine.

use std::fmt;

/// Where something is fetched from. Shown without what is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Without login. A query is part of it, and is never shown.
    bare: String,
    login: Option<Login>,
    /// What is cut out of whatever is shown, the longest first.
    secrets: Vec<String>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl Url {
    /// Takes `text` apart. A path is a URL too, of which nothing is secret. The error goes on after the value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self { bare: text.into(), login: None, secrets: Vec::new() });
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let mut secrets = Vec::new();
        if let Some((_, query)) = path.split_once('?') {
            secrets.push(query.to_owned());
        }
        if !authority.contains('@') && !has_port(authority) {
            return Err(
                "has no port after `:`; in a login, write `%2F` for `/`, `%3F` for `?` and `%23` for `#`"
                    .into(),
            );
        }
        let Some((info, host)) = authority.rsplit_once('@') else {
            return Ok(Self { bare: text.into(), login: None, secrets });
        };
        let (user, password) = info.split_once(':').unwrap_or((info, ""));
        let login = Login { user: decoded(user)?, password: decoded(password)? };
        let is_web = scheme == "http" || scheme == "https";
        // A user alone is a token on the web, and only a name for ssh.
        if is_web || !password.is_empty() {
            secrets.push(info.to_owned());
            let words = if password.is_empty() { [user, &login.user] } else { [password, &login.password] };
            secrets.extend(words.map(str::to_owned));
        }
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        let (bare, login) = match is_web {
            true => (format!("{scheme}://{host}{path}"), Some(login)),
            // ssh asks for no password here; its user stays.
            false => (format!("{scheme}://{user}@{host}{path}"), None),
        };
        Ok(Self { bare, login, secrets })
    }

    /// What a program gets.
    pub(super) fn bare(&self) -> &str {
        &self.bare
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Scheme and host, as git names whom a credential is for.
    pub(super) fn origin(&self) -> &str {
        let from = self.bare.find("://").map_or(0, |at| at + 3);
        let end = self.bare[from..].find(['/', '?']).map_or(self.bare.len(), |at| from + at);
        &self.bare[..end]
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.bare.starts_with("file://") || (!self.bare.contains("://") && self.bare.starts_with('/'))
    }

    /// What is cut out of whatever is shown, the longest first.
    pub(super) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// What a program said, without what is secret.
    pub(super) fn masked(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.bare.split_once('?').map_or(self.bare.as_str(), |(path, _)| path);
        match (shown.split_once("://"), &self.login) {
            (Some((scheme, rest)), Some(_)) => write!(f, "{scheme}://…@{rest}")?,
            _ => f.write_str(shown)?,
        }
        if shown.len() < self.bare.len() { f.write_str("?…") } else { Ok(()) }
    }
}

/// A URL that somebody gave and that may be wrong, for the message that says so: without login and query, whatever they are.
pub(crate) fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !authority.contains('@') && !has_port(authority) {
        // Most likely a login in which something should have been written otherwise.
        return format!("{scheme}://…");
    }
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => authority.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((path, _)) => format!("{path}?…"),
        None => path.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Whether what stands after the host, if anything does, is a port (RFC 3986, section 3.2).
fn has_port(authority: &str) -> bool {
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    after_host.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Percent-decoded (RFC 3986, section 2.1). Control characters would end a line of what programs are told.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "has a `%` in its login that stands for no character: write `%25` for `%`".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().ok_or_else(wrong)?, rest.next().ok_or_else(wrong)?];
                let digits = std::str::from_utf8(&digits).map_err(|_| wrong())?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.chars().any(char::is_control) {
        return Err("has a control character in its login".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_apart() {
        let url = Url::parse("https://me:s%40crt@h:8443/shop.tar.gz?token=abc").unwrap();
        assert_eq!(url.bare(), "https://h:8443/shop.tar.gz?token=abc");
        assert_eq!(url.origin(), "https://h:8443");
        assert_eq!(url.to_string(), "https://…@h:8443/shop.tar.gz?…");
        let login = url.login().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "s@crt"));
        let said = "no https://me:s%40crt@h:8443/shop.tar.gz?token=abc, s@crt, s%40crt";
        assert_eq!(url.masked(said), "no https://…@h:8443/shop.tar.gz?…, …, …");
    }

    #[test]
    fn a_user_alone_is_a_token_on_the_web_and_a_name_elsewhere() {
        let token = Url::parse("https://ghp_1@h/shop.git").unwrap();
        assert_eq!((token.bare(), token.masked("ghp_1!")), ("https://h/shop.git", "…!".into()));
        let ssh = Url::parse("ssh://git@h/shop.git").unwrap();
        assert_eq!((ssh.bare(), ssh.to_string()), ("ssh://git@h/shop.git", "ssh://git@h/shop.git".into()));
        let odd = Url::parse("ssh://git:pw@h/shop.git").unwrap();
        assert_eq!((odd.bare(), odd.masked("pw")), ("ssh://git@h/shop.git", "…".into()));
        assert_eq!(Url::parse("git@h:shop").unwrap().to_string(), "git@h:shop");
    }

    #[test]
    fn what_is_wrong_is_shown_without_what_is_secret() {
        for (text, shown) in [
            ("https://me:s/x@h/y", "https://…"),
            ("https://me:8080/x", "https://me:8080/x"),
            ("https://[::1]:80/x", "https://[::1]:80/x"),
            ("https://me:%@h/x?token=a@b#main", "https://…@h/x?…"),
            ("ftp://me@h", "ftp://…@h"),
            ("../x@y?z", "../x@y?z"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn a_password_that_should_have_been_encoded_is_refused() {
        for text in ["https://me:p/w@h/x.git", "https://me:p?w@h/x.git", "https://me:pa"] {
            assert!(Url::parse(text).is_err_and(|error| error.contains("%2F")), "{text}");
        }
        assert!(Url::parse("https://[::1]/x").is_ok() && Url::parse("https://[::1]:443/x").is_ok());
    }

    #[test]
    fn what_would_end_a_line_is_refused() {
        assert!(Url::parse("https://a%0Ahost=evil@h/x").is_err());
        assert!(Url::parse("https://a%4@h/x").is_err());
        assert!(Url::parse("https://a%zz@h/x").is_err());
    }
}

//! What a token says (RFC 7519, section 4), and what is expected of it.

use lethe_state::Millis;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Refusal;

/// What a token says. Times are seconds since the Unix epoch (`NumericDate`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// Whom it is for; one text, or a list of them.
    #[serde(with = "audience")]
    pub aud: Vec<String>,
    /// Whom it is about: the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// From when on it is not valid any more.
    pub exp: i64,
    /// From when on it is valid.
    pub nbf: i64,
    /// When it was issued.
    pub iat: i64,
    /// Its own name, never used twice.
    pub jti: String,
    /// What else it says.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `aud` is a text or a list (RFC 7519, section 4.1.3).
mod audience {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(audience: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match audience {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        Ok(match Audience::deserialize(deserializer)? {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many,
        })
    }
}

/// What a token must say to be taken. All of it is checked always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// The issuer.
    pub(super) issuer: String,
    /// One of the audiences.
    pub(super) audience: String,
    /// The `typ` of the header, so that a token for one purpose is none for another; compared without regard to case.
    pub(super) kind: &'static str,
    /// Seconds by which clocks may differ.
    pub(super) leeway_s: i64,
}

impl Expected {
    /// Checks what a token says at the time `now`.
    pub(super) fn check(&self, claims: &Claims, now: Millis) -> Result<(), Refusal> {
        let now = now.div_euclid(1000);
        if claims.iss != self.issuer {
            Err(Refusal::WrongIssuer)
        } else if !claims.aud.contains(&self.audience) {
            Err(Refusal::WrongAudience)
        } else if now.saturating_sub(self.leeway_s) >= claims.exp {
            Err(Refusal::Expired)
        } else if now.saturating_add(self.leeway_s) < claims.nbf {
            Err(Refusal::NotYet)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            iss: "shop".into(),
            aud: vec!["web".into(), "api".into()],
            sub: Some("ada".into()),
            exp: 1000,
            nbf: 100,
            iat: 100,
            jti: "x".into(),
            rest: Map::new(),
        }
    }

    #[test]
    fn all_of_it_is_checked() {
        let expected =
            Expected { issuer: "shop".into(), audience: "api".into(), kind: "at+jwt", leeway_s: 0 };
        let check = |claims: &Claims, now_s: i64| expected.check(claims, now_s * 1000);
        assert_eq!(check(&claims(), 100), Ok(()));
        assert_eq!(check(&claims(), 99), Err(Refusal::NotYet));
        assert_eq!(expected.check(&claims(), 999_999), Ok(()));
        assert_eq!(check(&claims(), 1000), Err(Refusal::Expired));
        assert_eq!(check(&Claims { iss: "Shop".into(), ..claims() }, 500), Err(Refusal::WrongIssuer));
        assert_eq!(check(&Claims { aud: vec!["web".into()], ..claims() }, 500), Err(Refusal::WrongAudience));
        assert_eq!(check(&Claims { aud: vec![], ..claims() }, 500), Err(Refusal::WrongAudience));
        let lenient = Expected { leeway_s: 5, ..expected };
        assert_eq!(lenient.check(&claims(), 95_000), Ok(()));
        assert_eq!(lenient.check(&claims(), 94_999), Err(Refusal::NotYet));
        assert_eq!(lenient.check(&claims(), 1_004_999), Ok(()));
        assert_eq!(lenient.check(&claims(), 1_005_000), Err(Refusal::Expired));
    }

    #[test]
    fn a_token_that_leaves_a_claim_out_is_none() {
        let whole = serde_json::to_value(claims()).unwrap();
        assert!(serde_json::from_value::<Claims>(whole.clone()).is_ok());
        for name in ["iss", "aud", "exp", "nbf", "iat", "jti"] {
            let mut part = whole.clone();
            part.as_object_mut().unwrap().remove(name);
            assert!(serde_json::from_value::<Claims>(part).is_err(), "{name}");
        }
    }

    #[test]
    fn an_audience_is_a_text_or_a_list() {
        let json = |aud: &str| {
            format!(r#"{{"iss":"a","aud":{aud},"exp":1,"nbf":0,"iat":0,"jti":"j","role":"admin"}}"#)
        };
        let one: Claims = serde_json::from_str(&json("\"x\"")).unwrap();
        assert_eq!((one.aud.as_slice(), &one.rest["role"]), (&["x".to_owned()][..], &Value::from("admin")));
        assert_eq!(serde_json::to_string(&one).unwrap(), json("\"x\""));
        let many: Claims = serde_json::from_str(&json("[\"x\",\"y\"]")).unwrap();
        assert_eq!(many.aud, ["x", "y"]);
        assert!(serde_json::from_str::<Claims>(&json("7")).is_err());
    }
}

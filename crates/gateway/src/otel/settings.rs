//! Where spans go and which, by OpenTelemetry's own environment variables, so that what works for other programs
//! works here ("OpenTelemetry Environment Variable Specification", "OpenTelemetry Protocol Exporter"). Spans are
//! exported if an endpoint is named.

use std::time::Duration;

/// How spans are exported.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `host:port` that takes spans.
    pub authority: String,
    /// The path there, with the query if there is one.
    pub path: String,
    /// Header fields to send along, such as keys.
    pub headers: Vec<(String, String)>,
    /// For one batch, from connecting to the answer.
    pub timeout: Duration,
    /// What describes this process: `service.name` and others.
    pub resource: Vec<(String, String)>,
    /// Which requests are recorded.
    pub sampler: Sampler,
    /// Most spans in a batch.
    pub batch_max: u64,
    /// A batch is sent at the latest after this.
    pub delay: Duration,
}

/// Which requests are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What the client has decided is kept.
    pub follows_parent: bool,
    /// This share of the others, from 0 to 1.
    pub ratio: f64,
}

/// Why an environment variable is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value}: {problem}")]
pub struct Error {
    /// Its name.
    pub variable: &'static str,
    /// What it says.
    pub value: String,
    /// What is wrong with that, and what would be right.
    pub problem: &'static str,
}

impl Sampler {
    /// Whether a trace is recorded; `parent` is what the client has decided, if it is the client's trace. The same
    /// trace is judged the same way wherever it comes by.
    pub(crate) fn samples(&self, parent: Option<bool>, trace: u128) -> bool {
        match parent {
            Some(sampled) if self.follows_parent => sampled,
            _ => ((trace as u64) >> 1) < (self.ratio * (1_u64 << 63) as f64) as u64,
        }
    }
}

impl Settings {
    /// Reads the variables by `get`; `None` if no spans are to be exported.
    ///
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`, taken as it is), `…_HEADERS`, `…_TIMEOUT`, `…_PROTOCOL`,
    /// `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`,
    /// `OTEL_TRACES_EXPORTER`, `OTEL_SDK_DISABLED`, `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        // An empty variable is as good as none.
        let get = |name| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let pick = |own, general| match get(own) {
            Some(value) => Some((own, value)),
            None => get(general).map(|value| (general, value)),
        };
        let is_off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let endpoint = pick("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        let Some((variable, endpoint)) = endpoint.filter(|_| !is_off) else { return Ok(None) };
        if let Some((variable, value)) =
            pick("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
            && value == "grpc"
        {
            let problem = "only OTLP over HTTP is spoken; say http/json, and name the receiver's HTTP port, mostly 4318";
            return Err(Error { variable, value, problem });
        }
        let (authority, path) = address(variable, &endpoint)?;
        let number = |variable: &'static str, value: String| {
            let problem = "is not a whole number above zero";
            let number = value.parse::<u64>().ok().filter(|&number| number > 0);
            number.ok_or(Error { variable, value, problem })
        };
        let timeout = pick("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
            .map_or(Ok(10_000), |(variable, value)| number(variable, value))?;
        let of =
            |variable: &'static str, usual| get(variable).map_or(Ok(usual), |value| number(variable, value));
        let headers = pick("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
            .map_or(Ok(Vec::new()), |(variable, value)| headers(variable, &value))?;
        let mut resource = match get("OTEL_RESOURCE_ATTRIBUTES") {
            Some(value) => pairs("OTEL_RESOURCE_ATTRIBUTES", &value)?,
            None => Vec::new(),
        };
        let has_name = resource.iter().any(|(key, _)| key == "service.name");
        if let Some(name) = get("OTEL_SERVICE_NAME").or((!has_name).then(|| "lethe".into())) {
            resource.retain(|(key, _)| key != "service.name");
            resource.insert(0, ("service.name".into(), name));
        }
        Ok(Some(Self {
            authority,
            path,
            headers,
            timeout: Duration::from_millis(timeout),
            resource,
            sampler: sampler(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))?,
            batch_max: of("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?,
            delay: Duration::from_millis(of("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
        }))
    }
}

/// Authority and path of an endpoint. The general one is a base, to which the path for spans is added.
fn address(variable: &'static str, endpoint: &str) -> Result<(String, String), Error> {
    // What stands before an `@` may be a password.
    let shown = if endpoint.contains('@') { "…" } else { endpoint };
    let fail = |problem| Error { variable, value: shown.to_owned(), problem };
    if endpoint.starts_with("https://") {
        return Err(fail(
            "only http:// is spoken; run an OpenTelemetry collector on this machine that passes spans on, and say \
             http://localhost:4318",
        ));
    }
    let wanted = "is not an address such as http://localhost:4318";
    let uri: http::Uri = endpoint.parse().map_err(|_| fail(wanted))?;
    if uri.scheme_str() != Some("http") {
        return Err(fail(wanted));
    }
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(|| fail(wanted))?;
    let port = authority.port_u16().unwrap_or(80);
    let path = if variable.ends_with("TRACES_ENDPOINT") {
        uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
    } else {
        format!("{}/v1/traces", uri.path().trim_end_matches('/'))
    };
    Ok((format!("{}:{port}", authority.host()), path))
}

fn sampler(name: Option<String>, ratio: Option<String>) -> Result<Sampler, Error> {
    let name = name.unwrap_or_else(|| "parentbased_always_on".into());
    let ratio = || match ratio {
        None => Ok(1.0),
        Some(value) => {
            let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            let (variable, problem) = ("OTEL_TRACES_SAMPLER_ARG", "is not a share between 0 and 1");
            ratio.ok_or(Error { variable, value, problem })
        }
    };
    let (follows_parent, own) = match name.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, name.as_str()),
    };
    let ratio = match own {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio()?,
        _ => {
            let problem = "is none of always_on, always_off, traceidratio, nor these after parentbased_";
            return Err(Error { variable: "OTEL_TRACES_SAMPLER", value: name, problem });
        }
    };
    Ok(Sampler { follows_parent, ratio })
}

fn headers(variable: &'static str, list: &str) -> Result<Vec<(String, String)>, Error> {
    let pairs = pairs(variable, list)?;
    let is_valid = |(name, value): &(String, String)| {
        name.parse::<http::HeaderName>().is_ok() && value.parse::<http::HeaderValue>().is_ok()
    };
    if pairs.iter().all(is_valid) {
        return Ok(pairs);
    }
    // The value may be secret.
    Err(Error {
        variable,
        value: "…".into(),
        problem: "is not a list of header fields such as `key=value,key=value`",
    })
}

/// `key=value,key=value`, with `%XX` for what is special there.
fn pairs(variable: &'static str, list: &str) -> Result<Vec<(String, String)>, Error> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some(())?;
        Some((key.to_owned(), unescape(value.trim())?))
    };
    let problem = "is not a list such as `key=value,key=value`, with %XX for special characters";
    let pairs = list.split(',').filter(|pair| !pair.trim().is_empty());
    let fail = || Error { variable, value: "…".into(), problem };
    pairs.map(|each| pair(each).ok_or_else(fail)).collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, Error> {
        Settings::read(|name| Some(variables.iter().find(|(variable, _)| *variable == name)?.1.to_owned()))
    }

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    #[test]
    fn endpoints() {
        for (variable, endpoint, authority, path) in [
            (ENDPOINT, "http://localhost:4318", "localhost:4318", "/v1/traces"),
            (ENDPOINT, "http://otel", "otel:80", "/v1/traces"),
            (ENDPOINT, "http://[::1]:4318/a/", "[::1]:4318", "/a/v1/traces"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel/in?x=1", "otel:80", "/in?x=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel", "otel:80", "/"),
        ] {
            let settings = read(&[(variable, endpoint)]).unwrap().unwrap();
            assert_eq!(
                (settings.authority.as_str(), settings.path.as_str()),
                (authority, path),
                "{endpoint}"
            );
        }
        for endpoint in ["https://otel", "localhost:4318", "otel", "http://", "http://a b"] {
            let error = read(&[(ENDPOINT, endpoint)]).unwrap_err();
            assert_eq!((error.variable, error.value.as_str()), (ENDPOINT, endpoint));
        }
        let error = read(&[(ENDPOINT, "https://otel")]).unwrap_err().to_string();
        assert!(error.ends_with("passes spans on, and say http://localhost:4318"), "{error}");
        let error = read(&[(ENDPOINT, "http://me:hunter2@otel")]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn on_and_off() {
        let on = (ENDPOINT, "http://otel");
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[(ENDPOINT, " ")]).unwrap().is_none());
        assert!(read(&[on, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap().is_none());
        assert!(read(&[on, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
        assert!(read(&[on, ("OTEL_TRACES_EXPORTER", "otlp")]).unwrap().is_some());
    }

    #[test]
    fn the_rest_of_the_variables() {
        let settings = read(&[
            (ENDPOINT, "http://otel"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=general"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", " authorization = Basic%20eDp5 , x=a=b,"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,host.name=b"),
            ("OTEL_SERVICE_NAME", "shop-edge"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .unwrap()
        .unwrap();
        let owned = |pairs: [(&str, &str); 2]| pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(settings.headers, owned([("authorization", "Basic eDp5"), ("x", "a=b")]));
        assert_eq!(settings.resource, owned([("service.name", "shop-edge"), ("host.name", "b")]));
        assert_eq!(settings.timeout, Duration::from_millis(250));
        assert_eq!(settings.sampler, Sampler { follows_parent: false, ratio: 0.25 });
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0D%0Ac: d"),
            ("OTEL_RESOURCE_ATTRIBUTES", "key"),
            ("OTEL_RESOURCE_ATTRIBUTES", "key=%f"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ] {
            let error = read(&[(ENDPOINT, "http://otel"), (variable, value)]).unwrap_err();
            assert_eq!(error.variable, variable, "{error}");
        }
    }

    #[test]
    fn samplers() {
        let trace = |low: u64| 7 << 64 | u128::from(low);
        for (follows_parent, ratio, parent, low, wanted) in [
            (true, 1.0, None, u64::MAX, true),
            (true, 0.0, None, 0, false),
            (true, 0.0, Some(true), 0, true),
            (true, 1.0, Some(false), 0, false),
            (false, 1.0, Some(false), 0, true),
            (false, 0.0, Some(true), 0, false),
            (true, 0.5, None, u64::MAX / 2 - 1, true),
            (true, 0.5, None, u64::MAX / 2 + 1, false),
        ] {
            let sampler = Sampler { follows_parent, ratio };
            assert_eq!(sampler.samples(parent, trace(low)), wanted, "{sampler:?} {parent:?} {low}");
        }
    }
}

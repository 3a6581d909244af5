//! A visitor of a service under test: one kept-alive connection and a cookie jar, like one browser tab. It never tries
//! again by itself, so that whatever the gateway loses is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::watch};

/// One visitor.
pub struct Visitor {
    pub address: SocketAddr,
    cookies: BTreeMap<String, String>,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
    traffic: Traffic,
}

/// The requests of several visitors.
#[derive(Clone, Default)]
pub struct Traffic(Arc<watch::Sender<Requests>>);

#[derive(Default)]
struct Requests {
    last: u64,
    under_way: BTreeSet<u64>,
}

/// One that is under way until this is dropped.
struct UnderWay(Traffic, u64);

impl Traffic {
    /// Those whose answers have not come.
    pub fn under_way(&self) -> BTreeSet<u64> {
        self.0.borrow().under_way.clone()
    }

    /// Waits until all of these have been answered, or given up.
    pub async fn ended(&self, requests: &BTreeSet<u64>) {
        let mut now = self.0.subscribe();
        let _ = now.wait_for(|now| now.under_way.is_disjoint(requests)).await;
    }

    fn begin(&self) -> UnderWay {
        let mut number = 0;
        self.0.send_modify(|requests| {
            requests.last += 1;
            number = requests.last;
            requests.under_way.insert(number);
        });
        UnderWay(self.clone(), number)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| {
            requests.under_way.remove(&self.1);
        });
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Page {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the page is UTF-8")
    }

    /// Where a redirect leads.
    pub fn location(&self) -> &str {
        self.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The value of the first `<input>` with this name; attributes may stand in any order.
    pub fn input(&self, name: &str) -> Option<String> {
        self.text().split("<input").skip(1).filter_map(|tag| tag.split('>').next()).find_map(|tag| {
            (attribute(tag, "name")? == name).then(|| attribute(tag, "value").unwrap_or_default())
        })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    Some(tag[start..].split('"').next()?.replace("&amp;", "&").replace("&quot;", "\""))
}

impl Visitor {
    /// A new visitor without cookies.
    pub fn new(address: SocketAddr) -> Self {
        Self::among(&Traffic::default(), address)
    }

    /// The same, whose requests are of this traffic.
    pub fn among(traffic: &Traffic, address: SocketAddr) -> Self {
        Self { address, cookies: BTreeMap::new(), connection: None, traffic: traffic.clone() }
    }

    /// Another tab of the same browser, with a connection of its own to this address.
    pub fn tab(&self, address: SocketAddr) -> Self {
        Self { cookies: self.cookies.clone(), ..Self::among(&self.traffic, address) }
    }

    /// Whether it has a cookie of this name.
    pub fn has_cookie(&self, name: &str) -> bool {
        self.cookies.contains_key(name)
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<Page> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Posts a form.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Page> {
        self.post_with(path, fields, &[]).await
    }

    /// Posts a form with more header fields.
    pub async fn post_with(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Page> {
        let encode = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                        (byte as char).to_string()
                    }
                    _ => format!("%{byte:02X}"),
                })
                .collect()
        };
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let form = [&[("content-type", "application/x-www-form-urlencoded")][..], headers].concat();
        self.send(Method::POST, path, &form, body.join("&").into()).await
    }

    /// Posts one file as a browser does (RFC 7578), with further fields before it.
    pub async fn upload(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        file: (&str, &str, &[u8]),
    ) -> anyhow::Result<Page> {
        let boundary = "visitor-7d81b516112482ad";
        let mut body = Vec::new();
        for (name, value) in fields {
            body.extend(
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                    .bytes(),
            );
        }
        let (name, content_type, content) = file;
        body.extend(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
                 Content-Type: {content_type}\r\n\r\n"
            )
            .bytes(),
        );
        body.extend(content);
        body.extend(format!("\r\n--{boundary}--\r\n").bytes());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        self.send(Method::POST, path, &[("content-type", &content_type)], body.into()).await
    }

    /// Sends one request and reads the whole response.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Page> {
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("user-agent", "visitor");
        if method != Method::GET {
            request = request
                .header("origin", format!("http://{}", self.address))
                .header("sec-fetch-site", "same-origin");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.cookies.is_empty() {
            let jar: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", jar.join("; "));
        }
        // A server may close a connection between two requests; a browser opens another then, as nothing was sent.
        let mut kept = self.connection.take();
        let usable = match &mut kept {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept {
            Some(connection) if usable => connection,
            _ => self.connect().await?,
        };
        let _under_way = self.traffic.begin();
        let mut request = request.body(Full::new(body))?;
        let response = loop {
            let mut error = match connection.try_send_request(request).await {
                Ok(response) => break response,
                Err(error) => error,
            };
            // It comes back if nothing of it was sent.
            match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(error.into_error()).context("no response"),
            }
            connection = self.connect().await?;
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("the response was cut short")?.to_bytes();
        self.connection = Some(connection);
        for cookie in head.headers.get_all(header::SET_COOKIE) {
            self.keep(cookie.to_str()?)?;
        }
        Ok(Page { status: head.status, headers: head.headers, body })
    }

    async fn connect(&self) -> anyhow::Result<http1::SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn keep(&mut self, cookie: &str) -> anyhow::Result<()> {
        let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
        let Some((name, value)) = pair.split_once('=') else { bail!("`{cookie}` is not a cookie") };
        if value.is_empty() || attributes.to_ascii_lowercase().contains("max-age=0") {
            self.cookies.remove(name.trim());
        } else {
            self.cookies.insert(name.trim().into(), value.into());
        }
        Ok(())
    }
}

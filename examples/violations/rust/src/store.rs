//! The store beside, `store.py`, which all workers share: what a real service has in Redis, PostgreSQL or an object store.

use std::env;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use crate::failure::Failure;

#[derive(Clone)]
pub struct Store {
    /// Host and port.
    authority: String,
}

impl Store {
    /// The one at `STORE`, such as `http://127.0.0.1:7777`.
    pub fn from_env() -> Result<Self, Failure> {
        let url = env::var("STORE").map_err(|_| "STORE must be the URL of the store")?;
        Ok(Self { authority: url.trim_start_matches("http://").trim_end_matches('/').to_owned() })
    }

    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, Failure> {
        match self.ask(Method::GET, path, Bytes::new(), HeaderMap::new()).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => expect(status).map(|()| Some(body)),
        }
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<(), Failure> {
        let (status, _) = self.ask(Method::PUT, path, body.into(), HeaderMap::new()).await?;
        expect(status)
    }

    /// A value that was put as JSON; the default of its type if there is none.
    pub async fn get_json<T: DeserializeOwned + Default>(&self, path: &str) -> Result<T, Failure> {
        Ok(match self.get(path).await? {
            Some(value) => serde_json::from_slice(&value)?,
            None => T::default(),
        })
    }

    pub async fn put_json(&self, path: &str, value: &impl Serialize) -> Result<(), Failure> {
        self.put(path, serde_json::to_vec(value)?).await
    }

    /// Puts it there if nothing is there yet; whether it did.
    pub async fn create(&self, path: &str, body: impl Into<Bytes>) -> Result<bool, Failure> {
        let if_new = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("*"))]);
        match self.ask(Method::PUT, path, body.into(), if_new).await? {
            (StatusCode::PRECONDITION_FAILED, _) => Ok(false),
            (status, _) => expect(status).map(|()| true),
        }
    }

    /// Adds one to a counter; what it is then.
    pub async fn count(&self, path: &str) -> Result<u32, Failure> {
        let (status, body) = self.ask(Method::POST, path, Bytes::new(), HeaderMap::new()).await?;
        expect(status)?;
        Ok(str::from_utf8(&body)?.parse()?)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).body(Full::new(body))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(&self.authority)?);
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

fn expect(status: StatusCode) -> Result<(), Failure> {
    if status.is_success() { Ok(()) } else { Err(format!("the store answers {status}").into()) }
}

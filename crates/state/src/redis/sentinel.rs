//! Asks sentinels which server is the master, each time a connection to it is made: so a new master is found as soon as they
//! have agreed on it.

use redis::Value;

use super::{failure::Failure, node, server::Servers, url::Address};

/// The master of a service, as the first sentinel says that knows it.
pub(super) async fn find_master(servers: &Servers, service: &str) -> Result<Address, Failure> {
    let mut said = Vec::new();
    for sentinel in &servers.url.addresses {
        match ask(servers, sentinel, service).await {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => said.push(format!("{sentinel} does not know it")),
            Err(Failure::NotDone(text) | Failure::Unknown(text)) => said.push(text),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::NotDone(format!("no sentinel knows the master of `{service}`: {}", said.join("; "))))
}

async fn ask(servers: &Servers, sentinel: &Address, service: &str) -> Result<Option<Address>, Failure> {
    let name = sentinel.to_string();
    let mut connection = node::open(&servers.sentinel_client(sentinel)?, &servers.config(), &name).await?;
    let answer: Result<Value, _> =
        redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(service).query_async(&mut connection).await;
    match answer {
        Ok(Value::Array(parts)) => Ok(address(&parts)),
        Ok(_) => Ok(None),
        Err(error) => Err(Failure::of(&name, &error)),
    }
}

fn address(parts: &[Value]) -> Option<Address> {
    let [Value::BulkString(host), Value::BulkString(port)] = parts else { return None };
    let (host, port) = (std::str::from_utf8(host).ok()?, std::str::from_utf8(port).ok()?);
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}

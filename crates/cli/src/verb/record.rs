//! `lethe record`: a journey out of what a person does in a browser, as a file that people read and keep.

mod apart;
mod head;
mod place;
mod process;
mod proxy;
mod recording;
mod service;
mod tee;

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, value_parser};
use lethe_journey::{file, har, journey::Journey};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use self::{
    place::{Kept, Place},
    proxy::{CONNECT_MAX, Proxy, Upstream, Way},
    recording::Recording,
    service::{Service, Wish},
};
use super::prove::{self, source, tier::Tier};
use crate::{ansi, failure::Concluded, output};

/// Where a journey is written if nothing else is said.
const OUTPUT: &str = "journey.toml";

/// Exit status of what SIGINT has ended, as the shell has it.
const INTERRUPTED: u8 = 128 + 2;

/// Record a journey while you click in a browser
///
/// Stands before a service, its own or one that runs, and passes on what your browser asks. At Ctrl-C, what you did is written as a
/// journey: a file to read, to change, and to give to lethe prove and lethe load. What came of an earlier response is a variable in it, and
/// cookies are those of each replay. Pictures, styles, scripts, fonts, WebSockets and what goes elsewhere are left out, and counted. The
/// file has what you typed in it, and nobody else may read it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe record -- node server.js                         start it, and click through it
  lethe record examples/guestbook -o sign.toml           the service of a lethe.toml
  lethe record --url http://127.0.0.1:3000               a service that runs
  lethe record --from shopping.har                       shopping.toml, of what a browser has recorded
  lethe prove --journey journey.toml -- node server.js   what it is good for")]
pub struct Record {
    /// A folder with a lethe.toml or a Procfile, or such a file
    /// [default: .]
    #[arg(value_name = "DIR|FILE", conflicts_with_all = ["command", "url", "from"])]
    path: Option<PathBuf>,

    /// A service that runs, such as http://127.0.0.1:3000, in place of one that is started
    #[arg(long, value_name = "URL", conflicts_with_all = ["command", "from"])]
    url: Option<String>,

    /// Nothing is recorded: a .har of a browser, an OpenAPI document or a journey is written as a journey
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "listen", "service"])]
    from: Option<PathBuf>,

    /// Where the journey is written; files that were sent are kept in a folder beside it
    /// [default: journey.toml, or what --from names, as .toml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write over a file that is there
    #[arg(long)]
    force: bool,

    /// Where your browser is to ask [default: 127.0.0.1 and a port that is free]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// The service of the file that is meant, if it has several
    #[arg(long, value_name = "NAME", conflicts_with_all = ["url", "command"])]
    service: Option<String>,

    /// Images, styles, scripts and fonts are steps as well
    #[arg(long)]
    assets: bool,

    /// How long the service may take until it listens
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u64).range(1..=3600))]
    start_timeout: u64,

    /// Start the service in its folder as it is: what it writes there stays, and all workers of a proof will find it
    #[arg(long, conflicts_with_all = ["url", "from"])]
    in_place: bool,

    /// Where the service cannot be kept apart, start it in a copy of its folder: what it writes elsewhere stays
    #[arg(long, conflicts_with_all = ["url", "from", "in_place"])]
    copied: bool,

    /// A program and its arguments to start and record, without any file
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What ends a recording.
struct Signals {
    interrupts: Signal,
    terminations: Signal,
    /// The terminal was closed.
    hangups: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupts: signal(SignalKind::interrupt())?,
            terminations: signal(SignalKind::terminate())?,
            hangups: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until one comes. Cancellation safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupts.recv() => {}
            _ = self.terminations.recv() => {}
            _ = self.hangups.recv() => {}
        }
    }
}

/// How a recording came to its end.
enum End {
    /// It was asked to.
    Asked,
    /// The service has ended, as this says.
    Gone(String),
}

impl Record {
    /// Records, or converts.
    pub fn run(self) -> anyhow::Result<()> {
        let default = self.from.as_ref().map_or_else(|| OUTPUT.into(), |from| from.with_extension("toml"));
        let place = Place::new(self.output.clone().unwrap_or(default), self.force)?;
        if let Some(from) = &self.from {
            let kept = place.keep(&self.converted(from)?)?;
            self.tell(&kept);
            return Ok(());
        }
        let Some(url) = &self.url else { return self.started(&place) };
        let (addresses, authority) = address(url)?;
        // `localhost` may be both of IPv6 and of IPv4, and the service at one of them.
        let listens = |address: &SocketAddr| TcpStream::connect_timeout(address, CONNECT_MAX).is_ok();
        let address = addresses.into_iter().find(listens).with_context(|| {
            format!("nothing listens at {url}: start the service, or let lethe record start it: `lethe record -- COMMAND`")
        })?;
        let way: Way = Arc::new(move || TcpStream::connect_timeout(&address, CONNECT_MAX));
        let upstream = Upstream { way, authority: Some(authority) };
        self.record(&place, async || Ok((upstream, None)))
    }

    /// Starts the service, and records it.
    fn started(&self, place: &Place) -> anyhow::Result<()> {
        let path = self.path.clone().unwrap_or_else(|| PathBuf::from("."));
        let chosen = source::read(path, self.command.clone(), self.service.as_deref(), "record")?;
        // Both outlast the service.
        let scratch = Arc::new(prove::scratch()?);
        let tier = chosen.wants_state.then(|| Tier::open(scratch.path())).transpose()?;
        let wish = match (self.in_place, self.copied) {
            (true, _) => Wish::Here,
            (false, may_copy) => Wish::Apart { may_copy },
        };
        self.record(place, async || {
            let scratch = Arc::clone(&scratch);
            let service = Service::start(chosen, wish, scratch, tier.as_ref(), self.start_timeout).await?;
            // It knows itself by whatever the browser calls it.
            Ok((Upstream { way: service.way(), authority: None }, Some(service)))
        })
    }

    fn record(
        &self,
        place: &Place,
        service: impl AsyncFnOnce() -> anyhow::Result<(Upstream, Option<Service>)>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let recorded = runtime.block_on(async {
            let mut signals = Signals::new()?;
            let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
            let listener = TcpListener::bind(listen)
                .await
                .with_context(|| format!("cannot listen at {listen}; pass another --listen"))?;
            let address = listener.local_addr()?;
            let (upstream, mut service) = tokio::select! {
                started = service() => started?,
                () = signals.asked() => return Err(Concluded(INTERRUPTED).into()),
            };
            let host = upstream.authority.clone().unwrap_or_else(|| address.to_string());
            let recorder = har::Recorder::new(host.clone(), self.options());
            let recording = Arc::new(Recording::new(recorder, upstream.authority.clone()));
            let proxy = Proxy::new(upstream, host, Arc::clone(&recording));
            say(&format!(
                "recording: open http://{address} in a private window; Ctrl-C ends it and writes {}",
                place.path().display()
            ));
            if let Some(service) = &service {
                say(&format!("  {}", service.of_files()));
                if let Some(text) = service.of_network() {
                    say(&format!("  {text}"));
                }
            }
            let end = listen_until(&listener, &proxy, service.as_mut(), &mut signals).await;
            // What was recorded is written however the service ends.
            let journey = recording.journey(place.name());
            if let Some(service) = service {
                service.end().await;
            }
            anyhow::Ok((journey, end))
        });
        // What the browser still asks is of no interest to anybody, nor a service that is still being started.
        runtime.shutdown_background();
        let (journey, end) = recorded?;
        if let End::Gone(why) = &end {
            say(&format!("the service has ended: {why}"));
        }
        let kept = place.keep(&journey?)?;
        self.tell(&kept);
        match end {
            End::Asked => Ok(()),
            End::Gone(_) => Err(Concluded(1).into()),
        }
    }

    fn options(&self) -> har::Options {
        har::Options { host: None, assets: self.assets, to_keep: true }
    }

    fn converted(&self, from: &Path) -> anyhow::Result<Journey> {
        let is_har = from.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("har"));
        // What it has from the environment would stand in the new file.
        let is_journey = from.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
        ensure!(
            !is_journey,
            "{} is a journey already: `lethe prove --journey` takes it as it is",
            from.display()
        );
        let journey = if is_har { har::load(from, &self.options()) } else { file::load(from) };
        journey.with_context(|| format!("cannot use {}", from.display()))
    }

    /// What is in the file and what is not, and what it is good for.
    fn tell(&self, kept: &Kept) {
        let steps = if kept.steps == 1 { "1 step" } else { &format!("{} steps", kept.steps) };
        let path = kept.path.display().to_string();
        let files = match kept.files {
            0 => String::new(),
            1 => format!(", and the file that was sent in {}", kept.folder.display()),
            files => format!(", and {files} files that were sent in {}", kept.folder.display()),
        };
        say(&format!("{path}: {steps}{files}"));
        for note in &kept.notes {
            say(&ansi::clean(&format!("  {note}"), false));
        }
        let what = if self.from.is_none() { "what you typed" } else { "what was sent" };
        say(&format!("  {what} is in it: read it before you share it"));
        let path = shell_words::quote(&path).into_owned();
        let prove = match (&self.path, self.command.as_slice()) {
            (_, [_, ..]) => format!("lethe prove --journey {path} -- {}", shell_words::join(&self.command)),
            (Some(folder), []) => {
                format!("lethe prove {} --journey {path}", shell_words::quote(&folder.display().to_string()))
            }
            (None, []) if self.url.is_none() && self.from.is_none() => {
                format!("lethe prove --journey {path}")
            }
            (None, []) => format!("lethe prove --journey {path} -- COMMAND"),
        };
        let service = self.service.as_ref().map(|name| format!(" --service {name}")).unwrap_or_default();
        say(&format!("prove with: {prove}{service}"));
    }
}

/// Says it to whoever reads. Who does not any more, as behind `| head`, still clicks, and wants what was recorded.
fn say(text: &str) {
    let _ = output::line(text);
}

/// Serves browsers until it is asked to end, or the service has ended.
async fn listen_until(
    listener: &TcpListener,
    proxy: &Arc<Proxy>,
    mut service: Option<&mut Service>,
    signals: &mut Signals,
) -> End {
    loop {
        tokio::select! {
            () = signals.asked() => return End::Asked,
            why = ended(service.as_deref_mut()) => return End::Gone(why),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => proxy.serve(stream),
                // As where no descriptor is left: it is again when a connection ends.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn ended(service: Option<&mut Service>) -> String {
    match service {
        Some(service) => service.ended().await,
        None => std::future::pending().await,
    }
}

/// Where the service at `url` is, and what it knows itself by.
fn address(url: &str) -> anyhow::Result<(Vec<SocketAddr>, String)> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url} cannot be asked: write an address such as http://127.0.0.1:3000, without TLS");
    };
    let authority = rest.trim_end_matches('/');
    let is_authority = !authority.is_empty()
        && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    ensure!(is_authority, "{url} has more than a host and a port: leave the path to your browser");
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let addresses =
        address.to_socket_addrs().with_context(|| format!("{authority} has no address"))?.collect();
    // Browsers do not say the port that goes without saying, and so services do not.
    let authority = authority.strip_suffix(":80").unwrap_or(authority).to_owned();
    Ok((addresses, authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_they_are_typed() {
        let (found, authority) = address("http://127.0.0.1:3000/").unwrap();
        assert_eq!((found[0].port(), authority.as_str()), (3000, "127.0.0.1:3000"));
        let (found, authority) = address("http://127.0.0.1:80").unwrap();
        assert_eq!((found[0].port(), authority.as_str()), (80, "127.0.0.1"));
        for (url, said) in [
            ("https://127.0.0.1", "without TLS"),
            ("127.0.0.1:3000", "without TLS"),
            ("http://", "more than a host"),
            ("http://127.0.0.1/a", "more than a host"),
            ("http://a@127.0.0.1", "more than a host"),
            ("http://127.0.0.1:99999", "no address"),
        ] {
            let error = address(url).err().unwrap().to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
    }
}

//! `lethe up`: runs services until it is told to stop.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use clap::{Args, ValueEnum};
use futures_util::{StreamExt, stream};
use lethe_admin::{
    follow::Follow,
    stop::{Stop, Wish},
};
use lethe_node::{
    config::{self, Config, Overrides},
    heir::Heir,
    inheritance::{self, Inheritance},
    node::{self, Node, Progress},
    signals::{self, Signals},
};
use lethe_supervisor::descriptors;
use tokio::task::AbortHandle;

use crate::{
    events,
    failure::{CutShort, Successor},
    ui::{Mode, Printer, Source, Ui},
};

/// Lines of the past that are shown when everything has started: those that workers printed meanwhile.
const LINES_MAX: usize = 1000;

/// Descriptors beside those for clients and for their workers' connections.
const DESCRIPTORS_BESIDE: u64 = 1024;

/// Threads of the runtime that all rooms but the gateway share; the gateway has its own.
const RUNTIME_THREADS: usize = 2;

/// Run services
///
/// Reads lethe.toml, or else a Procfile. Ctrl-C finishes open requests and leaves nothing running; a second Ctrl-C
/// stops at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lethe up                                 the services of this folder
  lethe up examples/shop --instances 5     those of another, with five workers each
  lethe up --listen 0.0.0.0:80             for other machines too
  lethe up -- python3 app.py               any program that listens on 127.0.0.1:$PORT")]
pub struct Up {
    /// A folder with a lethe.toml or a Procfile, or such a file
    #[arg(value_name = "DIR|FILE", default_value = ".", conflicts_with = "command")]
    path: PathBuf,

    /// Where to listen: a port of 127.0.0.1, or an address and a port
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// Workers of each service: a number, or a range such as 2..8
    #[arg(long, value_name = "N|RANGE")]
    instances: Option<String>,

    /// Where state is kept [default: .lethe, beside the file]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Serve HTTPS with a certificate made for this run, for local use: browsers warn of it
    #[arg(long)]
    tls_self_signed: bool,

    /// How lines are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: Log,

    /// Plain lines, also in a terminal
    #[arg(long)]
    no_table: bool,

    /// A program and its arguments to run, without any file
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Log {
    /// `shop-1 │ text`
    Text,
    /// One JSON object a line
    Json,
}

impl Up {
    /// Runs until it is told to stop.
    pub fn run(self) -> anyhow::Result<()> {
        // SAFETY: this process has one thread still, and has opened nothing yet.
        let inheritance = unsafe { inheritance::claim() }?;
        let mode = self.mode();
        let config = self.config().inspect_err(|error| {
            let _ = inheritance.as_ref().map(|inheritance| inheritance.refuse(error));
        })?;
        let source = config.origin.source.clone();
        // Lines of the gateway's own between the table's rows would tear it.
        let mode = if config.writes_to_stdout() { mode.without_table() } else { mode };
        let ui = Ui::start(mode)?;
        events::install(ui.printer())?;
        // For each client, and for its worker.
        let connections = config.gateway.limits.connections_max as u64 * 2;
        if let Err(error) = descriptors::raise(connections + DESCRIPTORS_BESIDE) {
            tracing::warn!("the limit of open files stays as it is: {error}");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .enable_all()
            .build()?;
        let terms = config.interruption.as_ref().map(|interruption| interruption.terms);
        let (stop, signals) = (Stop::with(terms), Arc::new(Signals::default()));
        let ended = runtime.block_on(serve(config, inheritance, stop.clone(), Arc::clone(&signals), &ui));
        ui.finish();
        // What is still running there is of no interest to anybody.
        runtime.shutdown_background();
        let Some(heir) = ended? else { return Ok(()) };
        match heir.attend(&stop, &source, &signals)? {
            0 => Ok(()),
            status => Err(Successor(status).into()),
        }
    }

    fn mode(&self) -> Mode {
        match self.log {
            Log::Json => Mode::Json,
            Log::Text if self.no_table => Mode::detect().without_table(),
            Log::Text => Mode::detect(),
        }
    }

    fn config(self) -> anyhow::Result<Config> {
        let source = if self.command.is_empty() {
            config::Source::Path(self.path)
        } else {
            config::Source::Command { command: self.command, directory: std::env::current_dir()? }
        };
        let overrides = Overrides {
            listen: self.listen,
            instances: self.instances,
            state_dir: self.state_dir,
            tls_self_signed: self.tls_self_signed,
        };
        Ok(config::load(source, overrides)?)
    }
}

/// Runs to the end, and gives the process that has taken over, if one has.
async fn serve(
    config: Config,
    inheritance: Option<Inheritance>,
    stop: Stop,
    signals: Arc<Signals>,
    ui: &Ui,
) -> anyhow::Result<Option<Arc<Heir>>> {
    let printer = ui.printer();
    for notice in &config.notices {
        printer.say(notice);
    }
    signals::obey(stop.clone(), &config.origin.source, Arc::clone(&signals))?;
    // This very program, also after its file was replaced by a newer build.
    let guard = PathBuf::from("/proc/self/exe");
    let progress = |progress: Progress<'_>| show(&printer, progress);
    let mut node = node::start(config, guard, stop.clone(), inheritance, progress).await?;
    node.obey_attendant(Arc::clone(&signals))?;
    attach(ui, &node)?;
    greet(&printer, &node);
    let looking = tokio::spawn({
        let (printer, away) = (printer.clone(), node.away());
        async move { away.await.into_iter().for_each(|absence| printer.say(absence)) }
    });
    let reloading = tokio::spawn({
        let (handles, signals) = (Arc::clone(node.handles()), Arc::clone(&signals));
        async move {
            loop {
                signals.reload.notified().await;
                // What came of it is told by the reload itself; nobody waits for an answer.
                let _ = (handles.reload)(None).await;
            }
        }
    });
    let farewell = tokio::spawn({
        let (printer, stop) = (printer.clone(), stop.clone());
        async move {
            stop.asked(Wish::Drain).await;
            if stop.wish() == Wish::Drain {
                printer.say("draining; press Ctrl-C again to stop at once");
            }
        }
    });
    let ending = [reloading.abort_handle(), farewell.abort_handle()];
    let handing_over = tokio::spawn({
        let (taken_over, signals) = (node.taken_over(), Arc::clone(&signals));
        async move {
            let heir = taken_over.await;
            ending.iter().for_each(AbortHandle::abort);
            printer.leave().await;
            heir.welcome();
            heir.forward(&signals).await;
        }
    });
    let ended = node.run().await;
    handing_over.abort();
    farewell.abort();
    reloading.abort();
    looking.abort();
    match ended? {
        None if signals.cut_short.load(Ordering::Relaxed) => Err(CutShort.into()),
        heir => Ok(heir),
    }
}

fn show(printer: &Printer, progress: Progress<'_>) {
    match progress {
        Progress::Fetching { service, source } => printer.build(service, format!("fetching {source}")),
        Progress::Building { service, command } => printer.build(service, format!("building: {command}")),
        Progress::Line { service, text } => printer.build(service, text),
        Progress::Built { service } => printer.build(service, "built"),
        Progress::Notice { service, text } => printer.build(service, text),
    }
}

fn attach(ui: &Ui, node: &Node) -> anyhow::Result<()> {
    let handles = node.handles().clone();
    let follow = Follow::new(&handles.supervisor, None, LINES_MAX, true)?;
    let lines = stream::unfold(follow, async |mut follow| Some((follow.next().await?, follow)));
    ui.attach(Source { status: Box::new(move || handles.status()), lines: lines.boxed() });
    Ok(())
}

fn greet(printer: &Printer, node: &Node) {
    let node = &node.handles().node;
    printer.say(format!("serving {}", node.urls().join(" and ")));
    if let Some(admin) = node.admin {
        printer.say(format!("health and metrics at http://{admin}"));
    }
}

//! What `lethe` runs, decided before anything is started: a source is read, everything in it is checked, and all that
//! is wrong is said at once, with file, line and column. What comes out is ready to bind.

mod address;
#[cfg(test)]
mod bad_input;
mod command;
#[cfg(test)]
mod documented;
mod draft;
mod duration;
mod fetch;
mod file;
mod flags;
#[cfg(test)]
mod gateway_part;
mod grant;
mod idempotency;
mod instances;
mod interruption;
mod limit;
mod limits;
mod network;
mod policy;
mod problem;
mod procfile;
mod program;
mod resources;
mod rollout;
mod route;
pub mod scale;
mod service;
mod size;
mod source;
mod state;
mod syntax;
mod table;
mod tls;
mod warm_up;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use lethe_gateway::config as gateway;
use lethe_model::{roster::Protocol, service::ServiceName};
use lethe_state::{grant::Grant, place::Placement};
use lethe_supervisor::{
    resources::Resources,
    service::{Listener, Spec},
};

pub(crate) use self::duration::shown;
use self::{flags::Flags, problem::Quote};
pub use self::{
    instances::Instances,
    problem::{Errors, Problem},
    rollout::Rollout,
    source::command_for,
};
use crate::interruption::Interruption;

/// Where the gateway listens when nothing says otherwise.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Workers of a service when nothing says otherwise: the fewest of which one may die unnoticed.
pub const INSTANCES_DEFAULT: Instances = Instances { min: 2, max: 2 };
/// [`Spec::drain`] when nothing says otherwise.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// [`Build::timeout`] when nothing says otherwise.
pub const BUILD_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1800);
/// [`gateway::Route::timeout`] when nothing says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The state folder when nothing says otherwise, beside the file or in the folder of the command.
pub const STATE_DEFAULT: &str = ".lethe";
/// The file that a folder is searched for first.
pub const FILE_NAME: &str = "lethe.toml";
/// The file that a folder is searched for then.
pub const PROCFILE_NAME: &str = "Procfile";
/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder with a `lethe.toml` or else a `Procfile`, or such a file itself: `lethe up [DIR|FILE]`. A file whose
    /// name begins with `Procfile` is one, any other is read as `lethe.toml`.
    Path(PathBuf),
    /// One service, of this command: `lethe up -- COMMAND…`.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
        /// Where it runs, and where its state folder is: the current folder.
        directory: PathBuf,
    },
}

/// What the command line says beside the source, as it was typed. It wins over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`: `8080`, `:8080`, `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`. A port alone is of 127.0.0.1;
    /// only `0.0.0.0:8080` or `[::]:8080` opens it to other machines.
    pub listen: Option<String>,
    /// `--instances`: `3` or `2..8`, for every service.
    pub instances: Option<String>,
    /// `--state-dir`: a folder, relative to the current one.
    pub state_dir: Option<PathBuf>,
    /// `--tls-self-signed`: TLS with a certificate that is made at the start, in the place of the file's.
    pub tls_self_signed: bool,
}

/// Everything that is run, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway's own. At least one listener, of which the first is `listen`; at least one route, in the order of
    /// the file, and each leads to one of `services`.
    pub gateway: gateway::Config,
    /// Where health and metrics are served; `None` when switched off. By default one port above `listen`, on
    /// 127.0.0.1 (port 0 when that is chosen by the system or past the last).
    pub admin: Option<SocketAddr>,
    /// The folder of the embedded state, absolute; need not exist.
    pub state_dir: PathBuf,
    /// The engine of each kind of state.
    pub placement: Placement,
    /// The services, by name; at least one.
    pub services: Vec<ServiceConfig>,
    /// How it is known that the machine is to go, if anything is said of that.
    pub interruption: Option<Interruption>,
    /// What a person should know that is not an error, one sentence each.
    pub notices: Vec<String>,
    /// The file it was read from, as named to people; `None` for a command.
    pub file: Option<String>,
    /// What to read again when it may have changed.
    pub origin: Origin,
}

/// What a configuration was read from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file or command.
    pub source: Source,
    /// What the command line says beside.
    pub overrides: Overrides,
}

impl Config {
    /// Where the gateway listens. Port 0 lets the system choose.
    pub fn listen(&self) -> SocketAddr {
        self.gateway.listeners[0].address
    }

    /// Whether the gateway writes to the standard output by itself.
    pub fn writes_to_stdout(&self) -> bool {
        self.gateway.access_log == gateway::AccessLog::Stdout
    }
}

/// One service: what the supervisor is told, and what has to happen before.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// What the supervisor runs; it starts with as many workers as [`Instances::first`] says.
    pub spec: Spec,
    /// The bounds within which the number of workers may be changed by load.
    pub instances: Instances,
    /// By what load changes it, if that is a range.
    pub scale: Option<scale::Scale>,
    /// How the gateway treats its workers; a copy of what stands in [`Config::gateway`].
    pub policy: gateway::Service,
    /// What it may use of what is kept; `None` for everything.
    pub grant: Option<Grant>,
    /// How a new version takes the place of the one that runs.
    pub rollout: Rollout,
    /// Where the program comes from; then the directories of `spec` and `build` are relative to what is fetched, see
    /// [`ServiceConfig::fetched`].
    pub source: Option<crate::source::Source>,
    /// How often `source` is looked at, so that what is new there is deployed; `None` for never.
    pub follow: Option<Duration>,
    /// What makes the program, run once before the first start.
    pub build: Option<Build>,
    /// Where `command` was written, for [`ServiceConfig::check_command`].
    command_quote: Option<Quote>,
}

/// How a service's program is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The program and its arguments. A text in the file becomes `sh -c TEXT`.
    pub command: Vec<String>,
    /// Where it runs: the service's own `directory`, absolute.
    pub directory: PathBuf,
    /// The command as it was written; people are shown [`Build::shown`].
    pub text: String,
    /// How long it may take.
    pub timeout: Duration,
    /// Variables of `lethe` itself that it does not get, as workers do not: those of the state's addresses.
    pub withheld: BTreeSet<String>,
}

impl Build {
    /// What it is, for people, logs and events: its program alone, since whatever else stands there may be secret.
    pub fn shown(&self) -> String {
        let words = shell_words::split(&self.text).unwrap_or_default();
        let is_assignment = |word: &&String| {
            word.split_once('=').is_some_and(|(name, _)| {
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            })
        };
        let is_name = |word: &&String| {
            word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+./".contains(&byte))
        };
        match words.iter().find(|word| !is_assignment(word)).filter(is_name) {
            Some(program) if words.len() == 1 => program.clone(),
            Some(program) => format!("{program} …"),
            None => "…".into(),
        }
    }
}

/// Reads `source`, checks everything in it and in `overrides`, and collects all that is wrong. Nothing is started,
/// opened for writing or listened on.
///
/// Whether the program of a service exists is checked here too, unless the service has a `build` that may create it:
/// then call [`ServiceConfig::check_command`] after the build.
pub fn load(source: Source, overrides: Overrides) -> Result<Config, Errors> {
    let origin = Origin { source: source.clone(), overrides: overrides.clone() };
    let (flags, mut problems) = Flags::read(overrides);
    let draft = match source {
        Source::Path(path) => source::read(&path),
        Source::Command { command, directory } => command::read(command, &directory),
    };
    match draft {
        Ok(draft) if problems.is_empty() => draft.finish(flags, origin),
        Ok(_) => Err(Errors(problems)),
        Err(more) => {
            problems.extend(more);
            Err(Errors(problems))
        }
    }
}

impl ServiceConfig {
    /// Puts the service into `folder`, into which its `source` was fetched. To be called before the build.
    pub fn fetched(&mut self, folder: &Path) {
        self.spec.directory = folder.join(&self.spec.directory);
        if let Some(build) = &mut self.build {
            build.directory = self.spec.directory.clone();
        }
    }

    /// The same with its program from elsewhere.
    pub(crate) fn with_source(mut self, source: crate::source::Source) -> Self {
        if self.source.replace(source).is_none() {
            // The folder that it had is none of the source's, whose top is where it runs now.
            self.spec.directory = PathBuf::new();
        }
        self
    }

    /// Whether the program can be started: it exists and is executable. To be called after the build.
    pub fn check_command(&self) -> Result<(), Errors> {
        let quote = self.command_quote.clone();
        self.find_program().map_err(|message| Problem { quote, message }.into())
    }

    /// Has load change the number of workers within another range, or not at all if that is a number.
    fn scale_between(&mut self, instances: Instances) {
        self.instances = instances;
        if instances.min == instances.max {
            self.scale = None;
            return;
        }
        let usual = || scale::Scale::by_default(instances, self.policy.concurrency);
        let mut scale = self.scale.take().unwrap_or_else(usual);
        scale.within(instances);
        self.scale = Some(scale);
    }

    /// One with nothing but what every service has.
    fn new(name: ServiceName, command: Vec<String>, directory: PathBuf) -> Self {
        let spec = Spec {
            name,
            command,
            instances: INSTANCES_DEFAULT.first(),
            ready: None,
            warm_up: Vec::new(),
            listener: Listener::default(),
            protocol: Protocol::default(),
            drain: DRAIN_DEFAULT,
            env: BTreeMap::new(),
            release: 0,
            withheld: BTreeSet::new(),
            directory,
            resources: Resources::default(),
        };
        let policy = gateway::Service::default();
        let (instances, scale, grant, rollout) = (INSTANCES_DEFAULT, None, None, Rollout::default());
        let (source, follow, build, command_quote) = (None, None, None, None);
        Self { spec, instances, scale, policy, grant, rollout, source, follow, build, command_quote }
    }

    /// The same as `check_command`, as a sentence.
    fn find_program(&self) -> Result<(), String> {
        let program = self.spec.command.first().map(String::as_str).unwrap_or_default();
        // A program is looked up in the PATH that it will have.
        let path = self.spec.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
        let absent = match (&self.build, &self.command_quote) {
            (None, Some(_)) if self.source.is_some() => {
                "`source` was fetched and does not have it; check where it is"
            }
            (Some(_), _) => "`build` has run and did not put it there; check where it does",
            (None, Some(_)) => "build it first, or say how in `build`",
            // A command without a file, or of a Procfile, has no `build` to speak of.
            (None, None) => "check the path, or build it first",
        };
        match program::find(program, &self.spec.directory, path.as_deref(), absent) {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("`{program}` {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use gateway::Balance;

    use super::*;

    /// A folder with these files, and its path without symbolic links.
    pub(super) fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    pub(super) fn load_path(path: &Path, overrides: Overrides) -> Result<Config, String> {
        load(Source::Path(path.into()), overrides).map_err(|errors| errors.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        let (_kept, path) = folder(&[("lethe.toml", "[services.shop]\ncommand = 'sh run.sh'")]);
        let config = load_path(&path, Overrides::default()).unwrap();
        assert_eq!(config.listen().to_string(), "127.0.0.1:8080");
        assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:8081");
        assert_eq!(config.state_dir, path.join(".lethe"));
        assert_eq!(config.file, Some(path.join("lethe.toml").display().to_string()));
        assert_eq!(config.notices, [""; 0]);
        let [service] = &config.services[..] else { panic!("one service") };
        assert_eq!(service.spec.name.as_str(), "shop");
        assert_eq!(service.spec.command, ["sh", "run.sh"]);
        assert_eq!((service.spec.instances, service.instances), (2, INSTANCES_DEFAULT));
        assert_eq!((service.spec.listener, service.spec.drain), (Listener::Port, DRAIN_DEFAULT));
        assert_eq!((&service.spec.ready, &service.build), (&None, &None));
        assert_eq!(service.spec.directory, path);
        assert!(service.spec.env.is_empty());
        let [route] = &config.gateway.routes[..] else { panic!("one route") };
        assert_eq!((route.host.as_deref(), route.path.as_str(), route.service.as_str()), (None, "/", "shop"));
        assert_eq!(
            (route.idempotent, route.balance, route.timeout),
            (false, Balance::RoundRobin, TIMEOUT_DEFAULT)
        );
    }

    #[test]
    fn everything_can_be_said() {
        let toml = r#"
            listen = 9000
            admin = "off"
            state = { url = "embedded:data/state" }
            [services.web]
            command = ["sh", "a b"]
            build = "make web && make css"
            instances = "2..8"
            ready = "/healthz?full=1"
            listener = "inherited"
            drain = "250ms"
            env = { RUST_LOG = "info" }
            directory = "../.."
            [services.idle]
            command = 'sh'
            listener = 'socket'
        "#;
        let routes = "[[routes]]\nhost = 'Shop.Example'\npath = '/api/'\nservice = 'web'\nidempotent = true\n\
                      balance = 'least-loaded'\ntimeout = '5m'\n";
        let toml = format!("{toml}\n{routes}");
        let (_kept, path) = folder(&[("examples/shop/lethe.toml", &toml)]);
        let shop = path.join("examples/shop");
        let config = load_path(&shop, Overrides::default()).unwrap();
        assert_eq!(config.listen().to_string(), "127.0.0.1:9000");
        assert_eq!(config.admin, None);
        assert_eq!(config.state_dir, shop.join("data/state"));
        let service = &config.services[0];
        assert_eq!(service.spec.command, ["sh", "a b"]);
        assert_eq!((service.spec.instances, service.instances), (2, Instances { min: 2, max: 8 }));
        assert_eq!(service.spec.ready.as_deref(), Some("/healthz?full=1"));
        assert_eq!(
            (service.spec.listener, service.spec.drain),
            (Listener::Inherited, Duration::from_millis(250))
        );
        assert_eq!(config.services[1].spec.listener, Listener::Socket);
        assert_eq!(service.spec.env, BTreeMap::from([("RUST_LOG".into(), "info".into())]));
        assert_eq!(service.spec.directory, path);
        let build = service.build.as_ref().unwrap();
        assert_eq!(build.command, ["sh", "-c", "make web && make css"]);
        assert_eq!((&build.directory, build.text.as_str()), (&path, "make web && make css"));
        let route = &config.gateway.routes[0];
        assert_eq!((route.host.as_deref(), route.path.as_str()), (Some("shop.example"), "/api"));
        assert_eq!((route.idempotent, route.balance), (true, Balance::LeastLoaded));
        assert_eq!(route.timeout, Duration::from_secs(300));
        assert_eq!(config.notices, ["service `idle`: no route leads to it, so it gets no requests",]);
    }

    #[test]
    fn the_command_line_wins() {
        let (_kept, path) =
            folder(&[("lethe.toml", "listen = 9000\n[services.shop]\ncommand = 'sh'\ninstances = 4")]);
        let overrides = Overrides {
            listen: Some(":7000".into()),
            instances: Some("3".into()),
            state_dir: Some(path.join("elsewhere")),
            ..Overrides::default()
        };
        let config = load_path(&path.join("lethe.toml"), overrides).unwrap();
        assert_eq!(config.listen().to_string(), "127.0.0.1:7000");
        assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:7001");
        assert_eq!(config.services[0].spec.instances, 3);
        assert_eq!(config.state_dir, path.join("elsewhere"));
    }

    #[test]
    fn flags_and_file_are_complained_about_together() {
        let (_kept, path) = folder(&[("lethe.toml", "[services.shop]\ncommand = ''"), ("file", "")]);
        let file = path.join("file");
        let overrides = Overrides {
            listen: Some("80a".into()),
            instances: Some("3..1".into()),
            state_dir: Some(file.clone()),
            ..Overrides::default()
        };
        let said = load_path(&path, overrides).unwrap_err();
        let said: Vec<&str> = said.lines().collect();
        assert!(said[0].starts_with("--listen `80a` is not an address: write"), "{said:?}");
        assert_eq!(said[1], "--instances `3..1` is upside down: write \"1..3\"");
        assert_eq!(said[2], format!("--state-dir `{}` is a file, not a folder", file.display()));
        assert!(said[3].contains("lethe.toml:2:11: `command` in [services.shop] is empty"), "{said:?}");
    }

    #[test]
    fn admin_cannot_be_where_the_gateway_is() {
        let (_kept, path) = folder(&[("lethe.toml", "admin = 8080\n[services.shop]\ncommand = 'sh'")]);
        let overrides = Overrides { listen: Some("0.0.0.0:8080".into()), ..Overrides::default() };
        let said = load_path(&path, overrides).unwrap_err();
        let expected = format!(
            "{}/lethe.toml:1:9: `admin`: `127.0.0.1:8080` is where the gateway listens (0.0.0.0:8080); choose another \
             port, or \"off\"\n  1 | admin = 8080\n    |         ^^^^",
            path.display()
        );
        assert_eq!(said, expected);
    }

    #[test]
    fn the_program_may_come_out_of_the_build() {
        let toml = "[services.shop]\ncommand = './shop --fast'\nbuild = ['make', 'shop']";
        let (_kept, path) = folder(&[("lethe.toml", toml)]);
        let config = load_path(&path, Overrides::default()).unwrap();
        let said = config.services[0].check_command().unwrap_err().to_string();
        let expected = format!(
            "{0}/lethe.toml:2:11: `./shop` is not in {0}: `build` has run and did not put it there; check where it \
             does\n  2 | command = './shop --fast'\n    |           ^^^^^^^^^^^^^^^",
            path.display()
        );
        assert_eq!(said, expected);
        fs::write(path.join("shop"), "").unwrap();
        fs::set_permissions(path.join("shop"), fs::Permissions::from_mode(0o755)).unwrap();
        config.services[0].check_command().unwrap();
    }

    #[test]
    fn the_path_of_the_worker_is_searched() {
        let toml = "[services.shop]\ncommand = 'sh'\nenv = { PATH = '/nowhere' }";
        let (_kept, path) = folder(&[("lethe.toml", toml)]);
        let said = load_path(&path, Overrides::default()).unwrap_err();
        assert!(said.contains("`sh` is no program in PATH"), "{said}");
    }

    #[test]
    fn a_folder_is_searched() {
        let (_kept, path) =
            folder(&[("Procfile", "web: sh run.sh\n"), ("both/lethe.toml", "x"), ("both/Procfile", "")]);
        let config = load_path(&path, Overrides::default()).unwrap();
        assert_eq!(config.services[0].spec.name.as_str(), "web");
        assert_eq!((&config.services[0].spec.directory, config.state_dir), (&path, path.join(".lethe")));
        assert_eq!(config.gateway.routes.len(), 1);
        let said = load_path(&path.join("both"), Overrides::default()).unwrap_err();
        assert!(said.contains("both/lethe.toml:1:2: not valid TOML"), "{said}");
    }

    #[test]
    fn where_there_is_nothing_three_ways_to_begin_are_shown() {
        let (_kept, path) = folder(&[]);
        let said = load_path(&path, Overrides::default()).unwrap_err();
        assert!(said.starts_with("nothing to run: there is no lethe.toml and no Procfile in /"), "{said}");
        for way in ["lethe up -- python3 app.py", "lethe up path/to/folder", "[services.web]"] {
            assert!(said.contains(way), "{way}: {said}");
        }
        let said = load_path(&path.join("absent"), Overrides::default()).unwrap_err();
        assert!(
            said.contains("absent: no such file or folder; to run a program, write `lethe up -- "),
            "{said}"
        );
    }

    #[test]
    fn a_program_is_no_configuration() {
        let (_kept, path) = folder(&[("app.py", "import x"), ("serve", "#!/bin/sh"), ("other.conf", "= 1")]);
        fs::set_permissions(path.join("serve"), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, runner) in [("app.py", "python3 "), ("serve", "")] {
            let said = load_path(&path.join(name), Overrides::default()).unwrap_err();
            let file = path.join(name);
            let file = file.display();
            let expected = format!(
                "{file}: is a program, not a configuration: to run it, write `lethe up -- {runner}{file}`"
            );
            assert_eq!(said, expected);
        }
        let said = load_path(&path.join("other.conf"), Overrides::default()).unwrap_err();
        assert!(said.contains("other.conf:1:1: not valid TOML"), "{said}");
    }

    #[test]
    fn files_that_are_no_configuration() {
        let (_kept, path) = folder(&[("large.toml", "")]);
        fs::File::create(path.join("large.toml")).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let said = load_path(&path.join("large.toml"), Overrides::default()).unwrap_err();
        assert!(said.contains("large.toml: is larger than 1024 KiB"), "{said}");
        fs::write(path.join("latin.toml"), b"a = 1\nb = '\xe9'\n").unwrap();
        let said = load_path(&path.join("latin.toml"), Overrides::default()).unwrap_err();
        assert!(said.contains("latin.toml:2:6: is not UTF-8 from here on"), "{said}");
    }

    #[test]
    fn a_command_needs_no_file() {
        let (_kept, path) = folder(&[]);
        let command = ["sh", "app.sh"].map(String::from).to_vec();
        let config =
            load(Source::Command { command, directory: path.clone() }, Overrides::default()).unwrap();
        assert_eq!(config.services[0].spec.name.as_str(), "app");
        assert_eq!((config.state_dir, config.file), (path.join(".lethe"), None));
    }
}

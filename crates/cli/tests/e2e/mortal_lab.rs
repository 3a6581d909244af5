//! `lethe` with services whose workers die when they are asked to, and a client that asks.

use std::{fs, pin::pin, time::Duration};

use anyhow::{Context, bail};
use futures_util::future::{Either, select};
use lethe_model::roster::WorkerState;

use crate::{
    caller::{Call, Http, Reply, call},
    custodian::gone,
    lethe::{Lethe, Place, kill_9},
    mortal::{Manner, Moment, Order, Record, payload},
    retry_table::Case,
};

/// Workers of each service.
pub const WORKERS: usize = 3;
/// A request that has no answer after this will never have one.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is asked, of a service of its own, so that no kind sees the deaths of another.
pub struct Kind {
    pub service: &'static str,
    pub method: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
    /// The length of its body is not told.
    pub is_open: bool,
    /// What the route says.
    pub route: &'static str,
}

/// With nothing more to say.
pub const fn kind(service: &'static str, method: &'static str) -> Kind {
    Kind { service, method, headers: &[], is_open: false, route: "" }
}

/// `lethe` with one service for each kind of request.
pub struct Lab {
    pub lethe: Lethe,
    place: Place,
}

impl Lab {
    /// With all workers ready; `toml` is said before the services. Requests wait for as long as it takes, should all workers be on
    /// their way back.
    pub async fn open(kinds: &[Kind], toml: &str) -> anyhow::Result<Self> {
        let place = Place::new()?;
        let program = std::env::current_exe()?;
        let program = program.to_str().context("the program's name is UTF-8")?;
        let mut toml = format!("{toml}\nlimits.queue-timeout = \"10m\"\n");
        for Kind { service, route, .. } in kinds {
            let record = place.path().join(service);
            toml += &format!(
                "[services.{service}]\ninstances = {WORKERS}\nenv = {{ RECORD = {record:?} }}\n\
                 command = [{program:?}, '--ignored', '--exact', 'mortal::worker', '--nocapture']\n\
                 [[routes]]\npath = '/{service}'\nservice = '{service}'\n{route}"
            );
        }
        let file = place.path().join("lethe.toml");
        fs::write(&file, toml)?;
        let lethe = place.up(&[file.to_str().context("the folder's name is UTF-8")?]).await?;
        lethe.ready(WORKERS * kinds.len()).await?;
        Ok(Self { lethe, place })
    }

    pub fn record(&self, kind: &Kind) -> Record {
        Record(self.place.path().join(kind.service))
    }

    /// Waits until all workers of a service are ready, and none of them is among `dead`, whose end may not have been noticed
    /// yet; returns their process ids.
    pub async fn alive(&self, kind: &Kind, dead: &[u32]) -> anyhow::Result<Vec<u32>> {
        let what = format!("{} has workers again", kind.service);
        self.lethe
            .until(&what, async || {
                let workers = self.lethe.workers().await.ok()?.into_iter().filter(|worker| {
                    worker.service.as_str() == kind.service && worker.state == WorkerState::Ready
                });
                let pids: Vec<u32> = workers.filter_map(|worker| worker.pid).collect();
                (pids.len() == WORKERS && !pids.iter().any(|pid| dead.contains(pid))).then_some(pids)
            })
            .await
    }

    /// Waits until so many workers are at the moment of their death, and returns the last one.
    pub async fn dying(&self, kind: &Kind, case: &str, count: usize) -> anyhow::Result<u32> {
        let record = self.record(kind);
        let what = format!("worker {count} of {} {case} is to die", kind.service);
        self.lethe.until(&what, async || record.dying(case).get(count - 1).copied()).await
    }

    /// Sends the request of a case, and kills the workers that wait for it.
    pub async fn call(&self, kind: &Kind, case: Case, deaths: usize) -> anyhow::Result<Reply> {
        let name = case.to_string();
        let order = Order { case: &name, moment: case.moment, manner: case.manner, deaths };
        let path = order.path(kind.service);
        let kills = async {
            if case.manner == Manner::Awaited {
                for count in 1..=deaths {
                    kill_9(self.dying(kind, &name, count).await?)?;
                }
            }
            anyhow::Ok(())
        };
        // While some of the body is still to come, the worker dies first.
        let before_pause = match case.moment {
            Moment::Unread | Moment::Head => case.body_bytes / 32,
            Moment::HalfBody => case.body_bytes / 2,
            _ => case.body_bytes,
        };
        let pause = async {
            if before_pause < case.body_bytes {
                gone(self.dying(kind, &name, 1).await?).await?;
            }
            Ok(())
        };
        let upgrade = [("connection", "upgrade"), ("upgrade", "echo")];
        let headers = if case.moment == Moment::Upgraded { &upgrade[..] } else { kind.headers };
        let body = payload(case.body_bytes);
        let (method, is_open) = (kind.method, kind.is_open);
        let request = Call { method, path: &path, headers, body: &body, is_open, before_pause };
        // Whatever was still to be killed: after a reply nobody else will come to that moment.
        match select(pin!(self.send(kind, case.http, &request, pause)), pin!(kills)).await {
            Either::Left((reply, _)) => reply,
            Either::Right((killed, reply)) => {
                let () = killed?;
                reply.await
            }
        }
    }

    /// Sends a request; it waits for `pause` in its body.
    pub async fn send(
        &self,
        kind: &Kind,
        http: Http,
        request: &Call<'_>,
        pause: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Reply> {
        let (case, moment, manner) = ("next", Moment::Never, Manner::Killed);
        let next = Order { case, moment, manner, deaths: 0 }.path(kind.service);
        let reply = call(self.lethe.listen, http, request, pause, &next);
        match tokio::time::timeout(PATIENCE, reply).await {
            Ok(reply) => reply,
            Err(_) => {
                let (workers, record) =
                    (self.lethe.workers().await?, fs::read_to_string(self.record(kind).0)?);
                let printed = self.lethe.output.text();
                bail!("no end after {PATIENCE:?}\n{printed}\n{workers:#?}\nthe record:\n{record}")
            }
        }
    }
}

//! What the state's engines do, as families of `/metrics`. Labels are names of engines, kinds and operations, and servers of
//! the configuration: nothing that a client or a worker could say.

use std::sync::Arc;

use lethe_admin::{
    exposition::{
        Exposition,
        Kind::{Counter, Gauge, Histogram},
        Label,
    },
    handles::Measure,
};
use lethe_state::{
    figures::{BOUNDS, BreakerState, Figures, Pool},
    metered::Meter,
    open::Opened,
};

/// Tells what the embedded engine, those that are servers elsewhere and the operations of all of them do.
pub(crate) fn measure(
    embedded: impl Fn(&mut Figures) + Send + Sync + 'static,
    opened: Arc<Opened>,
    meter: Meter,
) -> Measure {
    Arc::new(move |text: &mut Exposition| {
        let mut figures = Figures { operations: meter.operations(), ..Figures::default() };
        embedded(&mut figures);
        opened.watch(&mut figures);
        write(text, &figures);
    })
}

fn write(text: &mut Exposition, figures: &Figures) {
    pools(text, figures);
    breakers(text, figures);
    writers(text, figures);
    operations(text, figures);
}

fn pools(text: &mut Exposition, figures: &Figures) {
    let mut each = |name, kind, help, value: fn(&Pool) -> Option<u64>| {
        let mut family = text.family(name, kind, help);
        for pool in &figures.pools {
            if let Some(value) = value(pool) {
                family.sample(&labels(pool.engine, &pool.server), value);
            }
        }
    };
    each("lethe_state_pool_max_connections", Gauge, "Most connections to the server.", |pool| Some(pool.max));
    let help = "Connections to the server, also those that are just being made.";
    each("lethe_state_pool_connections", Gauge, help, |pool| Some(pool.size));
    each("lethe_state_pool_idle_connections", Gauge, "Connections that nobody uses.", |pool| pool.idle);
    each("lethe_state_pool_used_connections", Gauge, "Connections that are lent out.", |pool| pool.in_use);
    let help = "Calls that are under way, where they share a connection.";
    each("lethe_state_pool_calls", Gauge, help, |pool| pool.calls);
    each("lethe_state_pool_waiting", Gauge, "Calls that wait for a connection now.", |pool| pool.waiting);
    each("lethe_state_pool_waits_total", Counter, "Calls that had to wait for a connection.", |pool| {
        pool.waiting.map(|_| pool.waits_total)
    });
    let help = "Calls that waited for a connection in vain.";
    each("lethe_state_pool_timeouts_total", Counter, help, |pool| pool.waiting.map(|_| pool.timeouts_total));
    each("lethe_state_pool_created_total", Counter, "Connections that were made.", |pool| {
        Some(pool.created_total)
    });
    each("lethe_state_pool_lost_total", Counter, "Connections that were lost in use.", |pool| {
        Some(pool.lost_total)
    });
}

fn breakers(text: &mut Exposition, figures: &Figures) {
    let help =
        "1 for whether the server is asked (closed), left alone (open) or tried out (probing), else 0.";
    let mut states = text.family("lethe_state_breaker", Gauge, help);
    for breaker in &figures.breakers {
        for state in BreakerState::ALL {
            let [engine, server] = labels(breaker.engine, &breaker.server);
            states.sample(&[engine, server, ("state", state.as_str())], u8::from(breaker.state == state));
        }
    }
    let help = "How often the server was given up because it did not answer.";
    let mut opened = text.family("lethe_state_breaker_opened_total", Counter, help);
    for breaker in &figures.breakers {
        opened.sample(&labels(breaker.engine, &breaker.server), breaker.opened_total);
    }
}

fn writers(text: &mut Exposition, figures: &Figures) {
    let mut each = |name, kind, help, value: fn(&lethe_state::figures::Writer) -> u64| {
        let mut family = text.family(name, kind, help);
        for writer in &figures.writers {
            family.sample(&[("database", writer.database)], value(writer));
        }
    };
    let help = "Commands that wait for the writer of the embedded engine now.";
    each("lethe_state_writer_queue", Gauge, help, |writer| writer.queued);
    let help = "Commands that the writer has had, in groups.";
    each("lethe_state_writer_commands_total", Counter, help, |writer| writer.commands_total);
    let help = "Groups of commands that were committed.";
    each("lethe_state_writer_commits_total", Counter, help, |writer| writer.commits_total);
    let help = "Groups of commands that could not be committed.";
    each("lethe_state_writer_failures_total", Counter, help, |writer| writer.failures_total);
}

fn operations(text: &mut Exposition, figures: &Figures) {
    let bounds = BOUNDS.map(|bound| bound.as_secs_f64());
    let help =
        "How long operations of the state took at their engine, by kind; those that were asked for at all.";
    let mut duration = text.family("lethe_state_operation_duration_seconds", Histogram, help);
    for one in &figures.operations {
        let labels = [("kind", one.kind), ("engine", one.engine), ("operation", one.operation)];
        duration.histogram(&labels, &bounds, &one.took, one.sum.as_secs_f64());
    }
    let help =
        "Operations that found their engine away (unavailable), or in which it failed itself (failed).";
    let mut errors = text.family("lethe_state_operation_errors_total", Counter, help);
    for one in &figures.operations {
        for (error, count) in [("unavailable", one.unavailable), ("failed", one.failed)] {
            let [kind, engine, operation] =
                [("kind", one.kind), ("engine", one.engine), ("operation", one.operation)];
            errors.sample(&[kind, engine, operation, ("error", error)], count);
        }
    }
}

fn labels<'a>(engine: &'a str, server: &'a str) -> [Label<'a>; 2] {
    [("engine", engine), ("server", server)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lethe_state::{
        embedded::Embedded,
        figures::{Breaker, Operation, Writer},
        metered::metered,
        open,
        place::{Address, Kind, Placement},
        tables::{Action, Condition, Write},
    };

    use super::*;

    fn text(figures: &Figures) -> String {
        let mut text = Exposition::default();
        write(&mut text, figures);
        text.finish()
    }

    #[test]
    fn everything_has_a_sample() {
        let server = || "db:5432".to_owned();
        let pool = Pool {
            engine: "postgres",
            server: server(),
            max: 20,
            size: 7,
            idle: Some(4),
            in_use: Some(3),
            waiting: Some(2),
            waits_total: 11,
            created_total: 12,
            timeouts_total: 13,
            lost_total: 14,
            calls: None,
        };
        let shared = Pool { engine: "redis", calls: Some(5), size: 1, ..Pool::default() };
        let breaker =
            Breaker { engine: "postgres", server: server(), state: BreakerState::Open, opened_total: 9 };
        let writer = Writer {
            database: "state.db",
            queued: 1,
            commands_total: 22,
            commits_total: 21,
            failures_total: 20,
        };
        let mut took = [0; BOUNDS.len() + 1];
        (took[0], took[BOUNDS.len()]) = (2, 1);
        let operation = Operation {
            kind: "tables",
            engine: "postgres",
            operation: "get",
            took,
            sum: Duration::from_millis(11_500),
            unavailable: 3,
            failed: 4,
        };
        let text = text(&Figures {
            pools: vec![pool, shared],
            breakers: vec![breaker],
            writers: vec![writer],
            operations: vec![operation],
        });
        let pg = "engine=\"postgres\",server=\"db:5432\"";
        for line in [
            format!("lethe_state_pool_max_connections{{{pg}}} 20"),
            format!("lethe_state_pool_connections{{{pg}}} 7"),
            format!("lethe_state_pool_idle_connections{{{pg}}} 4"),
            format!("lethe_state_pool_used_connections{{{pg}}} 3"),
            format!("lethe_state_pool_waiting{{{pg}}} 2"),
            format!("lethe_state_pool_waits_total{{{pg}}} 11"),
            format!("lethe_state_pool_created_total{{{pg}}} 12"),
            format!("lethe_state_pool_timeouts_total{{{pg}}} 13"),
            format!("lethe_state_pool_lost_total{{{pg}}} 14"),
            "lethe_state_pool_calls{engine=\"redis\",server=\"\"} 5".into(),
            format!("lethe_state_breaker{{{pg},state=\"open\"}} 1"),
            format!("lethe_state_breaker{{{pg},state=\"closed\"}} 0"),
            format!("lethe_state_breaker_opened_total{{{pg}}} 9"),
            "lethe_state_writer_queue{database=\"state.db\"} 1".into(),
            "lethe_state_writer_commits_total{database=\"state.db\"} 21".into(),
            "lethe_state_operation_duration_seconds_bucket{kind=\"tables\",engine=\"postgres\",operation=\"get\",le=\"0.00005\"} 2"
                .into(),
            "lethe_state_operation_duration_seconds_count{kind=\"tables\",engine=\"postgres\",operation=\"get\"} 3".into(),
            "lethe_state_operation_duration_seconds_sum{kind=\"tables\",engine=\"postgres\",operation=\"get\"} 11.5".into(),
            "lethe_state_operation_errors_total{kind=\"tables\",engine=\"postgres\",operation=\"get\",error=\"failed\"} 4".into(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("idle_connections{engine=\"redis\""), "it has none that could be idle");
    }

    #[tokio::test]
    async fn engines_tell_what_they_do() {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path()).unwrap();
        let mut placement = Placement::default();
        // A port that nobody listens on.
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let redis = Address::parse(&format!("redis://:geheim@{nowhere}/?connect_timeout_ms=500")).unwrap();
        placement.kinds.insert(Kind::Locks, redis);
        let opened = Arc::new(open::open(&placement, &embedded.engines()).unwrap());
        let (engines, meter) = metered(opened.engines.clone(), &placement);
        let measure = measure(embedded.watch(), opened, meter);
        let put = Action::Put { value: "v".into(), ttl: None };
        let write = Write { table: "t".into(), key: "k".into(), condition: Condition::Any, action: put };
        engines.tables.apply(vec![write]).await.unwrap();
        assert!(engines.locks.look("n").await.is_err());
        let told = || {
            let mut text = Exposition::default();
            measure(&mut text);
            text.finish()
        };
        let text = told();
        for part in [
            "lethe_state_operation_duration_seconds_count{kind=\"tables\",engine=\"embedded\",operation=\"apply\"} 1\n",
            "lethe_state_operation_errors_total{kind=\"locks\",engine=\"redis\",operation=\"look\",error=\"unavailable\"} 1\n",
            &format!("lethe_state_pool_connections{{engine=\"redis\",server=\"{nowhere}\"}} 0\n"),
            &format!("lethe_state_breaker_opened_total{{engine=\"redis\",server=\"{nowhere}\"}} 1\n"),
            "lethe_state_writer_queue{database=\"state.db\"} 0\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("lethe_state_writer_commits_total{database=\"state.db\"} 0\n"), "{text}");
        assert!(!text.contains("geheim"), "{text}");
        drop(engines);
        embedded.close().await;
        assert!(!told().contains("database="), "it is closed, and nobody waits for this one");
    }
}

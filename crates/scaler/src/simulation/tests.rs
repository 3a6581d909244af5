use super::{policy::Kind, *};

fn model() -> Model {
    Model {
        service_time: Duration::from_millis(50),
        startup: Duration::from_secs(2),
        slots: 1,
        goal: Duration::from_millis(200),
        min: 1,
        max: 100,
        utilization: 0.7,
    }
}

fn played(kind: Kind, load: &[f64]) -> Outcome {
    play(&model(), load, Policy::new(kind, &model(), None))
}

/// So many seconds at each rate.
fn steps(steps: &[(usize, f64)]) -> Vec<f64> {
    steps.iter().flat_map(|(seconds, rate)| vec![*rate; *seconds]).collect()
}

#[test]
fn steady_load_is_served_by_as_many_as_it_takes() {
    // A worker serves 20 a second; 140 a second at 70 % are 10 workers.
    for kind in Kind::ALL {
        let outcome = played(kind, &steps(&[(3_600, 140.0)]));
        assert_eq!((outcome.changes, outcome.most), (0, 10), "{}", outcome.name);
        assert!((outcome.worker_hours - 10.0).abs() < 1e-9, "{}: {}", outcome.name, outcome.worker_hours);
        assert!((outcome.requests - 504_000.0).abs() < 1e-6);
        // By chance 1.3 % wait at all, and hardly any of them for 150 ms.
        assert!(outcome.over < 0.001 * outcome.requests, "{}: {}", outcome.name, outcome.over);
    }
}

#[test]
fn a_step_is_followed_by_each_at_its_own_pace() {
    let load = steps(&[(600, 140.0), (3_600, 560.0), (7_200, 140.0)]);
    let caught_up = |kind| {
        let outcome = played(kind, &load);
        let ready = |second: &Second| second.ready >= 40;
        let after = outcome.seconds.iter().position(ready).map(|at| at - 600);
        assert_eq!(outcome.seconds.last().map(|second| second.ready), Some(10), "{}", outcome.name);
        (after.unwrap(), outcome)
    };
    let (lethe, ours) = caught_up(Kind::Lethe);
    let (kpa, _) = caught_up(Kind::Kpa);
    let (hpa, theirs) = caught_up(Kind::Hpa);
    let (target, slowest) = caught_up(Kind::Target);
    // At once to twice as many, twice as many again a second later, and 2 s to start. Panic has no such bound.
    assert!((3..=5).contains(&lethe), "{lethe}");
    assert!(lethe.max(kpa) < hpa && hpa < target, "{kpa} {lethe} {hpa} {target}");
    assert!(target >= 180, "three minutes' points must be above: {target}");
    assert!(
        ours.over < theirs.over && theirs.over < slowest.over,
        "{} {} {}",
        ours.over,
        theirs.over,
        slowest.over
    );
}

#[test]
fn nobody_leaves_from_zero_unserved() {
    let zero = Model { min: 0, ..model() };
    let load = steps(&[(60, 0.0), (60, 10.0), (1_200, 0.0)]);
    let outcome = play(&zero, &load, Policy::new(Kind::Lethe, &zero, None));
    assert_eq!(outcome.seconds[59].ready, 0);
    let first = outcome.seconds.iter().position(|second| second.ready > 0);
    assert_eq!(first, Some(63), "one second to be seen, two to start");
    assert_eq!(outcome.seconds.last().map(|second| second.ready), Some(0), "and to zero again");
    assert!(outcome.over >= 20.0 && outcome.over < 100.0, "{}", outcome.over);
}

#[test]
fn what_looks_at_cpu_keeps_one_worker() {
    let zero = Model { min: 0, ..model() };
    for kind in [Kind::Hpa, Kind::Target] {
        let outcome = play(&zero, &steps(&[(1_800, 0.0), (60, 10.0)]), Policy::new(kind, &zero, None));
        assert!(outcome.seconds.iter().all(|second| second.ready == 1), "{}", outcome.name);
    }
}

#[test]
fn more_load_takes_longer() {
    let p99 = |rate: f64| {
        let fixed = Model { min: 10, max: 10, ..model() };
        play(&fixed, &steps(&[(60, rate)]), Policy::new(Kind::Lethe, &fixed, None)).seconds[59].p99
    };
    let times: Vec<f64> = [0.0, 50.0, 120.0, 160.0, 190.0, 201.0, 300.0].into_iter().map(p99).collect();
    assert!((times[0] - 0.05).abs() < 1e-9, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    // 100 a second too many for a minute are a backlog of 6000, which 200 a second serve in 30 s.
    assert!(times[6] > 30.0 && times[6] < 32.0, "{times:?}");
}

/// Requests that wait while workers start are many, and short: they are no reason for a worker each.
#[test]
fn a_backlog_does_not_bring_all_workers_there_may_be() {
    let load = steps(&[(600, 10.0), (600, 100.0), (600, 300.0), (1_800, 20.0)]);
    let [ours, theirs] = [Kind::Lethe, Kind::Kpa].map(|kind| played(kind, &load));
    // 300 a second at 70 % are 22 workers.
    assert!(ours.most < 66, "{}", ours.most);
    assert!(ours.worker_hours < 1.3 * theirs.worker_hours, "{} {}", ours.worker_hours, theirs.worker_hours);
    assert!(ours.over < 1.3 * theirs.over, "{} {}", ours.over, theirs.over);
}

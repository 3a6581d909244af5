use super::*;
use crate::{
    capacity::{self, Found},
    report::{Capacity, Journey, Kill, Problem, Step, Stretch, Users, VERSION, Worker},
    scalability,
};

fn report() -> Report {
    let requests = |ok: u64, failed| Requests {
        total: ok + failed,
        ok,
        failed,
        ok_per_s: ok as f64,
        ..Requests::default()
    };
    let latency = Latency { p50_us: 1_234, p99_us: 150_000, ..Latency::default() };
    let stretch = |at: u64| Stretch { at_s: at as f64, requests: requests(at * 10, at), latency };
    let run = Summary {
        valid: false,
        invalid_because: vec!["<late>".into()],
        users_per_s: (1.0, 9.0),
        duration_s: 4.0,
        users: Users { arrived: 9, finished: 7, ..Users::default() },
        requests: requests(7, 2),
        latency,
        lag: latency,
        steps: vec![Step {
            journey: "shop".into(),
            step: 1,
            title: "GET /<b>".into(),
            requests: requests(7, 2),
            latency,
        }],
        workers: vec![Worker { name: "\"w\"&'1'".into(), requests: requests(0, 1), latency }],
        timeline: (0..4).map(stretch).collect(),
        problems: vec![Problem { what: "<script>alert(1)</script>".into(), count: 2 }],
        kills: vec![Kill { at_s: 2.0, worker: "w-1".into() }],
    };
    let points: Vec<(u32, f64)> =
        (1..=5).map(|workers| (workers, f64::from(workers) * 90.0 + 10.0)).collect();
    let found = |held: f64| Found {
        users_per_s: Some(held),
        not_held_users_per_s: None,
        limit: Limit::Generator,
        tries: Vec::new(),
    };
    let capacities =
        points.iter().map(|(workers, held)| Capacity { workers: Some(*workers), found: found(*held) });
    let journey =
        Journey { name: "shop".into(), steps: vec!["GET /".into()], notes: vec!["a <note>".into()] };
    Report {
        version: VERSION,
        target: "http://a/<i>".into(),
        journeys: vec![journey],
        run: Some(run),
        capacities: capacities.collect(),
        scalability: Some(scalability::fit(&points, None).unwrap()),
        scalability_missing_because: None,
    }
}

#[test]
fn one_stretch_is_seen_and_each_table_scrolls_by_itself() {
    let mut report = report();
    let tables = html(&report).matches("<table").count();
    assert_eq!(html(&report).matches("<div class=\"wide\"><table").count(), tables);
    assert_eq!(html(&report).matches("</table></div>").count(), tables);
    report.scalability = None;
    report.run.as_mut().unwrap().timeline.truncate(1);
    let page = html(&report);
    assert_eq!((page.matches("<polyline").count(), page.matches("<circle").count()), (0, 3));
    assert!(page.contains(">0 s<") && page.contains(">4.0 s<") && page.contains("(1 step)"), "{page}");
}

#[test]
fn what_the_generator_could_not_make_is_no_capacity() {
    let mut report = report();
    let tried = capacity::Try { rate: 200.0, share: 1.0, p99_us: 900, valid: false, held: false };
    let found =
        Found { users_per_s: None, not_held_users_per_s: None, limit: Limit::Generator, tries: vec![tried] };
    report.capacities = vec![Capacity { workers: None, found }];
    let page = html(&report);
    assert!(
        page.contains("Capacity: not known; this machine could not make even 200 users a second"),
        "{page}"
    );
    assert!(!page.contains("nothing, or more"), "{page}");
}

#[test]
fn nothing_in_it_is_markup_or_comes_from_elsewhere() {
    let page = html(&report());
    for text in ["<i>", "<b>GET", "<script", "<late>", "<note>", "NaN", "inf,", "src=", "href="] {
        assert!(!page.contains(text), "{text} in {page}");
    }
    for text in [
        "Load on http://a/&lt;i&gt;",
        "1 GET /&lt;b&gt;",
        "&quot;w&quot;&amp;&#39;1&#39;",
        "&lt;script&gt;",
        "<td>1.23 ms</td>",
        "<td>150 ms</td>",
        "Not valid: &lt;late&gt;",
        "Capacity with 1 worker: 100 users a second, or more",
        "Each red line is a worker that was killed: 1 in all.",
    ] {
        assert!(page.contains(text), "{text} not in {page}");
    }
    // Three panels with a line each, the law, its points, and a mark in each panel for who was killed.
    assert_eq!(page.matches("<polyline").count(), 4);
    assert_eq!(page.matches("<circle").count(), 5);
    assert_eq!(page.matches("#c338").count(), 3);
    assert_eq!(page.matches('<').count(), page.matches('>').count());
}

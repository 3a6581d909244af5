//! A world of workers that start, die and fall ill as chance has it, in which the planner's steps are taken; and a table of
//! single decisions.

use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ready(id: usize) -> Seat {
    Seat { id, ready_for: Some(ms(60_000)), age: ms(60_000), ..Seat::default() }
}

fn starting(id: usize) -> Seat {
    Seat { id, ..Seat::default() }
}

fn view<'a>(wanted: usize, old: &'a [Seat], new: &'a [Seat]) -> View<'a> {
    View { now: ms(0), wanted, old, new, leaving: 0, worse: None, called_off: None, is_baked: false }
}

fn decide(policy: &Policy, view: &View<'_>) -> Action {
    next(policy, &mut Track::default(), view)
}

#[test]
fn decisions() {
    let policy = Policy::default();
    let old: Vec<Seat> = (0..4).map(ready).collect();
    let check = |new: &[Seat], old: &[Seat], expected: Action| {
        assert_eq!(decide(&policy, &view(4, old, new)), expected, "{old:?} {new:?}");
    };
    // One more than the four that are wanted may be there.
    check(&[], &old, Action::Start(Version::New, 1));
    check(&[starting(9)], &old, Action::Wait(Why::Starting(Version::New, 1)));
    check(&[ready(9)], &old, Action::Drain(Version::Old, vec![0]));
    // The one that answers nobody leaves first.
    check(&[ready(9)], &[ready(0), starting(1), ready(2), ready(3)], Action::Drain(Version::Old, vec![1]));
    check(&[ready(9)], &old[1..], Action::Start(Version::New, 1));
    check(&[ready(6), ready(7), ready(8), ready(9)], &[], Action::Bake { until: policy.bake });
    // Fewer are wanted than were.
    check(&[ready(5), ready(6), starting(7), ready(8), ready(9)], &[], Action::Drain(Version::New, vec![7]));
    let out = Seat { out_for: Some(ms(1)), ..ready(9) };
    check(&[out], &old, Action::Wait(Why::Out(Version::New, 1)));
    // Where nobody is wanted one is tried all the same, and watched; to go back it is not needed.
    assert_eq!(decide(&policy, &view(0, &[], &[])), Action::Start(Version::New, 1));
    assert_eq!(decide(&policy, &view(0, &[], &[ready(9)])), Action::Bake { until: policy.bake });
    assert_eq!(decide(&policy, &view(0, &old, &[])), Action::Drain(Version::Old, vec![0, 1, 2]));
    let mut back = Track { is_back: true, ..Track::default() };
    assert_eq!(next(&policy, &mut back, &view(0, &[], &[ready(9)])), Action::Drain(Version::New, vec![9]));
    assert_eq!(next(&policy, &mut back, &view(0, &[], &[])), Action::Restored);
    let leaving = View { leaving: 2, ..view(1, &[], &old[..1]) };
    assert_eq!(decide(&policy, &leaving), Action::Wait(Why::Draining(2)));
    let warm_up = Policy { warm_up: ms(60_001), ..Policy::default() };
    assert_eq!(decide(&warm_up, &view(4, &old, &[ready(9)])), Action::Wait(Why::WarmUp(1)));
}

#[test]
fn what_goes_back() {
    let policy = Policy { grace: ms(100), ..Policy::default() };
    let off = Policy { goes_back: false, ..policy.clone() };
    let old = [ready(0)];
    let sick = |age, out| Seat { out_for: Some(out), age, ..ready(9) };
    // A new worker, what follows, and what follows when going back is switched off.
    let cases = [
        (Seat { failures: 2, ..starting(9) }, None, None),
        (Seat { failures: 3, ..starting(9) }, Some(Reason::Start), Some(Reason::Start)),
        (Seat { unready_for: ms(99), ..starting(9) }, None, None),
        (
            Seat { unready_for: ms(100), ..starting(9) },
            Some(Reason::Unready(ms(100))),
            Some(Reason::Unready(ms(100))),
        ),
        (Seat { falls: 2, ..ready(9) }, None, None),
        (Seat { falls: 3, ..ready(9) }, Some(Reason::Falls(3)), None),
        // Within the grace its health does not count.
        (sick(ms(99), OUT_MAX), None, None),
        (sick(ms(100), OUT_MAX - ms(1)), None, None),
        (sick(ms(100), OUT_MAX), Some(Reason::Health(1)), None),
    ];
    for (seat, on, otherwise) in cases {
        let new = [seat];
        for (policy, expected) in [(&policy, on), (&off, otherwise)] {
            let action = decide(policy, &view(1, &old, &new));
            let reason = if let Action::Rollback(reason) = action { Some(reason) } else { None };
            assert_eq!(reason, expected, "{seat:?}");
        }
    }
    let worse = View { worse: Some("it fails"), ..view(1, &old, &[]) };
    assert_eq!(decide(&policy, &worse), Action::Rollback(Reason::Worse("it fails".into())));
    assert_eq!(decide(&off, &worse), Action::Start(Version::New, 1));
    let called_off = View { called_off: Some("ada"), ..view(1, &old, &[]) };
    assert_eq!(decide(&off, &called_off), Action::Rollback(Reason::CalledOff("ada".into())));
}

/// The old version was to come back; and does it, after this?
#[test]
fn what_does_not_come_back_either() {
    let policy = Policy { grace: ms(100), ..Policy::default() };
    let ill = |age, out| Seat { out_for: Some(out), age, ..ready(1) };
    let cases = [
        (Seat { failures: 2, ..starting(1) }, false),
        (Seat { failures: 3, ..starting(1) }, true),
        (Seat { unready_for: ms(99), ..starting(1) }, false),
        (Seat { unready_for: ms(100), ..starting(1) }, true),
        (ill(ms(99), OUT_MAX), false),
        (ill(ms(100), OUT_MAX), true),
    ];
    for (seat, is_stuck) in cases {
        for new in [vec![], vec![ready(9)]] {
            let mut track = Track { is_back: true, ..Track::default() };
            let action = next(&policy, &mut track, &view(1, &[seat], &new));
            assert_eq!(action == Action::Stuck, is_stuck, "{seat:?} {new:?}: {action:?}");
            assert!(is_stuck || matches!(action, Action::Wait(_)), "{action:?}");
        }
    }
    // What can be done for it is done first.
    let mut track = Track { is_back: true, ..Track::default() };
    let lost = [Seat { failures: 9, ..starting(1) }, ready(2)];
    assert_eq!(
        next(&policy, &mut track, &view(2, &lost, &[starting(9)])),
        Action::Drain(Version::New, vec![9])
    );
    assert_eq!(next(&policy, &mut track, &view(3, &lost, &[])), Action::Start(Version::Old, 1));
}

#[test]
fn checkpoints_pause_and_more_may_be_wanted_meanwhile() {
    let policy = Policy { checkpoints: vec![25, 50], pause: ms(10), ..Policy::default() };
    let old: Vec<Seat> = (0..3).map(ready).collect();
    let mut track = Track::default();
    let mut at = |now, wanted, old: &[Seat], new: &[Seat]| {
        next(&policy, &mut track, &View { now: ms(now), ..view(wanted, old, new) })
    };
    let new = [ready(10), ready(11), ready(12), ready(13)];
    assert_eq!(at(5, 4, &old, &new[..1]), Action::Pause { percent: 25, until: ms(15) });
    assert_eq!(at(14, 4, &old, &new[..1]), Action::Pause { percent: 25, until: ms(15) });
    // The old version is the one that grows: the new one is still on trial.
    assert_eq!(at(14, 8, &old, &new[..2]), Action::Start(Version::Old, 3));
    assert_eq!(at(15, 4, &old, &new[..1]), Action::Start(Version::New, 1));
    assert_eq!(at(16, 4, &old[..2], &new[..2]), Action::Pause { percent: 50, until: ms(26) });
    assert_eq!(at(26, 4, &old[..2], &new[..2]), Action::Start(Version::New, 1));
}

/// A worker of the world.
#[derive(Clone, Debug)]
struct Being {
    id: usize,
    /// Turns until it is ready; `None` if it never is.
    comes: Option<u32>,
    ready_since: Option<u64>,
    unready_since: u64,
    born: u64,
    failures: u32,
    /// Turns until it has left.
    leaves: Option<u32>,
}

struct World {
    now: u64,
    wanted: usize,
    next_id: usize,
    old: Vec<Being>,
    new: Vec<Being>,
    /// New workers never become ready, and fail.
    is_bad: bool,
}

impl World {
    fn new(wanted: usize, is_bad: bool) -> Self {
        let mut world = Self { now: 0, wanted, next_id: 0, old: Vec::new(), new: Vec::new(), is_bad };
        for _ in 0..wanted {
            let mut being = world.being(Version::Old, 0);
            being.ready_since = Some(0);
            world.old.push(being);
        }
        world
    }

    fn being(&mut self, version: Version, slow: u32) -> Being {
        self.next_id += 1;
        let comes = (version == Version::Old || !self.is_bad).then_some(slow);
        let (id, now) = (self.next_id, self.now);
        Being { id, comes, ready_since: None, unready_since: now, born: now, failures: 0, leaves: None }
    }

    fn beings(&mut self, version: Version) -> &mut Vec<Being> {
        match version {
            Version::Old => &mut self.old,
            Version::New => &mut self.new,
        }
    }

    fn seats(&self, version: Version) -> Vec<Seat> {
        let beings = if version == Version::Old { &self.old } else { &self.new };
        let staying = beings.iter().filter(|being| being.leaves.is_none());
        let seat = |being: &Being| Seat {
            id: being.id,
            ready_for: being.ready_since.map(|since| ms(self.now - since)),
            unready_for: being.ready_since.map_or(ms(self.now - being.unready_since), |_| Duration::ZERO),
            age: ms(self.now - being.born),
            failures: being.failures,
            ..Seat::default()
        };
        staying.map(seat).collect()
    }

    /// A turn passes: who starts comes nearer, who leaves too, and one dies.
    fn pass(&mut self, dies: Option<usize>, slow: u32) {
        self.now += 10;
        let now = self.now;
        for being in self.old.iter_mut().chain(&mut self.new) {
            match &mut being.comes {
                _ if being.ready_since.is_some() => {}
                Some(0) => being.ready_since = Some(now),
                Some(turns) => *turns -= 1,
                None => being.failures += 1,
            }
            being.leaves = being.leaves.map(|turns| turns.saturating_sub(1));
        }
        self.old.retain(|being| being.leaves != Some(0));
        self.new.retain(|being| being.leaves != Some(0));
        let count = self.old.len() + self.new.len();
        if let Some(dies) = dies.filter(|_| count > 0) {
            let being = self.old.iter_mut().chain(&mut self.new).nth(dies % count).unwrap();
            if being.ready_since.take().is_some() {
                (being.comes, being.unready_since) = (Some(slow), now);
            }
        }
    }
}

/// Turns after which a world is surely at rest.
const TURNS_MAX: usize = 2000;

/// What chance decides in one turn.
type Turn = (Option<usize>, u32, Option<usize>);

fn turn() -> impl Strategy<Value = Turn> {
    // Who dies, how slowly workers start, how many are wanted from here on.
    (proptest::option::weighted(0.1, 0usize..40), 0u32..4, proptest::option::weighted(0.05, 0usize..20))
}

fn policies() -> impl Strategy<Value = Policy> {
    let checkpoints = prop_oneof![Just(vec![]), Just(vec![10, 50]), Just(vec![1, 25, 99])];
    (0u8..=100, 0u16..=200, 0u64..50, checkpoints, 0u64..100).prop_map(
        |(least, surge, warm_up, checkpoints, bake)| Policy {
            min_healthy_percent: least,
            max_surge_percent: surge,
            grace: ms(10_000),
            warm_up: ms(warm_up),
            checkpoints,
            pause: ms(50),
            bake: ms(bake),
            ..Policy::default()
        },
    )
}

/// Takes a step in the world; what has to be true of every step is asserted.
fn take(
    world: &mut World,
    policy: &Policy,
    track: &Track,
    action: &Action,
    slow: u32,
) -> Result<(), TestCaseError> {
    let (old, new) = (world.seats(Version::Old), world.seats(Version::New));
    match action {
        Action::Start(version, count) => {
            prop_assert!(*count > 0);
            let there = old.len() + new.len() + count;
            let wanted = if track.is_back { world.wanted } else { world.wanted.max(1) };
            prop_assert!(there <= policy.most(wanted), "{there} of {wanted}");
            if track.is_back {
                prop_assert_eq!(*version, Version::Old);
            }
            for _ in 0..*count {
                let being = world.being(*version, slow);
                world.beings(*version).push(being);
            }
        }
        Action::Drain(version, ids) => {
            prop_assert!(!ids.is_empty());
            let available = |gone: &[usize]| {
                let warm_up = if track.is_back { Duration::ZERO } else { policy.warm_up };
                let old = old.iter().filter(|seat| seat.is_healthy() && !gone.contains(&seat.id)).count();
                old + new.iter().filter(|seat| seat.counts(warm_up) && !gone.contains(&seat.id)).count()
            };
            let (before, after) = (available(&[]), available(ids));
            prop_assert!(
                after >= policy.least(world.wanted) || after == before,
                "{before} to {after} of {}",
                world.wanted
            );
            for being in world.beings(*version).iter_mut().filter(|being| ids.contains(&being.id)) {
                prop_assert!(being.leaves.is_none(), "told once");
                being.leaves = Some(1 + slow);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Plays to the end; how it ended, and the track.
fn play(
    world: &mut World,
    policy: &Policy,
    turns: &[Turn],
    called_off_at: Option<usize>,
) -> Result<(Action, Track), TestCaseError> {
    let mut track = Track::default();
    let mut newest = 0;
    for number in 0..TURNS_MAX {
        // After the chances, the world is at peace, and then it must come to an end.
        let (dies, slow, wanted) = turns.get(number).copied().unwrap_or((None, 1, None));
        world.wanted = wanted.unwrap_or(world.wanted);
        let called_off = called_off_at.is_some_and(|at| number >= at);
        for steps in 0.. {
            prop_assert!(steps < 50, "it takes steps without end");
            let (old, new) = (world.seats(Version::Old), world.seats(Version::New));
            let leaving = world.old.iter().chain(&world.new).filter(|being| being.leaves.is_some()).count();
            let view = View {
                now: ms(world.now),
                wanted: world.wanted,
                old: &old,
                new: &new,
                leaving,
                worse: None,
                called_off: called_off.then_some("chance"),
                is_baked: false,
            };
            let action = next(policy, &mut track, &view);
            take(world, policy, &track, &action, slow)?;
            let staying = world.seats(Version::New).len();
            if !track.is_back && wanted.is_none() && steps > 0 {
                prop_assert!(staying >= newest.min(world.wanted), "it goes on, never back by itself");
            }
            newest = staying;
            match action {
                Action::Wait(_) | Action::Stuck | Action::Pause { .. } | Action::Bake { .. } => break,
                Action::Promote | Action::Restored => return Ok((action, track)),
                _ => {}
            }
        }
        world.pass(dies, slow);
    }
    Err(TestCaseError::fail(format!(
        "no end; {:?} {:?}",
        world.seats(Version::Old),
        world.seats(Version::New)
    )))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_good_version_takes_over(policy in policies(), wanted in 0usize..20, turns in proptest::collection::vec(turn(), 0..100)) {
        let mut world = World::new(wanted, false);
        let (action, _) = play(&mut world, &policy, &turns, None)?;
        prop_assert_eq!(action, Action::Promote);
        prop_assert!(world.old.is_empty());
        prop_assert_eq!(world.seats(Version::New).len(), world.wanted.max(1), "one is tried in any case");
        prop_assert!(world.seats(Version::New).iter().all(|seat| seat.counts(policy.warm_up)));
    }

    #[test]
    fn a_bad_version_leaves_all_as_it_was(policy in policies(), wanted in 1usize..20) {
        let mut world = World::new(wanted, true);
        let before: Vec<usize> = world.old.iter().map(|being| being.id).collect();
        let (action, _) = play(&mut world, &policy, &[], None)?;
        prop_assert_eq!(action, Action::Restored);
        prop_assert!(world.new.is_empty());
        let after: Vec<usize> = world.old.iter().map(|being| being.id).collect();
        prop_assert_eq!(after, before, "the old workers were not touched");
    }

    #[test]
    fn called_off_at_any_moment_all_is_old_again(
        policy in policies(), wanted in 1usize..20, at in 0usize..80, turns in proptest::collection::vec(turn(), 0..100)
    ) {
        let mut world = World::new(wanted, false);
        let (action, _) = play(&mut world, &policy, &turns, Some(at))?;
        match action {
            Action::Restored => {
                prop_assert!(world.new.is_empty());
                prop_assert_eq!(world.old.len(), world.wanted);
                prop_assert!(world.old.iter().all(|being| being.ready_since.is_some()));
            }
            // It was over before.
            action => prop_assert_eq!(action, Action::Promote),
        }
    }
}

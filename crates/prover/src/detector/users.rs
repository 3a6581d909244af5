//! What shows between users who were sent to different workers: numbers and ids that each worker counts for itself, so that two users are
//! given the same, and cookies that name a worker.
//!
//! Three users play the journey one after the other, once all at one worker and once each at a worker of their own. A number that is
//! another one for each user at one worker, and the same for all of them at several, is counted in each worker.

use std::collections::{BTreeMap, BTreeSet};

use lethe_journey::{
    capture::Source,
    compare::{self, Place},
    observed::Observed,
};

use crate::{
    finding::{Confidence, Finding, Kind, Replay},
    proof::Progress,
    repetition::TIMES,
    schedule::Schedule,
    trial::{Found, Trial},
    worker::Error,
};

/// Users, and workers where each has one.
const USERS: usize = 3;

/// Most characters of a value that are told.
const TOLD_CHARS_MAX: usize = 40;

/// What each user was given, by step and place; only where all of them were given something.
type Given = BTreeMap<(usize, Place), Vec<String>>;

/// What users were given at one worker, and at several.
struct Users {
    together: Given,
    apart: Given,
}

impl Trial<'_> {
    /// Sends users to one worker and to several, and looks at what these give them.
    pub(crate) fn users(&mut self, found: &mut Found) -> Result<(), Error> {
        let title = "users at one worker and at several";
        (self.progress)(Progress::Begins { title });
        let first = self.send_users()?;
        let (mut numbers, mut names) = (first.duplicates(), first.names());
        let mut times = 1;
        while times < TIMES && !(numbers.is_empty() && names.is_empty()) {
            let again = self.send_users()?;
            numbers.retain(|at| again.duplicates().contains(at));
            names.retain(|at| again.names().contains(at));
            times += 1;
        }
        let duplicate = self.worst(numbers, found).map(|at| self.duplicate(at, &first));
        let name = names.into_iter().next();
        // Cookies that are signed with a secret of boot are the same for whoever has nothing yet.
        let is_signed = found.findings.iter().any(|known| known.kind == Kind::BootSecret);
        let sticky = name.filter(|_| !is_signed).map(|at| self.sticky(&at, &first));
        let why = duplicate.iter().chain(&sticky).map(|finding| finding.proof.clone()).next();
        let schedule = Schedule { title: title.into(), ..Schedule::pinned(self.journey.steps.len(), USERS) };
        self.row_apart(&schedule, why);
        found.findings.extend(duplicate.into_iter().chain(sticky));
        Ok(())
    }

    fn send_users(&self) -> Result<Users, Error> {
        let together = self.stage.play_users(&self.journey, &[0; USERS])?;
        let each: Vec<usize> = (0..USERS).collect();
        let apart = self.stage.play_users(&self.journey, &each)?;
        Ok(Users { together: given(&together), apart: given(&apart) })
    }

    /// The place that says most: ids before counts, and what a step changes before what it shows. A step that is known to leave something
    /// in its worker says no more by that; and where anything was found, a count that is only shown says nothing new.
    fn worst(&self, places: BTreeSet<(usize, Place)>, found: &Found) -> Option<(Confidence, usize, Place)> {
        let is_known = |step: usize| {
            found.findings.iter().any(|known| known.producer.step == step || known.consumer.step == step)
        };
        let ranked = places.into_iter().map(|(step, place)| (self.confidence(step, &place), step, place));
        ranked
            .filter(|(_, step, _)| !is_known(*step))
            .filter(|(confidence, ..)| *confidence < Confidence::Hint || found.findings.is_empty())
            .min()
    }

    fn confidence(&self, number: usize, place: &Place) -> Confidence {
        let Some(step) = self.journey.step(number) else { return Confidence::Hint };
        let is_used = step.captures.iter().any(|capture| match (&capture.source, place) {
            (Source::Json(pointer), Place::Json(place)) => pointer == place,
            (Source::Header(name), Place::Header(place)) => name.as_str() == place,
            _ => false,
        });
        match place {
            // It tells users apart, however it was asked for.
            Place::Cookie(_) => Confidence::Proven,
            _ if step.method.is_safe() && !is_used => Confidence::Hint,
            Place::Header(_) | Place::Redirect(_) => Confidence::Proven,
            Place::Json(pointer) if is_used || is_id(pointer) => Confidence::Proven,
            _ => Confidence::Likely,
        }
    }

    fn duplicate(&self, (confidence, step, place): (Confidence, usize, Place), users: &Users) -> Finding {
        let values = |given: &Given| told(given.get(&(step, place.clone())).map_or(&[], Vec::as_slice));
        let proof = format!(
            "{USERS} users who each did step {step} at a worker of their own were given {} ({place}), and {USERS} who did it at one worker \
             {} ({TIMES} of {TIMES} times)",
            values(&users.apart),
            values(&users.together),
        );
        self.of_users(Kind::DuplicateId, confidence, step, proof)
    }

    fn sticky(&self, (step, name): &(usize, String), users: &Users) -> Finding {
        let at = (*step, Place::Cookie(name.clone()));
        let values = |given: &Given| told(given.get(&at).map_or(&[], Vec::as_slice));
        let proof = format!(
            "the cookie {name:?} that step {step} sets was {} for {USERS} users of one worker, and {} for users of {USERS} workers \
             ({TIMES} of {TIMES} times): it names the worker, or something that was made when it started",
            values(&users.together),
            values(&users.apart),
        );
        self.of_users(Kind::StickyCookie, Confidence::Hint, *step, proof)
    }

    fn of_users(&self, kind: Kind, confidence: Confidence, step: usize, proof: String) -> Finding {
        Finding::new(
            kind,
            confidence,
            self.place(step),
            proof,
            // No schedule has several users: it is seen again when all is proven again.
            Replay {
                journey: self.journey.name.clone(),
                workers: format!("{USERS} users, at one worker and at several"),
                fails_at: step,
            },
        )
    }
}

impl Users {
    /// Where users at one worker were given different values, and those at several the same.
    fn duplicates(&self) -> BTreeSet<(usize, Place)> {
        let is_duplicate = |at: &(usize, Place), together: &[String]| {
            let apart = self.apart.get(at);
            is_for_users(&at.1) && are_distinct(together) && apart.is_some_and(|apart| are_equal(apart))
        };
        let places = self.together.iter().filter(|(at, together)| is_duplicate(at, together));
        places.map(|(at, _)| at.clone()).collect()
    }

    /// Cookies of which a part is the same for all users at one worker, and another one at each worker.
    fn names(&self) -> BTreeSet<(usize, String)> {
        let is_name = |together: &[String], apart: &[String]| {
            let is_by = |part: fn(&str) -> &str| {
                let parts = |all: &[String]| all.iter().map(|text| part(text).to_owned()).collect::<Vec<_>>();
                are_equal(&parts(together)) && are_distinct(&parts(apart))
            };
            is_by(|whole| whole) || is_by(route)
        };
        let cookies = self.together.iter().filter_map(|((step, place), together)| match place {
            Place::Cookie(name) => {
                let apart = self.apart.get(&(*step, place.clone()))?;
                is_name(together, apart).then(|| (*step, name.clone()))
            }
            _ => None,
        });
        cookies.collect()
    }
}

/// What comes behind a session's id where a worker's name does: `4711.node1` (`jvmRoute` of Tomcat and Jetty), `4711!node1` (WebLogic).
fn route(value: &str) -> &str {
    value.rsplit(['.', '!']).next().unwrap_or(value)
}

fn given(users: &[Vec<Observed>]) -> Given {
    let mut given = Given::new();
    for observed in users.iter().flatten() {
        // Of a redirect that was followed, the comparison keeps the shape alone.
        let hops = observed.redirects.iter().enumerate();
        let hops = hops.map(|(at, hop)| (Place::Redirect(at), hop.location.clone()));
        let pieces = compare::pieces(observed).into_iter();
        let pieces = pieces.filter(|(place, _)| !matches!(place, Place::Redirect(_)));
        for (place, text) in pieces.chain(hops) {
            given.entry((observed.step, place)).or_default().push(text);
        }
    }
    given.retain(|_, texts| texts.len() == USERS);
    given
}

/// Whether what stands there may be given to a user: no field but where something new is, since others tell of limits, times and caches.
fn is_for_users(place: &Place) -> bool {
    match place {
        Place::Status | Place::CookieRules(_) | Place::Body => false,
        Place::Header(name) => name == "location",
        _ => true,
    }
}

/// Whether a leaf of JSON is called as ids are: `id`, `order_id`, `orderId`, `number`.
fn is_id(pointer: &str) -> bool {
    let name = pointer.rsplit('/').next().unwrap_or_default();
    ["id", "ID", "number", "key"].contains(&name)
        || ["_id", "-id", "Id", "ID", "_number", "Number"].iter().any(|end| name.ends_with(end))
}

fn are_equal(texts: &[String]) -> bool {
    texts.windows(2).all(|pair| pair[0] == pair[1])
}

fn are_distinct(texts: &[String]) -> bool {
    texts.iter().collect::<BTreeSet<_>>().len() == texts.len()
}

fn told(values: &[String]) -> String {
    let short = |value: &String| value.chars().take(TOLD_CHARS_MAX).collect::<String>();
    values.iter().map(short).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(place: &Place, together: [&str; USERS], apart: [&str; USERS]) -> Users {
        let given =
            |texts: [&str; USERS]| Given::from([((2, place.clone()), texts.map(str::to_owned).to_vec())]);
        Users { together: given(together), apart: given(apart) }
    }

    #[test]
    fn a_number_that_each_worker_counts() {
        let id = Place::Json("/id".into());
        for (place, together, apart, expected) in [
            (&id, ["1", "2", "3"], ["1", "1", "1"], true),
            (&id, ["1", "2", "3"], ["4", "5", "6"], false),
            // Of each user, not of all.
            (&id, ["1", "1", "1"], ["1", "1", "1"], false),
            // Two of a small range are the same by chance.
            (&id, ["1", "2", "3"], ["4", "1", "4"], false),
            (&Place::Header("location".into()), ["/o/1", "/o/2", "/o/3"], ["/o/1", "/o/1", "/o/1"], true),
            (&Place::Header("x-ratelimit-remaining".into()), ["9", "8", "7"], ["9", "9", "9"], false),
            (&Place::Status, ["200", "201", "202"], ["200", "200", "200"], false),
        ] {
            assert_eq!(
                !users(place, together, apart).duplicates().is_empty(),
                expected,
                "{together:?} {apart:?}"
            );
        }
    }

    #[test]
    fn a_cookie_that_names_a_worker() {
        let cookie = Place::Cookie("route".into());
        for (together, apart, expected) in [
            (["a", "a", "a"], ["a", "b", "c"], true),
            (["17.n1", "18.n1", "19.n1"], ["4.n1", "4.n2", "4.n3"], true),
            (["17!n1", "18!n1", "19!n1"], ["4!n1", "4!n2", "4!n3"], true),
            // A taste, and a session.
            (["dark", "dark", "dark"], ["dark", "dark", "dark"], false),
            (["s1", "s2", "s3"], ["s4", "s5", "s6"], false),
            (["s.1", "s.2", "s.3"], ["s.4", "s.5", "s.6"], false),
        ] {
            assert_eq!(
                !users(&cookie, together, apart).names().is_empty(),
                expected,
                "{together:?} {apart:?}"
            );
        }
        assert!(users(&Place::Json("/id".into()), ["a"; 3], ["a", "b", "c"]).names().is_empty());
    }

    #[test]
    fn names_of_ids() {
        for (pointer, expected) in [
            ("/id", true),
            ("/order/orderId", true),
            ("/rows/0/user_id", true),
            ("/number", true),
            ("", false),
            ("/paid", false),
            ("/count", false),
            ("/valid", false),
        ] {
            assert_eq!(is_id(pointer), expected, "{pointer}");
        }
    }
}

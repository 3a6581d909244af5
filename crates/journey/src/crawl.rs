//! A journey out of nothing but the service: a user who follows its links and fills in its forms, a bounded number of them, and looks
//! again at what came of it.

mod form;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, header};

use crate::{
    address,
    capture::{Capture, Source},
    crawl::form::Form,
    destination::Destination,
    html::{self, Token},
    journey::{Journey, Step},
    observed::Observed,
    player::{Error, Player, Settings},
    template::Template,
};

/// How far a crawl goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Pages that are looked at by their links.
    pub pages_max: usize,
    /// Pages in one folder, which are mostly of one kind.
    pub alike_max: usize,
    /// Forms that are filled in.
    pub forms_max: usize,
    /// For all of it.
    pub time_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { pages_max: 12, alike_max: 2, forms_max: 8, time_max: Duration::from_secs(30) }
    }
}

/// Words in a link or form that ends or destroys something: such a one is not followed, and such a form comes last.
const FINAL: [&str; 8] =
    ["logout", "log-out", "sign-out", "signout", "sign_out", "delete", "remove", "destroy"];

/// Ends of paths that are no pages.
const ASSETS: [&str; 14] = [
    ".css", ".js", ".mjs", ".map", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".woff",
    ".woff2", ".pdf",
];

/// Goes through the service at `destination`, and gives what it did as a journey. `settings` has the identity of this run.
///
/// # Errors
/// When the first page has no response; what comes to nothing later ends the crawl with what there is.
pub async fn crawl(
    destination: &Destination,
    settings: &Settings,
    bounds: &Bounds,
) -> Result<Journey, Error> {
    let journey = Journey {
        name: "crawl".into(),
        host: None,
        variables: form::variables(),
        steps: Vec::new(),
        notes: Vec::new(),
    };
    let player = Player::new(Arc::new(journey.clone()), settings.clone())?;
    let mut crawl = Crawl {
        destination,
        player,
        journey,
        bounds: *bounds,
        end: Instant::now() + bounds.time_max,
        queue: VecDeque::from(["/".to_owned()]),
        seen: HashSet::from(["/".to_owned()]),
        alike: HashMap::new(),
        forms: Vec::new(),
        filled: HashSet::new(),
        is_changed: false,
        own: HashSet::new(),
    };
    crawl.look("/").await?;
    crawl.queue.pop_front();
    // What cannot be asked any more ends it; the steps so far are a journey.
    if let Err(error) = crawl.explore().await {
        crawl.journey.notes.push(format!("the crawl ended early: {error}"));
    }
    Ok(crawl.finish())
}

struct Crawl<'d> {
    destination: &'d Destination,
    player: Player,
    journey: Journey,
    bounds: Bounds,
    end: Instant,
    /// Pages to be looked at.
    queue: VecDeque<String>,
    /// Those that are or were there, or are like enough to those that were.
    seen: HashSet<String>,
    /// How many pages of each folder.
    alike: HashMap<String, usize>,
    /// Forms to be filled in, each with its page.
    forms: Vec<(String, Form)>,
    /// What tells forms apart, of those that are or were there.
    filled: HashSet<String>,
    /// Whether a form was sent: what pages then lead to may be of this run alone.
    is_changed: bool,
    /// Links that were passed over for that.
    own: HashSet<String>,
}

impl Crawl<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    async fn explore(&mut self) -> Result<(), Error> {
        let (mut pages, mut forms) = (1, 0);
        while !self.is_over() {
            // Links first: they say what there is, and change nothing.
            if pages < self.bounds.pages_max
                && let Some(path) = self.queue.pop_front()
            {
                self.look(&path).await?;
                pages += 1;
                continue;
            }
            let next = self.forms.iter().enumerate().min_by_key(|(at, (_, form))| (form.rank(), *at));
            let Some(at) = next.map(|(at, _)| at).filter(|_| forms < self.bounds.forms_max) else { break };
            let (page, form) = self.forms.remove(at);
            self.fill_in(&page, &form).await?;
            forms += 1;
        }
        Ok(())
    }

    /// Asks for a page, and notes what it leads to.
    async fn look(&mut self, path: &str) -> Result<(usize, Observed), Error> {
        let step = Step::new(0, Method::GET, Template::literal(path));
        let (at, observed) = self.play(step).await?;
        self.note(path, &observed);
        Ok((at, observed))
    }

    /// Plays a step and appends it to the journey; gives its place there, from 0.
    async fn play(&mut self, mut step: Step) -> Result<(usize, Observed), Error> {
        step.number = self.journey.steps.len() + 1;
        let observed = self.player.improvise(&step, self.destination).await?;
        let status = observed.status.as_u16();
        // A service whose first page fails has nothing to be proven: that it must not fail is expected of it, as of any step.
        if step.number > 1 || status < 400 {
            step.expect.statuses = vec![status..=status];
        }
        self.journey.steps.push(step);
        Ok((self.journey.steps.len() - 1, observed))
    }

    fn note(&mut self, path: &str, observed: &Observed) {
        let mut links: Vec<String> = observed.location().map(Into::into).into_iter().collect();
        let kind = observed.content_type().unwrap_or_default();
        if kind.ends_with("html") {
            let page = observed.text();
            links.extend(html::tokens(&page).into_iter().filter_map(|token| match token {
                Token::Open(tag) if tag.name == "a" => tag.get("href").map(Into::into),
                _ => None,
            }));
            for form in form::forms(&page, path, self.player.host()) {
                if self.filled.insert(form.signature()) {
                    self.forms.push((path.to_owned(), form));
                }
            }
        } else if kind.ends_with("json") {
            let value = serde_json::from_slice(&observed.body).unwrap_or_default();
            links.extend(paths(&value));
        }
        for link in links {
            if let Some(path) = address::resolve(path, &link, self.player.host()) {
                self.enqueue(path);
            }
        }
    }

    fn enqueue(&mut self, path: String) {
        let lower = path.to_ascii_lowercase();
        let page = lower.split('?').next().unwrap_or_default();
        if FINAL.iter().any(|word| lower.contains(word)) || ASSETS.iter().any(|end| page.ends_with(end)) {
            return;
        }
        // An id that was given in this run is not there in another, where the next one has its place.
        if self.is_changed && !self.seen.contains(&path) && path.bytes().any(|byte| byte.is_ascii_digit()) {
            self.own.insert(path);
            return;
        }
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        // Pages at the top are of different kinds; one page with several queries is of one.
        let kind = if path.contains('?') { page.to_owned() } else { folder };
        let is_top = kind.is_empty();
        let alike = self.alike.entry(kind).or_default();
        let is_new = self.seen.insert(path.clone());
        if is_new && (is_top || *alike < self.bounds.alike_max) {
            *alike += 1;
            self.queue.push_back(path);
        }
    }

    /// Opens the form's page, sends the form, follows where that leads, and looks at the page again.
    async fn fill_in(&mut self, page: &str, form: &Form) -> Result<(), Error> {
        let (at, observed) = self.look(page).await?;
        let number = at + 1;
        for name in form.hidden() {
            let variable = form::variable(name, number);
            let fallback = html::field(&observed.text(), name).map(Into::into);
            let capture = Capture { fallback, ..Capture::new(variable, Source::Input(name.into())) };
            self.player.take(&capture, &observed);
            self.journey.steps[at].captures.push(capture);
        }
        let (at, observed) = self.play(form.step(number)).await?;
        self.is_changed |= form.changes();
        if observed.status.is_redirection() && observed.location().is_some() {
            let variable = format!("location-{}", at + 1);
            let capture = Capture::new(variable.clone(), Source::Header(header::LOCATION));
            self.player.take(&capture, &observed);
            let here = address::resolve(page, observed.location().unwrap_or_default(), self.player.host());
            // Another host is not followed; a path that is not from `/` is not one by itself.
            if let Some(here) =
                here.filter(|_| observed.location().is_some_and(|text| text.starts_with(['/', 'h'])))
            {
                self.journey.steps[at].captures.push(capture);
                self.seen.insert(here.clone());
                // A variable tells nobody where it led.
                let name = Some(format!("GET {}", without_ids(&here)));
                let step = Step { name, ..Step::new(0, Method::GET, Template::variable(variable)) };
                let (_, observed) = self.play(step).await?;
                self.note(&here, &observed);
            }
        } else {
            self.note(page, &observed);
        }
        self.look(page).await?;
        Ok(())
    }

    fn finish(mut self) -> Journey {
        self.leave_out_failures();
        let left = self.queue.len() + self.forms.len();
        if left > 0 {
            self.journey.notes.push(format!("{left} further links and forms were not followed"));
        }
        if !self.own.is_empty() {
            let count = self.own.len();
            self.journey
                .notes
                .push(format!("{count} links were not followed, since they may be of this run alone"));
        }
        self.journey
    }
}

impl Crawl<'_> {
    /// Takes out what the service itself failed at, and what needs something of that, and says so: of that nothing can be proven.
    fn leave_out_failures(&mut self) {
        let fails = |step: &Step| step.expect.statuses.iter().any(|range| *range.start() >= 500);
        for mut step in std::mem::take(&mut self.journey.steps) {
            let number = self.journey.steps.len() + 1;
            if fails(&step) || !step.uses().all(|name| self.journey.knows(name, number)) {
                self.journey.notes.push(format!(
                    "{} failed on one worker, or needs what did, and was left out",
                    step.title()
                ));
                continue;
            }
            step.number = number;
            self.journey.steps.push(step);
        }
    }
}

/// A path whose parts with digits, which are others in another run, are left out.
fn without_ids(path: &str) -> String {
    let has_id = |part: &str| part.bytes().any(|byte| byte.is_ascii_digit());
    let path = path.split('?').next().unwrap_or_default();
    path.split('/').map(|part| if has_id(part) { "…" } else { part }).collect::<Vec<_>>().join("/")
}

/// The strings of JSON that are paths.
fn paths(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::String(text) if text.starts_with('/') => vec![text.clone()],
        serde_json::Value::Array(items) => items.iter().flat_map(paths).collect(),
        serde_json::Value::Object(fields) => fields.values().flat_map(paths).collect(),
        _ => Vec::new(),
    }
}

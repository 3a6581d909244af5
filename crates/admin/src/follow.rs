//! Lines of the past and those to come in one sequence, without a gap or a repetition between the two.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use lethe_model::service::{InstanceId, ServiceName};
use lethe_supervisor::{
    logs::{Line, Source},
    supervisor::{Error, Supervisor},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::api;

/// The sequence.
pub struct Follow {
    past: VecDeque<Line>,
    /// The newest lines of the past, which may come once more.
    seen: Vec<Line>,
    /// How many of those to come had come when the past was read.
    both: usize,
    coming: Option<Receiver<Arc<Line>>>,
    name: Option<String>,
    /// Whose line was last, to say of lost ones where they were lost.
    last: Option<(ServiceName, InstanceId)>,
}

impl Follow {
    /// The last `lines_max` lines of the instance or service `name` (of all when `None`), and with `follow` those to
    /// come until the supervisor ends.
    ///
    /// # Errors
    /// When there is no such instance or service.
    pub fn new(
        supervisor: &Supervisor,
        name: Option<String>,
        lines_max: usize,
        follow: bool,
    ) -> Result<Self, Error> {
        // Subscribed before the past is read: a line between the two is in both, and passed over once.
        let coming = follow.then(|| supervisor.follow());
        let past: VecDeque<Line> = supervisor.logs(name.as_deref(), lines_max)?.into();
        let both = coming.as_ref().map_or(0, Receiver::len);
        let seen = past.iter().rev().take(both).cloned().collect();
        Ok(Self { past, seen, both, coming, name, last: None })
    }

    /// The next line; `None` at the end. A reader who is too slow misses lines, and is told how many by a line in
    /// their place. Cancellation safe.
    pub async fn next(&mut self) -> Option<api::Line> {
        if let Some(line) = self.past.pop_front() {
            return Some(self.line(&line));
        }
        loop {
            match self.coming.as_mut()?.recv().await {
                Ok(line) => {
                    let again = self.both > 0 && self.seen.contains(&line);
                    self.both = self.both.saturating_sub(1);
                    if !again && self.wants(&line) {
                        return Some(self.line(&line));
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    self.both = self.both.saturating_sub(usize::try_from(missed).unwrap_or(usize::MAX));
                    if let Some(line) = self.missed(missed) {
                        return Some(line);
                    }
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, line: &Line) -> bool {
        let Some(name) = self.name.as_deref() else { return true };
        line.instance.as_str() == name || line.service.as_str() == name
    }

    fn line(&mut self, line: &Line) -> api::Line {
        if self.last.as_ref().is_none_or(|(_, instance)| *instance != line.instance) {
            self.last = Some((line.service.clone(), line.instance.clone()));
        }
        line.into()
    }

    fn missed(&self, missed: u64) -> Option<api::Line> {
        let (service, instance) = self.last.clone()?;
        let text = format!("{missed} lines of all workers are not shown here: they came too fast");
        Some(api::Line { at: SystemTime::now().into(), service, instance, source: Source::Lethe, text })
    }
}

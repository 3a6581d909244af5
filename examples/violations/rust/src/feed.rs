//! What those who are connected hear of: what is said in this worker alone, or what comes into a log beside, which all workers follow.

use std::time::Duration;

use tokio::{sync::broadcast, time::sleep};

use crate::{failure::Failure, store::Store};

/// Messages that a slow listener may be behind.
const BEHIND_MAX: usize = 64;

#[derive(Clone)]
pub struct Feed {
    told: broadcast::Sender<String>,
    log: Option<Log>,
}

#[derive(Clone)]
struct Log {
    store: Store,
    path: &'static str,
}

impl Feed {
    pub fn here() -> Self {
        Self { told: broadcast::Sender::new(BEHIND_MAX), log: None }
    }

    pub fn beside(store: Store, path: &'static str) -> Self {
        let (log, told) = (Log { store, path }, broadcast::Sender::new(BEHIND_MAX));
        tokio::spawn(log.clone().follow(told.clone()));
        Self { told, log: Some(log) }
    }

    pub fn listen(&self) -> broadcast::Receiver<String> {
        self.told.subscribe()
    }

    pub async fn say(&self, text: String) -> Result<(), Failure> {
        match &self.log {
            Some(log) => log.add(text).await,
            None => {
                // Nobody need listen.
                let _ = self.told.send(text);
                Ok(())
            }
        }
    }
}

impl Log {
    /// Puts it at the first free place: of several that try at once, one gets it.
    async fn add(&self, text: String) -> Result<(), Failure> {
        let mut number = 1;
        while !self.store.create(&self.place(number), text.clone()).await? {
            number += 1;
        }
        Ok(())
    }

    /// Tells what comes into the log.
    async fn follow(self, told: broadcast::Sender<String>) {
        let mut number = 1;
        loop {
            match self.store.get(&self.place(number)).await {
                Ok(Some(text)) => {
                    let _ = told.send(String::from_utf8_lossy(&text).into_owned());
                    number += 1;
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn place(&self, number: u32) -> String {
        format!("{}/{number}", self.path)
    }
}

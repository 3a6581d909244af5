//! The board on which the roster is published: each change is one new snapshot with a higher generation, which costs what
//! has changed and not what there is.

use std::sync::Arc;

use lethe_model::{
    roster::{Roster, Worker, WorkerState},
    service::{InstanceId, ServiceName},
    workers::Workers,
};
use tokio::sync::watch;

/// Where the roster is written and watched.
#[derive(Debug)]
pub(crate) struct Board {
    roster: watch::Sender<Arc<Roster>>,
}

impl Board {
    /// A board on which each service is present, with no workers.
    pub(crate) fn new(services: impl Iterator<Item = ServiceName>) -> Self {
        let services = services.map(|name| (name, Workers::default())).collect();
        Self { roster: watch::Sender::new(Arc::new(Roster { generation: 1, services })) }
    }

    /// The watched roster.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.subscribe()
    }

    /// Adds a service with no workers; one that is there stays as it is.
    pub(crate) fn open(&self, service: &ServiceName) {
        self.change(service, |_| {});
    }

    /// Takes a service off the board, whose workers have all left.
    pub(crate) fn close(&self, service: &ServiceName) {
        self.roster.send_modify(|roster| {
            let next = Arc::make_mut(roster);
            next.generation += 1;
            next.services.remove(service);
        });
    }

    /// Adds a worker, as the youngest of its service.
    pub(crate) fn enter(&self, service: &ServiceName, worker: Worker) {
        self.change(service, |workers| workers.insert(worker));
    }

    /// Changes what may be asked of a worker.
    pub(crate) fn set(&self, service: &ServiceName, instance: &InstanceId, state: WorkerState) {
        self.change(service, |workers| {
            workers.update(instance, |worker| worker.state = state);
        });
    }

    /// Removes a worker, whose process has ended.
    pub(crate) fn leave(&self, service: &ServiceName, instance: &InstanceId) {
        self.change(service, |workers| {
            workers.remove(instance);
        });
    }

    fn change(&self, service: &ServiceName, change: impl FnOnce(&mut Workers)) {
        self.roster.send_modify(|roster| {
            // A copy if somebody has the one before, and of the one service's list only as far as it changes.
            let next = Arc::make_mut(roster);
            next.generation += 1;
            change(next.services.entry(service.clone()).or_default());
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use lethe_model::{gate::Gate, roster::Protocol};

    use super::*;

    #[test]
    fn each_change_is_a_new_snapshot() {
        let shop = ServiceName::new("shop").unwrap();
        let board = Board::new([shop.clone()].into_iter());
        let watched = board.subscribe();
        assert_eq!(watched.borrow().services["shop"].len(), 0);
        for number in 1..=2 {
            let worker = Worker {
                instance: InstanceId::new(&shop, number),
                address: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                protocol: Protocol::Http1,
                state: WorkerState::Starting,
                gate: Gate::new(),
                weight: Worker::WEIGHT,
            };
            board.enter(&shop, worker);
        }
        let before = watched.borrow().clone();
        board.set(&shop, &InstanceId::new(&shop, 2), WorkerState::Ready);
        board.leave(&shop, &InstanceId::new(&shop, 1));
        assert_eq!(before.services["shop"].len(), 2, "a snapshot that was taken does not change");
        let after = watched.borrow().clone();
        assert_eq!(after.generation, 5);
        assert_eq!(after.ready("shop").count(), 1);
        let blog = ServiceName::new("blog").unwrap();
        board.open(&blog);
        board.open(&shop);
        assert_eq!(watched.borrow().services["shop"].len(), 1, "one that is there stays as it is");
        assert_eq!(watched.borrow().services["blog"].len(), 0);
        board.close(&blog);
        assert!(!watched.borrow().services.contains_key("blog"));
    }
}

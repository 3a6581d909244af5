//! The workers of one service, in order of age. Copies share all that is alike in them, so that a copy costs next to
//! nothing and a change costs the piece of the list that it is in; and what differs between two copies is found without
//! a look at what they share. So whoever follows a roster pays for the changes, however many workers there are, and who
//! has missed some pays for what they came to.

use std::{cmp::Ordering, fmt, ops::Index, sync::Arc};

use crate::{roster::Worker, service::InstanceId};

/// Workers in one piece of the list. A change copies one piece, and the list of pieces: for ten thousand workers those
/// are about as long.
const PIECE_MAX: usize = 64;

/// Neighbours that come to no more than this together become one piece.
const JOINED_MAX: usize = PIECE_MAX / 2;

/// In order of age, and never empty.
type Piece = Arc<Vec<Arc<Worker>>>;

/// The workers of one service, oldest first, which is by the number in their names. Cheap to clone.
#[derive(Clone, Default)]
pub struct Workers {
    pieces: Arc<Vec<Piece>>,
    len: usize,
}

/// What became of one worker between two copies. One whose gate is another one is another worker, whatever its name.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// As it was; `None` for one that was not there.
    pub before: Option<&'a Worker>,
    /// As it is; `None` for one that is no longer there.
    pub after: Option<&'a Worker>,
}

impl Workers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.pieces.iter().flat_map(|piece| piece.iter()).map(|worker| &**worker)
    }

    /// The worker of this name. O(log workers).
    pub fn get(&self, instance: &InstanceId) -> Option<&Worker> {
        let (piece, index) = self.find(instance)?;
        Some(&self.pieces[piece][index])
    }

    /// Adds a worker, in place of one that has its name.
    pub fn insert(&mut self, worker: Worker) {
        let at = self.piece_for(&worker.instance);
        let pieces = Arc::make_mut(&mut self.pieces);
        let is_last = at + 1 >= pieces.len();
        let Some(piece) = pieces.get_mut(at) else {
            pieces.push(Arc::new(vec![Arc::new(worker)]));
            self.len += 1;
            return;
        };
        match place(piece, &worker.instance) {
            Ok(index) => Arc::make_mut(piece)[index] = Arc::new(worker),
            Err(index) => {
                self.len += 1;
                let worker = Arc::new(worker);
                if piece.len() < PIECE_MAX {
                    Arc::make_mut(piece).insert(index, worker);
                } else if is_last && index == PIECE_MAX {
                    // The usual way, younger than all others: so pieces are full.
                    pieces.push(Arc::new(vec![worker]));
                } else {
                    let older = Arc::make_mut(piece);
                    let mut younger = older.split_off(PIECE_MAX / 2);
                    match index.checked_sub(older.len()) {
                        Some(index) => younger.insert(index, worker),
                        None => older.insert(index, worker),
                    }
                    pieces.insert(at + 1, Arc::new(younger));
                }
            }
        }
    }

    /// Changes the worker of this name, but for its name. Returns whether there is one.
    pub fn update(&mut self, instance: &InstanceId, change: impl FnOnce(&mut Worker)) -> bool {
        let Some((piece, index)) = self.find(instance) else { return false };
        let piece = Arc::make_mut(&mut Arc::make_mut(&mut self.pieces)[piece]);
        change(Arc::make_mut(&mut piece[index]));
        debug_assert_eq!(piece[index].instance, *instance, "its name is its place in the order");
        true
    }

    /// Takes the worker of this name out. Returns whether there was one.
    pub fn remove(&mut self, instance: &InstanceId) -> bool {
        let Some((at, index)) = self.find(instance) else { return false };
        let pieces = Arc::make_mut(&mut self.pieces);
        Arc::make_mut(&mut pieces[at]).remove(index);
        self.len -= 1;
        if pieces[at].is_empty() {
            pieces.remove(at);
        }
        // So that there are never many more pieces than full ones would be.
        for before in [at, at.saturating_sub(1)] {
            let fits = |pair: &[Piece]| pair[0].len() + pair[1].len() <= JOINED_MAX;
            if pieces.get(before..before + 2).is_some_and(fits) {
                let younger = pieces.remove(before + 1);
                Arc::make_mut(&mut pieces[before]).extend(younger.iter().cloned());
            }
        }
        true
    }

    /// What became of which workers from this copy to `after`, in order of age. Where the one was made from the other by
    /// a few changes, this costs those, and one comparison for each piece; otherwise it costs a look at each worker.
    pub fn changes_to<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = Change<'a>> {
        let is_same = self.is_same(after);
        let rest = |workers: &'a Self| Rest { pieces: if is_same { &[] } else { &workers.pieces }, index: 0 };
        Changes { before: rest(self), after: rest(after) }
    }

    /// Whether nothing was changed since the one was copied from the other, or both are empty.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pieces, &other.pieces) || self.is_empty() && other.is_empty()
    }

    /// The piece that has a worker of this name if any has: the last one that does not begin with a younger one.
    fn piece_for(&self, instance: &InstanceId) -> usize {
        let is_older = |piece: &Piece| by_age(&piece[0].instance, instance).is_le();
        self.pieces.partition_point(is_older).saturating_sub(1)
    }

    fn find(&self, instance: &InstanceId) -> Option<(usize, usize)> {
        let piece = self.piece_for(instance);
        let index = place(self.pieces.get(piece)?, instance).ok()?;
        Some((piece, index))
    }
}

/// Where the worker of this name is in a piece, or would be.
fn place(piece: &Piece, instance: &InstanceId) -> Result<usize, usize> {
    piece.binary_search_by(|worker| by_age(&worker.instance, instance))
}

/// The older one first. Names without a number, which no worker of this process has, have an order all the same.
fn by_age(one: &InstanceId, other: &InstanceId) -> Ordering {
    (one.number(), one).cmp(&(other.number(), other))
}

impl Index<usize> for Workers {
    type Output = Worker;

    /// The worker that has so many older ones. O(pieces).
    fn index(&self, mut index: usize) -> &Worker {
        for piece in self.pieces.iter() {
            if let Some(worker) = piece.get(index) {
                return worker;
            }
            index -= piece.len();
        }
        panic!("there are only {} workers", self.len);
    }
}

impl FromIterator<Worker> for Workers {
    fn from_iter<I: IntoIterator<Item = Worker>>(all: I) -> Self {
        let mut workers = Self::default();
        all.into_iter().for_each(|worker| workers.insert(worker));
        workers
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A walk through two copies side by side.
struct Changes<'a> {
    before: Rest<'a>,
    after: Rest<'a>,
}

/// What is left of one copy.
struct Rest<'a> {
    pieces: &'a [Piece],
    /// How far the first of them was walked through.
    index: usize,
}

impl<'a> Rest<'a> {
    fn first(&self) -> Option<&'a Arc<Worker>> {
        self.pieces.first()?.get(self.index)
    }

    fn step(&mut self) {
        self.index += 1;
        if self.pieces.first().is_some_and(|piece| piece.len() == self.index) {
            self.skip();
        }
    }

    fn skip(&mut self) {
        (self.pieces, self.index) = (&self.pieces[1..], 0);
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let Self { before, after } = self;
        loop {
            if let ([old, ..], [new, ..]) = (before.pieces, after.pieces)
                && (before.index, after.index) == (0, 0)
                && Arc::ptr_eq(old, new)
            {
                before.skip();
                after.skip();
                continue;
            }
            let (old, new) = (before.first(), after.first());
            let order = match (old, new) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => Ordering::Equal,
                (Some(old), Some(new)) => by_age(&old.instance, &new.instance),
            };
            if order.is_le() {
                before.step();
            }
            if order.is_ge() {
                after.step();
            }
            let (old, new) = (old.filter(|_| order.is_le()), new.filter(|_| order.is_ge()));
            if let (Some(old), Some(new)) = (old, new)
                && (Arc::ptr_eq(old, new) || old.is_as(new))
            {
                continue;
            }
            return Some(Change { before: old.map(|worker| &**worker), after: new.map(|worker| &**worker) });
        }
    }
}

#[cfg(test)]
mod tests;

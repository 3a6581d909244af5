//! Members in a circle, one after the other from a cursor on. They sit side by side in memory, so that any of them can be
//! drawn by a number, and each knows its neighbours in the circle, so that to come and to go costs the same however many
//! there are.

/// A circle of members, each with a key by which its owner knows it.
#[derive(Debug)]
pub(super) struct Ring<T> {
    seats: Vec<Seat<T>>,
    /// The seat whose turn is next; any number while there is none.
    cursor: usize,
}

#[derive(Debug)]
struct Seat<T> {
    key: usize,
    member: T,
    /// The seats before and after this one in the circle.
    before: usize,
    after: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { seats: Vec::new(), cursor: 0 }
    }
}

impl<T> Ring<T> {
    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// The member in a seat.
    pub(super) fn get(&self, seat: usize) -> Option<&T> {
        self.seats.get(seat).map(|seat| &seat.member)
    }

    /// Offers one turn after the other until one is taken, all had one, or there are no `offers` left.
    pub(super) fn next<R>(
        &mut self,
        offers: &mut usize,
        take: &mut impl FnMut(&T) -> Option<R>,
    ) -> Option<R> {
        for _ in 0..self.seats.len().min(*offers) {
            *offers -= 1;
            let seat = &self.seats[self.cursor];
            self.cursor = seat.after;
            if let Some(taken) = take(&seat.member) {
                return Some(taken);
            }
        }
        None
    }

    /// Lets so many turns pass.
    pub(super) fn skip(&mut self, turns: usize) {
        for _ in 0..turns.checked_rem(self.seats.len()).unwrap_or(0) {
            self.cursor = self.seats[self.cursor].after;
        }
    }

    /// Takes a member in right behind the cursor, so that its turn is the last one. Returns its seat.
    pub(super) fn insert(&mut self, key: usize, member: T) -> usize {
        let seat = self.seats.len();
        if seat == 0 {
            self.cursor = 0;
            self.seats.push(Seat { key, member, before: 0, after: 0 });
            return 0;
        }
        let (before, after) = (self.seats[self.cursor].before, self.cursor);
        self.seats.push(Seat { key, member, before, after });
        self.seats[before].after = seat;
        self.seats[after].before = seat;
        seat
    }

    /// Takes the member in a seat out. If another one has that seat now, returns its key.
    ///
    /// # Panics
    /// If there is no such seat.
    pub(super) fn remove(&mut self, seat: usize) -> (T, Option<usize>) {
        let Seat { before, after, .. } = self.seats[seat];
        self.seats[before].after = after;
        self.seats[after].before = before;
        if self.cursor == seat {
            self.cursor = after;
        }
        let gone = self.seats.swap_remove(seat);
        let last = self.seats.len();
        if seat == last {
            return (gone.member, None);
        }
        // The last one has moved: its neighbours are told, of which it may be one itself.
        let Seat { key, before, after, .. } = self.seats[seat];
        let moved = |of: usize| if of == last { seat } else { of };
        self.seats[moved(before)].after = seat;
        self.seats[moved(after)].before = seat;
        self.cursor = moved(self.cursor);
        (gone.member, Some(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a plain list whose first one is whose turn is next.
        #[test]
        fn as_a_list_that_is_turned(steps in proptest::collection::vec((0..5_u8, any::<usize>()), 1..200)) {
            let (mut ring, mut list) = (Ring::default(), Vec::new());
            let mut seats: Vec<usize> = Vec::new();
            for (number, (kind, any)) in steps.into_iter().enumerate() {
                match kind {
                    0 | 1 => {
                        prop_assert_eq!(ring.insert(number, number), seats.len());
                        seats.push(number);
                        list.push(number);
                    }
                    2 if !seats.is_empty() => {
                        let seat = any % seats.len();
                        let gone = seats.swap_remove(seat);
                        prop_assert_eq!(ring.remove(seat), (gone, seats.get(seat).copied()));
                        list.retain(|&member| member != gone);
                    }
                    3 => {
                        ring.skip(any);
                        let turns = any.checked_rem(list.len()).unwrap_or(0);
                        list.rotate_left(turns);
                    }
                    _ => {
                        let turn = ring.next(&mut { usize::MAX }, &mut |&member| Some(member));
                        prop_assert_eq!(turn, list.first().copied());
                        let turns = usize::from(turn.is_some());
                        list.rotate_left(turns);
                    }
                }
                let mut asked = Vec::new();
                // In two parts, which are one round together.
                let part = any % (list.len() + 1);
                for mut offers in [part, list.len() - part] {
                    let nobody = ring.next(&mut offers, &mut |&member| { asked.push(member); None::<()> });
                    prop_assert_eq!((nobody, offers), (None, 0));
                }
                prop_assert_eq!(&asked, &list, "a round in which nobody takes a turn changes nothing");
                prop_assert!(seats.iter().enumerate().all(|(seat, member)| ring.get(seat) == Some(member)));
            }
        }
    }
}

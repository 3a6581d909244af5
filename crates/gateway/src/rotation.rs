//! Whose turn it is: the members of a set one after the other, each as often as its weight says, spread as evenly as
//! can be. Members of one weight form a ring with a cursor, and the rings take turns by earliest due time, so that a
//! turn costs O(1) when all weights are equal and O(log weights) otherwise, however many members there are. Nor does it
//! matter for who comes and who goes.

mod ring;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use self::ring::Ring;

/// One turn of a ring whose members weigh 1 in all, in virtual time.
const LAP: u128 = 1 << 64;

/// Members and the order in which they have their turns. Each has a key, which is its own.
///
/// Among members of one weight, any two differ by at most one turn in any stretch of turns. A new member has its
/// first turn when all others of its weight had one; who leaves takes nobody's turn along.
#[derive(Debug)]
pub(crate) struct Rotation<T> {
    /// By weight, downwards; none is empty.
    rings: Vec<Weighed<T>>,
    /// When each ring has its next turn, in virtual time; only kept when there is more than one.
    order: BinaryHeap<Reverse<(u128, usize)>>,
    /// The virtual time of the last turn.
    clock: u128,
    /// The weight of each member and its seat in the ring of that weight. A tree, since a table would now and then be
    /// gone through as a whole.
    seats: BTreeMap<usize, (u32, usize)>,
    /// The sum of all weights.
    weight: u64,
}

/// Members of one weight.
#[derive(Debug)]
struct Weighed<T> {
    weight: u32,
    ring: Ring<T>,
    /// When its next turn is, in virtual time.
    due: u128,
    /// Members and weight of the rings before this one.
    members_before: usize,
    weight_before: u64,
}

impl<T> Weighed<T> {
    fn weight(&self) -> u64 {
        u64::from(self.weight) * self.ring.len() as u64
    }

    /// From one turn of this ring to its next.
    fn step(&self) -> u128 {
        LAP / u128::from(self.weight().max(1))
    }
}

impl<T> Default for Rotation<T> {
    fn default() -> Self {
        Self { rings: Vec::new(), order: BinaryHeap::new(), clock: 0, seats: BTreeMap::new(), weight: 0 }
    }
}

impl<T> Rotation<T> {
    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Offers turns in order until one is taken; a member that is offered one has had its turn. `None` when every member
    /// was asked, or as many as there are `offers`.
    pub(crate) fn next<R>(&mut self, offers: usize, mut take: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let mut offers = offers;
        if let [only] = &mut self.rings[..] {
            return only.ring.next(&mut offers, &mut take);
        }
        let mut asked = Vec::new();
        let mut taken = None;
        while taken.is_none()
            && offers > 0
            && let Some(Reverse((due, index))) = self.order.pop()
        {
            let weighed = &mut self.rings[index];
            self.clock = due;
            taken = weighed.ring.next(&mut offers, &mut take);
            weighed.due = due + weighed.step();
            let again = Reverse((weighed.due, index));
            // A ring with nobody to take the turn has lost it, and is not asked twice.
            if taken.is_some() { self.order.push(again) } else { asked.push(again) }
        }
        self.order.extend(asked);
        taken
    }

    /// One of the members, by a number below [`len`](Self::len).
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let ring = self.rings.partition_point(|ring| ring.members_before <= index).checked_sub(1)?;
        let Weighed { ring, members_before, .. } = &self.rings[ring];
        ring.get(index - members_before)
    }

    /// Any member, each as likely as its weight says; `draw` makes a number below the given one.
    pub(crate) fn any_by_weight(&self, draw: impl Fn(u64) -> u64) -> Option<&T> {
        if self.seats.is_empty() {
            return None;
        }
        let point = draw(self.weight);
        let ring = self.rings.partition_point(|ring| ring.weight_before <= point) - 1;
        let Weighed { ring, weight, weight_before, .. } = &self.rings[ring];
        ring.get(((point - weight_before) / u64::from(*weight)) as usize)
    }

    /// Takes a member in, with its weight (0 counts as 1), in place of one that has its key. O(log members + weights).
    pub(crate) fn insert(&mut self, key: usize, weight: u32, member: T) {
        self.remove(key);
        let weight = weight.max(1);
        let index = match self.rings.binary_search_by_key(&Reverse(weight), |ring| Reverse(ring.weight)) {
            Ok(index) => index,
            Err(index) => {
                let (ring, due) = (Ring::default(), u128::MAX);
                self.rings.insert(index, Weighed { weight, ring, due, members_before: 0, weight_before: 0 });
                index
            }
        };
        let weighed = &mut self.rings[index];
        let seat = weighed.ring.insert(key, member);
        // No later than as if they had all come at once: one alone would be due much later than many are.
        weighed.due = weighed.due.min(self.clock + weighed.step());
        self.seats.insert(key, (weight, seat));
        self.rings_changed();
    }

    /// Takes the member with this key out, if there is one. O(log members + weights).
    pub(crate) fn remove(&mut self, key: usize) -> Option<T> {
        let (weight, seat) = self.seats.remove(&key)?;
        let index = self.rings.binary_search_by_key(&Reverse(weight), |ring| Reverse(ring.weight)).ok()?;
        let ring = &mut self.rings[index].ring;
        let (member, moved) = ring.remove(seat);
        if let Some(moved) = moved {
            self.seats.insert(moved, (weight, seat));
        }
        if ring.len() == 0 {
            self.rings.remove(index);
        }
        self.rings_changed();
        Some(member)
    }

    /// Lets so many turns pass in each ring.
    pub(crate) fn skip(&mut self, turns: usize) {
        self.rings.iter_mut().for_each(|weighed| weighed.ring.skip(turns));
    }

    /// Brings up to date what is known about the rings as a whole. O(weights).
    fn rings_changed(&mut self) {
        let mut members = 0;
        self.weight = 0;
        for ring in &mut self.rings {
            (ring.members_before, ring.weight_before) = (members, self.weight);
            members += ring.ring.len();
            self.weight += ring.weight();
        }
        // When a ring's turn is does not change by that, or a light one might wait for ever among many changes.
        let dues = self.rings.iter().enumerate().map(|(index, ring)| Reverse((ring.due, index)));
        self.order = if self.rings.len() > 1 { dues.collect() } else { BinaryHeap::new() };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn turns(rotation: &mut Rotation<char>, count: usize) -> String {
        (0..count).map(|_| rotation.next(usize::MAX, |&member| Some(member)).unwrap()).collect()
    }

    fn add<T: Copy + Into<u32>>(rotation: &mut Rotation<T>, members: impl IntoIterator<Item = (u32, T)>) {
        for (weight, member) in members {
            rotation.insert(member.into() as usize, weight, member);
        }
    }

    fn remove(rotation: &mut Rotation<char>, members: &str) {
        for member in members.chars() {
            assert_eq!(rotation.remove(member as usize), Some(member));
        }
    }

    fn of(members: &str) -> Rotation<char> {
        let mut rotation = Rotation::default();
        add(&mut rotation, members.chars().map(|member| (1, member)));
        rotation
    }

    #[test]
    fn equals_take_turns() {
        assert_eq!(turns(&mut of("abc"), 7), "abcabca");
        let mut late = of("abc");
        late.skip(4);
        assert_eq!(turns(&mut late, 4), "bcab", "each core begins elsewhere");
        assert_eq!(of("").next(usize::MAX, |&member| Some(member)), None);
    }

    #[test]
    fn a_turn_that_is_not_taken_is_over() {
        let mut rotation = of("abcd");
        let not_b = |&member: &char| (member != 'b').then_some(member);
        let got: String = (0..6).map(|_| rotation.next(usize::MAX, not_b).unwrap()).collect();
        assert_eq!(got, "acdacd");
        let mut asked = 0;
        let nobody = rotation.next(usize::MAX, |_| {
            asked += 1;
            None::<char>
        });
        assert_eq!((nobody, asked), (None, 4));
        assert_eq!(turns(&mut rotation, 2), "ab", "and nothing has moved");
    }

    #[test]
    fn the_rotation_goes_on_when_members_come_and_go() {
        let mut rotation = of("abcde");
        assert_eq!(turns(&mut rotation, 3), "abc");
        remove(&mut rotation, "b");
        add(&mut rotation, [(1, 'x')]);
        assert_eq!(turns(&mut rotation, 10), "deacxdeacx");
        remove(&mut rotation, "dx");
        assert_eq!(turns(&mut rotation, 3), "eac");
        assert_eq!(rotation.remove('x' as usize), None);
        remove(&mut rotation, "ace");
        assert_eq!((rotation.len(), rotation.next(usize::MAX, |&member| Some(member))), (0, None));
        add(&mut rotation, [(1, 'z'), (1, 'z')]);
        assert_eq!((turns(&mut rotation, 2), rotation.len()), ("zz".into(), 1));
    }

    /// In any stretch of turns, members of one weight differ by one at most, also while others come and go.
    #[test]
    fn even_within_one_over_any_window() {
        let mut rotation = of("abcdefg");
        let mut all = String::new();
        for round in 0..40 {
            all += &turns(&mut rotation, 1 + round % 5);
            match round % 4 {
                1 => add(&mut rotation, [(1, 'x')]),
                3 => remove(&mut rotation, "x"),
                _ => {}
            }
        }
        let stayed: Vec<char> = all.chars().filter(|&member| member != 'x').collect();
        for from in 0..stayed.len() {
            let mut counts: BTreeMap<char, i32> = "abcdefg".chars().map(|member| (member, 0)).collect();
            for member in &stayed[from..] {
                *counts.get_mut(member).unwrap() += 1;
                let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
                assert!(most - least <= 1, "{counts:?} from {from} in {all}");
            }
        }
    }

    #[test]
    fn weights_are_exact_and_smooth() {
        let mut rotation = Rotation::default();
        add(&mut rotation, [(5, 'a'), (1, 'b'), (1, 'c')]);
        let got = turns(&mut rotation, 700);
        let count = |member| got.chars().filter(|&each| each == member).count();
        assert_eq!((count('a'), count('b'), count('c')), (500, 100, 100), "{got}");
        // Nobody waits longer than one turn more than its weight says, and the heavy one is not bunched.
        assert!(!got.contains("aaaaa"), "{got}");
        for weights in [[1, 2, 3], [10, 1, 1], [7, 7, 3], [1, 100, 10]] {
            let mut rotation = Rotation::default();
            add(&mut rotation, weights.into_iter().zip("abc".chars()));
            let sum: u32 = weights.iter().sum();
            let mut counts = BTreeMap::new();
            for turn in 1..=10 * sum {
                *counts.entry(turns(&mut rotation, 1)).or_insert(0) += 1;
                for (member, weight) in ["a", "b", "c"].into_iter().zip(weights) {
                    let wanted = f64::from(turn * weight) / f64::from(sum);
                    let got = f64::from(*counts.get(member).unwrap_or(&0));
                    assert!((wanted - got).abs() <= 2.0, "{weights:?}, turn {turn}: {member} had {got}");
                }
            }
        }
    }

    #[test]
    fn a_ring_with_nobody_to_take_its_turn_stops_no_other() {
        let mut rotation = Rotation::default();
        add(&mut rotation, [(9, 'a'), (2, 'b'), (1, 'c')]);
        let light = |&member: &char| (member != 'a').then_some(member);
        let got: String = (0..6).map(|_| rotation.next(usize::MAX, light).unwrap()).collect();
        assert_eq!(got.chars().filter(|&member| member == 'b').count(), 4, "{got}");
        assert_eq!(rotation.next(usize::MAX, |_| None::<char>), None);
    }

    #[test]
    fn draws_reach_every_member() {
        let mut rotation = Rotation::default();
        add(&mut rotation, [(1, 'a'), (3, 'b'), (1, 'c')]);
        let by = |points: u64, draw: &dyn Fn(u64) -> char| -> String { (0..points).map(draw).collect() };
        assert_eq!(by(3, &|index| *rotation.get(index as usize).unwrap()), "bac");
        assert_eq!(rotation.get(3), None);
        let weighted = by(5, &|point| *rotation.any_by_weight(|_| point).unwrap());
        assert_eq!(weighted, "bbbac");
        assert_eq!(Rotation::<char>::default().any_by_weight(|_| 0), None);
        assert_eq!(Rotation::<char>::default().get(0), None);
    }

    #[test]
    fn changes_starve_nobody() {
        let mut rotation = Rotation::default();
        add(&mut rotation, [(50, 'a'), (1, 'b')]);
        let mut got = String::new();
        for _ in 0..102 {
            add(&mut rotation, [(50, 'x')]);
            got += &turns(&mut rotation, 1);
            remove(&mut rotation, "x");
        }
        assert_eq!(got.matches('b').count(), 1, "half of a fiftieth, as there are two heavy ones: {got}");
    }

    #[test]
    fn many_weights_and_members() {
        let mut rotation = Rotation::default();
        add(&mut rotation, (0..10_000u32).map(|number| (number % 100, number)));
        assert_eq!(rotation.len(), 10_000);
        let mut counts = vec![0u32; 10_000];
        // 0 counts as 1, so the weights sum up to 100 × 4950 + 100.
        for _ in 0..495_100 {
            let number: u32 = rotation.next(usize::MAX, |&number| Some(number)).unwrap();
            counts[number as usize] += 1;
        }
        for (number, &count) in counts.iter().enumerate() {
            assert!(count.abs_diff((number as u32 % 100).max(1)) <= 1, "{number}: {count}");
        }
    }
}

//! Numbers in use, by how many holders each has.
//!
//! What is in use is kept as runs of neighbours beside the counts, so looking
//! for a free number steps over whole runs: a /64 costs what is allocated in
//! it, not what it could hold.

use std::collections::BTreeMap;

/// Numbers with their holders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    holders: BTreeMap<u128, u32>,
    /// Runs of used numbers, first → last, never touching one another.
    runs: BTreeMap<u128, u128>,
}

impl Used {
    /// One more holder of `number`.
    pub fn add(&mut self, number: u128) {
        let holders = self.holders.entry(number).or_default();
        *holders += 1;
        if *holders == 1 {
            self.join(number);
        }
    }

    /// One holder less; `number` is free when the last one goes.
    pub fn remove(&mut self, number: u128) {
        let Some(holders) = self.holders.get_mut(&number) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.holders.remove(&number);
            self.split(number);
        }
    }

    /// How many hold `number`.
    pub fn holders(&self, number: u128) -> u32 {
        self.holders.get(&number).copied().unwrap_or(0)
    }

    /// How many numbers are in use.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether no number is in use.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// How many numbers of `from..to` are in use. Costs one step for each.
    pub fn count(&self, from: u128, to: u128) -> usize {
        if from >= to {
            return 0;
        }
        self.holders.range(from..to).count()
    }

    /// A free number of `from..to`, the first at or after a seeded place,
    /// wrapping.
    pub fn free_in(&self, from: u128, to: u128, seed: u64) -> Option<u128> {
        let width = to.checked_sub(from).filter(|width| *width > 0)?;
        let start = from + u128::from(seed) % width;
        self.free_at(start, to).or_else(|| self.free_at(from, to))
    }

    fn free_at(&self, start: u128, to: u128) -> Option<u128> {
        let free = match self.run_of(start) {
            Some((_, last)) => last.checked_add(1)?,
            None => start,
        };
        (free < to).then_some(free)
    }

    fn run_of(&self, number: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.runs.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }

    fn join(&mut self, number: u128) {
        let mut first = number;
        let mut last = number;
        if let Some(before) = number.checked_sub(1)
            && let Some((start, _)) = self.run_of(before)
        {
            first = start;
        }
        if let Some(after) = number.checked_add(1)
            && let Some(end) = self.runs.remove(&after)
        {
            last = end;
        }
        self.runs.insert(first, last);
    }

    fn split(&mut self, number: u128) {
        let Some((first, last)) = self.run_of(number) else {
            return;
        };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_agree_with_plain_counts() {
        let mut used = Used::default();
        let mut model: BTreeMap<u128, u32> = BTreeMap::new();
        let mut seed = 7_u64;
        for step in 0..6_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            let number = u128::from(seed >> 33) % 66;
            match step % 3 {
                0 => {
                    used.add(number);
                    *model.entry(number).or_default() += 1;
                }
                1 => {
                    used.remove(number);
                    if let Some(holders) = model.get_mut(&number) {
                        *holders -= 1;
                        if *holders == 0 {
                            model.remove(&number);
                        }
                    }
                }
                _ => {
                    let (from, to) = (number / 2, 66);
                    let found = used.free_in(from, to, seed);
                    let free = (from..to).any(|number| !model.contains_key(&number));
                    assert_eq!(found.is_some(), free);
                    assert!(found.is_none_or(|number| {
                        (from..to).contains(&number) && !model.contains_key(&number)
                    }));
                }
            }
            assert_eq!(used.holders, model);
            let of_runs = used.runs.iter().flat_map(|(first, last)| *first..=*last);
            assert!(of_runs.eq(model.keys().copied()));
            let next = used.runs.iter().skip(1);
            let mut pairs = used.runs.iter().zip(next);
            assert!(pairs.all(|((_, last), (first, _))| last + 1 < *first));
        }
    }

    #[test]
    fn the_ends_of_the_number_line() {
        let mut used = Used::default();
        used.add(u128::MAX);
        used.add(u128::MAX - 1);
        used.add(0);
        assert_eq!(used.free_in(u128::MAX - 1, u128::MAX, 3), None);
        assert_eq!(used.free_in(0, 2, 0), Some(1));
        assert_eq!(used.free_in(5, 5, 0), None);
        assert_eq!(used.count(0, u128::MAX), 2);
        used.remove(9);
        assert_eq!(used.len(), 3);
    }
}

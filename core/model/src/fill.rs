//! In which order a persistent map is filled.

/// How many items are turned at a time.
const STRETCH: usize = 1024;

/// Sorted items in an order in which persistent maps take them with little room to
/// spare: of each stretch every second one, then those between.
///
/// A leaf of such a map has room for sixteen and is split in the middle. What comes
/// in ascending order never comes back to the lower half, so that the map ends half
/// empty; in this order the second ones fill what the first ones left.
pub fn by_turns<T>(sorted: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let mut rest = sorted.into_iter();
    std::iter::from_fn(move || {
        let stretch = (0..STRETCH).zip(rest.by_ref());
        let (first, second): (Vec<_>, Vec<_>) = stretch.partition(|(at, _)| at % 2 == 0);
        let some = !first.is_empty();
        some.then(|| first.into_iter().chain(second))
    })
    .flatten()
    .map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_once() {
        let order: Vec<usize> = by_turns(0..5).collect();
        assert_eq!(order, [0, 2, 4, 1, 3]);
        for count in [0, 1, STRETCH - 1, STRETCH, STRETCH + 1, 3 * STRETCH] {
            let mut order: Vec<usize> = by_turns(0..count).collect();
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count), "{count} items");
        }
    }
}

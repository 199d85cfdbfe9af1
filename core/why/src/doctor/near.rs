//! Which word was meant.

/// How many insertions, deletions, replacements and swaps of neighbours lead
/// from one word to the other (optimal string alignment).
pub(super) fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = last[j] + usize::from(a != b);
            let mut least = changed.min(last[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b;
            if swapped {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

/// Whether one word may be the other mistyped, shortened or lengthened.
pub(super) fn is_near(one: &str, other: &str) -> bool {
    let longest = one.chars().count().max(other.chars().count());
    let shortest = one.len().min(other.len());
    let holds = shortest >= 3 && (one.contains(other) || other.contains(one));
    holds || distance(&one.to_lowercase(), &other.to_lowercase()) <= (longest / 3).max(1)
}

/// Of `words`, the one that was most likely meant by `typed`; none if none is near.
pub fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let near = words.into_iter().filter(|word| is_near(typed, word));
    near.min_by_key(|word| (distance(typed, word), *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_one_mistake() {
        for (one, other, apart) in [
            ("web", "wbe", 1),
            ("web", "web", 0),
            ("", "web", 3),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(one, other), apart, "{one} {other}");
            assert_eq!(distance(other, one), apart, "{other} {one}");
        }
    }

    #[test]
    fn the_nearest_word_is_meant() {
        let words = ["web", "api", "web-frontend"];
        assert_eq!(nearest("wbe", words), Some("web"));
        assert_eq!(nearest("frontend", words), Some("web-frontend"));
        assert_eq!(nearest("Web", words), Some("web"));
        assert_eq!(nearest("postgres", words), None);
    }
}

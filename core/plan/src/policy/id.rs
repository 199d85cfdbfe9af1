//! Names that follow from content, so that what is alike is kept once, and has the
//! same name again after a restart.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};

/// Names a value by its content.
macro_rules! named_by_content {
    ($(#[$doc:meta])* $vis:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        $vis struct $name(u128);

        impl $name {
            /// The name of what has this content.
            pub(super) fn of(content: &impl Hash) -> Self {
                Self(digest(content))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

named_by_content!(
    /// Names a [`PolicySet`](super::PolicySet).
    pub SetId
);
named_by_content!(
    /// Names [`Peers`](super::Peers).
    pub PeersId
);
named_by_content!(
    /// Names a [`Term`](super::Term).
    pub(super) TermId
);

/// 128 bits, so that two contents never meet by chance: two hashes that begin
/// differently.
fn digest(content: &impl Hash) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        content.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

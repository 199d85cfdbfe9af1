//! Resource quantities (`100m`, `1.5Gi`, `2e3`): read and compared exactly.

/// A quantity in billionths, the smallest unit that Kubernetes knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// What a malformed quantity is answered with.
pub const MESSAGE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

impl Quantity {
    /// Reads a quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = digits
            .find(|char: char| !char.is_ascii_digit() && char != '.')
            .unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (base, exponent) = scale(suffix)?;
        let fraction = &fraction[..fraction.len().min(12)];
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let down = u32::try_from(fraction.len()).ok()?;
        let mut nano = mantissa.checked_mul(base)?;
        let shift = exponent + 9 - i64::from(down);
        let power = 10_i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
        nano = match shift >= 0 {
            true => nano.checked_mul(power)?,
            // Rounded up, as Kubernetes does with what is too precise.
            false => nano.checked_add(power - 1)? / power,
        };
        Some(Self(if text.starts_with('-') { -nano } else { nano }))
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// The factor and the power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i64)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (exponent.abs() <= 18).then_some((1, exponent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_the_values() {
        let ascending = [
            "-1", "0", "1n", "100m", "0.5", "1", "1.5", "1k", "1Ki", "1e6", "1Mi", "1.5Gi", "2Gi",
            "1Ei",
        ];
        for pair in ascending.windows(2) {
            assert!(
                Quantity::parse(pair[0]).unwrap() < Quantity::parse(pair[1]).unwrap(),
                "{pair:?}"
            );
        }
        assert_eq!(Quantity::parse("1000m"), Quantity::parse("1"));
        assert_eq!(Quantity::parse("0.1"), Quantity::parse("100m"));
        for bad in ["", "x", "1.2.3", "1 Gi", "1gi", "--1", ".", "1e"] {
            assert_eq!(Quantity::parse(bad), None, "{bad}");
        }
    }
}

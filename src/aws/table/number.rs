//! Parses DynamoDB's numbers, decimal text of up to 38 digits, exactly: no floats. Pure.

/// A whole number from 0 to a billion, also as `1.0` or `1E1`; `None` for any other.
pub(crate) fn integer(text: &str) -> Option<u64> {
    integer_up_to(text, 1_000_000_000)
}

/// The same up to `max`, which has at most 18 digits.
pub(crate) fn integer_up_to(text: &str, max: u64) -> Option<u64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let mantissa = mantissa.strip_prefix('+').unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 150 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let dropped = i32::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    if !(0..=18).contains(&exponent) || significant.len() > 18 {
        return None;
    }
    let value = significant.parse::<u64>().ok()?.checked_mul(10_u64.pow(exponent.unsigned_abs()))?;
    (value <= max).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whole_numbers_are_parsed_in_any_notation(value in 0_u64..=1_000_000_000, zeros in 0_usize..20, shift in 0_usize..9) {
            prop_assert_eq!(integer(&value.to_string()), Some(value));
            prop_assert_eq!(integer(&format!("{value}.{}", "0".repeat(zeros))), Some(value));
            let small = value % 1_000;
            prop_assert_eq!(integer(&format!("{small}{}E-{shift}", "0".repeat(shift))), Some(small));
            prop_assert_eq!(integer(&format!("{small}.{}1", "0".repeat(zeros))), None);
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[0-9eE.+-]{0,20}") {
            if let Some(value) = integer(&text) {
                let float: f64 = text.parse().expect("a number");
                prop_assert!((float - value as f64).abs() < 1e-3, "{} {}", text, value);
            }
        }
    }
}

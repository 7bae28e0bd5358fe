//! A few columns of a table of a hundred: where they stand, and how to get to them without looking at the others. Pure.

/// Where the wanted columns of a table stand.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Their places, from 0.
    places: Vec<usize>,
    /// How many commas follow the last of them in a row.
    tail: usize,
}

impl Columns {
    /// The columns at these places of a table that has `count` of them.
    pub(super) fn new(places: &[usize], count: usize) -> Self {
        let mut places = places.to_vec();
        places.sort_unstable();
        let tail = count.saturating_sub(1 + places.last().copied().unwrap_or(0));
        Columns { places, tail }
    }

    /// Gives `take` the row before `end` from each wanted column's field on; it tells how long
    /// the field is, with the comma that ends it, or that this is no use. None then, and where the row has another number of
    /// commas. It must have no quotes; what follows it in `rows` may be looked at.
    pub(super) fn pass(&self, rows: &[u8], end: usize, mut take: impl FnMut(&[u8]) -> Option<usize>) -> Option<()> {
        let (mut at, mut column) = (0, 0);
        for place in &self.places {
            at += commas(&rows[at..], place - column)?;
            // Its comma is left for the next one.
            at += take(rows.get(at..end)?)? - 1;
            column = *place;
        }
        at += commas(&rows[at..], self.tail)?;
        (at == end).then_some(())
    }
}

/// How long `bytes` is to the end of its first `count` commas; None where it has fewer. In blocks: between two fields that
/// matter lie up to forty, most of one byte, and looking for each comma takes four times as long.
fn commas(bytes: &[u8], mut count: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut rest = bytes;
    while let Some((block, more)) = rest.split_first_chunk::<32>() {
        let here = usize::from(block.iter().map(|byte| u8::from(*byte == b',')).sum::<u8>());
        if here >= count {
            break;
        }
        (count, rest) = (count - here, more);
    }
    while let Some((eight, more)) = rest.split_first_chunk::<8>() {
        let other = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b','));
        // The highest bit of each byte that is a comma; then, in each byte, how many there are up to it.
        let commas = !(((other & !HIGH) + !HIGH) | other) & HIGH;
        let counts = (commas >> 7).wrapping_mul(ONES);
        let here = (counts >> 56) as usize;
        if here >= count {
            let enough = ((counts | HIGH) - ONES * count as u64) & HIGH;
            let place = if count == 0 { 0 } else { enough.trailing_zeros() as usize / 8 + 1 };
            return Some(bytes.len() - rest.len() + place);
        }
        (count, rest) = (count - here, more);
    }
    while count > 0 {
        let (byte, more) = rest.split_first()?;
        (count, rest) = (count - usize::from(*byte == b','), more);
    }
    Some(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn commas_are_counted_alike_in_blocks_and_one_by_one(text in "[,a-c\u{ac}-\u{ae}]{0,200}", count in 0_usize..120) {
            let ends = || text.match_indices(',').map(|(place, _)| place + 1);
            let plain = if count == 0 { Some(0) } else { ends().nth(count - 1) };
            proptest::prop_assert_eq!(commas(text.as_bytes(), count), plain);
        }

        #[test]
        fn the_fields_are_those_that_a_split_gives(
            fields in proptest::collection::vec("[a-z]{0,12}", 1..60),
            places in proptest::collection::btree_set(0_usize..60, 1..6),
            more in "[a-z,]{0,9}",
        ) {
            let row = fields.iter().map(|field| format!("{field},")).collect::<String>();
            let places: Vec<usize> = places.into_iter().collect();
            // As in a head that ends with a comma, too.
            let columns = Columns::new(&places, fields.len() + 1);
            let mut taken = Vec::new();
            let passed = columns.pass(format!("{row}{more}").as_bytes(), row.len(), |rest| {
                let length = rest.iter().position(|byte| *byte == b',')?;
                taken.push(String::from_utf8_lossy(&rest[..length]).into_owned());
                Some(length + 1)
            });
            let wanted: Option<Vec<_>> = places.iter().map(|place| fields.get(*place).cloned()).collect();
            proptest::prop_assert_eq!(passed.is_some(), wanted.is_some());
            if let Some(wanted) = wanted {
                proptest::prop_assert_eq!(taken, wanted);
            }
            proptest::prop_assert_eq!(Columns::new(&places, fields.len() + 2).pass(row.as_bytes(), row.len(), |rest| {
                Some(rest.iter().position(|byte| *byte == b',')? + 1)
            }), None);
        }
    }
}

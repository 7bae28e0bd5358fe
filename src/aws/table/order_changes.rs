//! Gives and lifts orders, for the commands.

use std::collections::BTreeMap;

use super::codec::{MARKER_SLOT, ORDERS, key};
use super::dynamodb::{Attribute, get_item};
use super::orders::{entry, read, size, update, without};
use super::schema::ATTEMPT_TIMEOUT;
use super::store::{SlotTable, WRITE_TIMEOUT};
use crate::aws::error::AwsError;
use crate::order::{Order, Orders, Target};

/// An order that takes the item above this is refused: every client reads the item each turn, for half a read unit up to 4 KB.
const MAX_ITEM_BYTES: usize = 4_000;
/// How often a change is tried, if other hands change the orders at the same time.
const TRIES: usize = 8;

impl SlotTable {
    /// Gives and lifts orders, all or none, by an update of slot 1's item on condition that its orders are as they were read.
    /// An order replaces one with the same target; entries that cannot be read stay. `allows` is asked about the orders that it would
    /// stand beside, and its error is passed on. Takes up to 10 s.
    ///
    /// # Errors
    /// [`AwsError::Table`] if there is no such item, its orders are no map or have no room, others keep changing them, or it is not
    /// known whether the change was made; else that of the call.
    pub fn change_orders(
        &mut self,
        given: &[Order],
        lifted: &[Target],
        allows: &dyn Fn(&Orders) -> Result<(), String>,
    ) -> Result<Result<(), String>, AwsError> {
        let budget = self.aws.budget(WRITE_TIMEOUT, ATTEMPT_TIMEOUT);
        for _ in 0..TRIES {
            let item = get_item(&self.aws, &self.name, &key(MARKER_SLOT), true, None, &budget)
                .map_err(|error| self.explain_missing(error))?;
            let Some(item) = item else {
                let text =
                    "has no row of slot 1, where orders are kept; a server that leads writes it: start `hsdo --server`";
                return Err(self.refused(text));
            };
            let before = item.get(ORDERS);
            if let Err(why) = allows(&read(before)) {
                return Ok(Err(why));
            }
            if before.is_some_and(|before| !matches!(before, Attribute::M(_))) {
                let text = format!("has orders that are no map ({ORDERS} of slot 1's item): remove the attribute");
                return Err(self.refused(&text));
            }
            let is_gone = |key: &str, _: &Attribute| {
                Target::parse(key)
                    .is_ok_and(|target| lifted.contains(&target) || given.iter().any(|order| order.target == target))
            };
            let mut after = without(before, is_gone);
            after.extend(given.iter().map(|order| (order.target.to_string(), entry(order))));
            let mut grown: BTreeMap<&str, &Attribute> =
                item.iter().map(|(name, value)| (name.as_str(), value)).collect();
            let value = Attribute::M(after.clone());
            grown.insert(ORDERS, &value);
            let bytes: usize = grown.into_iter().map(|(name, value)| name.len() + size(value)).sum();
            let grows = size(&value) > before.map_or(0, size);
            if grows && bytes > MAX_ITEM_BYTES {
                let text = format!(
                    "has no room for this: slot 1's item would have {bytes} bytes of {MAX_ITEM_BYTES}; lift orders that are no \
                     longer needed, or order zones or groups in place of single instances"
                );
                return Err(self.refused(&text));
            }
            match self.update(&update(before, after.clone(), None), &budget) {
                Ok(true) => return Ok(Ok(())),
                Ok(false) => {}
                // The response may be lost, and the change made.
                Err(error) if error.is_access_denied() => return Err(error),
                Err(error) => {
                    let again = self.aws.budget(ATTEMPT_TIMEOUT, ATTEMPT_TIMEOUT);
                    return match get_item(&self.aws, &self.name, &key(MARKER_SLOT), true, None, &again) {
                        Ok(Some(item)) if item.get(ORDERS) == Some(&value) => Ok(Ok(())),
                        Ok(Some(item)) if !item.contains_key(ORDERS) && after.is_empty() => Ok(Ok(())),
                        Ok(_) => Err(error),
                        Err(_) => Err(self.refused(&format!(
                            "may or may not have taken it: {error}; look with hsdo status, and repeat it"
                        ))),
                    };
                }
            }
        }
        Err(self.refused("has orders that others keep changing: try again"))
    }

    fn refused(&self, text: &str) -> AwsError {
        AwsError::Table(format!("table {:?} {text}", self.name))
    }
}

//! Manual changes to the table and to HAProxy, by an operator or another program, and how they are undone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::common::moto::{Item, text_of};
use crate::fleet::ip;
use crate::{BASE, Chaos, SLOTS};

/// An attribute that hsdo does not know and must preserve.
const UNKNOWN: &str = "Owner";
/// An address that no instance has.
const GHOST: &str = "127.3.1.1";

/// An edit to undo at the end of the round.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    row: u32,
    attribute: &'static str,
    before: Option<Value>,
    after: Value,
    /// The instance that held the row.
    name: String,
    /// Delete the row instead, for hsdo to recreate it.
    delete: bool,
}

impl Chaos {
    pub(crate) fn edit_table(&mut self) {
        self.forget_orders();
        let items = self.bed.aws().with_table_locked(|| self.bed.moto().items());
        let slots: Vec<u32> = items.keys().copied().filter(|id| (1..=SLOTS).contains(id)).collect();
        if slots.is_empty() {
            return;
        }
        let taken: Vec<u32> = slots.iter().copied().filter(|id| name_of(&items[id]) != "none").collect();
        let of_somebody = self.random.percent(80) && !taken.is_empty();
        let row = *self.random.pick(if of_somebody { &taken } else { &slots });
        let name = name_of(&items[&row]);
        match self.random.below(15) {
            0 | 1 => {
                self.note_edit(&format!("row {row} of {name} is deleted"), "row lost");
                self.may_move(&name);
                self.unknown_attributes.remove(&row);
                self.with_moto_locked(|moto| moto.delete_item(row));
            }
            2 => {
                self.note_edit("the table is emptied", "table emptied");
                self.all_may_move();
                self.unknown_attributes.clear();
                self.with_moto_locked(|moto| items.keys().for_each(|id| moto.delete_item(*id)));
            }
            3 | 4 => {
                let spoilt = [
                    ("IPAddress", json!({"S": "127.1.0.9; shutdown frontend http-back"})),
                    ("IPAddress", json!({"N": "5"})),
                    ("Weight", json!({"N": "300"})),
                    ("Weight", json!({"S": "heavy"})),
                    ("BackendServerStatus", json!({"S": "perhaps"})),
                    ("ServerName", json!({"S": ""})),
                    ("ServerName", json!({"L": []})),
                    ("LastWeightUpdate", json!({"S": "yesterday"})),
                ];
                let (attribute, value) = self.random.pick(&spoilt).clone();
                // If its address cannot be read, it is seated again elsewhere.
                self.may_move(&name);
                let delete = self.random.percent(50);
                self.put(&items[&row], row, attribute, value, delete, "row corrupted");
            }
            5 => {
                let weight = *self.random.pick(&[1, 3, 256]);
                self.note_edit(&format!("row {row} of {name}: weight {weight}"), "weight");
                self.with_moto_locked(|moto| moto.update_item(row, &json!({"Weight": {"N": weight.to_string()}})));
            }
            6 if name != "none"
                && self.fleet.scene().ordered.is_empty()
                && self.edits.iter().all(|edit| edit.attribute != "BackendServerStatus") =>
            {
                self.leave_rotations(&BTreeSet::from([name.clone()]));
                self.put(&items[&row], row, "BackendServerStatus", json!({"S": "disabled"}), false, "disabled");
            }
            7 | 8 => {
                let free = slots.iter().copied().find(|id| !taken.contains(id));
                if let (Some(free), false) = (free, name == "none") {
                    self.note_edit(&format!("row {free} becomes a copy of row {row}, of {name}"), "duplicate address");
                    self.may_move(&name);
                    let mut copy = items[&row].clone();
                    copy.retain(|key, _| key != "BackendServerID" && !key.starts_with("Hsdo") && key != UNKNOWN);
                    self.with_moto_locked(|moto| moto.update_item(free, &Value::Object(copy)));
                }
            }
            9 => {
                let owner = format!("ops-{}", self.random.below(1000));
                self.note_edit(&format!("row {row} gets an attribute, {owner}"), "unknown attribute");
                self.with_moto_locked(|moto| moto.update_item(row, &json!({UNKNOWN: {"S": owner}})));
                self.unknown_attributes.insert(row, owner);
            }
            10 | 11 => self.edit_marker(),
            12 => {
                self.note_edit("items that are not slots", "foreign items");
                let foreign = |id: i64| json!({"BackendServerID": {"N": id.to_string()}, "IPAddress": {"S": "x"}});
                self.with_moto_locked(|moto| [0, -3, 99_999_999].iter().for_each(|id| moto.put_item(&foreign(*id))));
            }
            13 => {
                self.note_edit("rows above the list, a free one and one of a ghost", "rows gained");
                let ghost: IpAddr = GHOST.parse().expect("an address");
                self.bed.web().serve("ghost", ghost);
                self.allowed.insert("ghost".to_owned());
                for back in self.sites.iter().flat_map(|site| &site.backs) {
                    back.watcher.allow(&[ghost].into());
                }
                self.with_moto_locked(|moto| {
                    moto.put_server(SLOTS + 1, GHOST, "ghost", None, 5);
                    moto.put_free(SLOTS + 2);
                });
            }
            _ => {
                self.note_edit(&format!("row {row} of {name}: time"), "time");
                let time = *self.random.pick(&["2999-01-01 00:00:00.000000", "1999-01-01T00:00:00"]);
                self.with_moto_locked(|moto| moto.update_item(row, &json!({"LastWeightUpdate": {"S": time}})));
            }
        }
    }

    fn edit_marker(&mut self) {
        let attribute = *self.random.pick(&["HsdoLeader", "HsdoHeartbeat", "HsdoVersion"]);
        let values = [
            Value::Null,
            Value::Null,
            json!({"S": "ghost/1"}),
            json!({"S": ""}),
            json!({"N": "-3"}),
            json!({"N": "7"}),
            json!({"N": "1e30"}),
            json!({"N": "1000000000000001"}),
            json!({"L": []}),
            json!({"NULL": true}),
        ];
        let value = self.random.pick(&values).clone();
        self.note_edit(&format!("{attribute} becomes {value}"), "marker");
        self.with_moto_locked(|moto| {
            if value.is_null() {
                moto.remove_attribute(1, attribute);
            } else if moto.items().contains_key(&1) {
                moto.update_item(1, &json!({attribute: value}));
            }
        });
    }

    fn put(&mut self, item: &Item, row: u32, attribute: &'static str, after: Value, delete: bool, what: &str) {
        self.note_edit(&format!("row {row} of {}: {attribute} becomes {after}", name_of(item)), what);
        self.with_moto_locked(|moto| moto.update_item(row, &json!({attribute: after})));
        let before = item.get(attribute).cloned();
        self.edits.push(Edit { row, attribute, before, after, name: name_of(item), delete });
    }

    fn note_edit(&mut self, what: &str, kind: &str) {
        self.say(&format!("by hand: {what}"));
        self.count(&format!("by hand: {kind}"));
    }

    fn with_moto_locked(&self, act: impl FnOnce(&crate::common::moto::Moto)) {
        self.bed.aws().with_table_locked(|| act(self.bed.moto()));
    }

    /// It may move. A single one stays in rotation throughout; several may swap slots.
    fn may_move(&mut self, name: &str) {
        self.moved.insert(name.to_owned());
        self.unseated.insert(name.to_owned());
        if self.unseated.len() > 1 {
            self.leave_rotations(&self.unseated);
        }
    }

    pub(crate) fn leave_rotations(&self, names: &BTreeSet<String>) {
        let scene = self.fleet.scene();
        let addresses = names.iter().filter_map(|name| scene.instances.get(name)).map(ip).collect();
        for back in self.sites.iter().flat_map(|site| &site.backs) {
            back.watcher.release(&addresses);
        }
    }

    fn all_may_move(&mut self) {
        self.moved.extend(self.fleet.scene().instances.into_keys());
        for back in self.sites.iter().flat_map(|site| &site.backs) {
            back.watcher.release_all();
        }
    }

    /// Undoes what hsdo leaves alone or cannot read.
    pub(crate) fn undo_edits(&mut self) {
        for edit in std::mem::take(&mut self.edits) {
            let items = self.bed.aws().with_table_locked(|| self.bed.moto().items());
            let Some(item) = items.get(&edit.row) else { continue };
            // Another instance holds it by now.
            if item.get(edit.attribute) != Some(&edit.after)
                || (edit.attribute != "ServerName" && name_of(item) != edit.name)
            {
                continue;
            }
            self.say(&format!("by hand: row {} is repaired", edit.row));
            // Slot 1's item carries the lease: if another server takes over after the deletion, the row comes back
            // free.
            let delete = edit.delete && edit.row != 1;
            if delete {
                self.unknown_attributes.remove(&edit.row);
            }
            self.with_moto_locked(|moto| match &edit.before {
                Some(before) if !delete => moto.update_item(edit.row, &json!({edit.attribute: before})),
                _ => moto.delete_item(edit.row),
            });
        }
        // Rows above the list size stay: a client that has not seen one become free yet would ignore a missing one.
        self.with_moto_locked(|moto| [0, -3, 99_999_999].iter().for_each(|id| moto.delete_any_item(*id)));
    }

    /// Whether an operator's edit keeps a server out.
    pub(crate) fn has_disabled_rows(&self) -> bool {
        self.edits.iter().any(|edit| edit.attribute == "BackendServerStatus")
    }

    /// Reports an unknown attribute that was not preserved.
    pub(crate) fn lost_attribute(&self, items: &BTreeMap<u32, Item>) -> Option<String> {
        let lost = |(row, owner): &(&u32, &String)| {
            items.get(row).is_none_or(|item| text_of(item, UNKNOWN).as_ref() != Some(owner))
        };
        self.unknown_attributes
            .iter()
            .find(lost)
            .map(|(row, owner)| format!("row {row} has lost its attribute {owner}"))
    }

    /// Sets a server of one HAProxy to drain or maintenance, as an operator does.
    pub(crate) fn hold_server(&mut self, place: usize) {
        let back = self.sites[place].backs[0].name;
        let Ok(servers) = self.sites[place].haproxy.try_servers(back) else { return };
        let serving: Vec<(String, String)> = servers
            .into_iter()
            .filter(|(_, server)| server.takes_traffic() && server.status == "UP")
            .map(|(name, server)| (name, server.addr))
            .collect();
        // Another one must be there to serve.
        if !self.fleet.scene().ordered.is_empty() || serving.len() < 2 || !self.sites[place].held.is_empty() {
            return;
        }
        let (server, address) = self.random.pick(&serving).clone();
        let state = *self.random.pick(&["drain", "maint"]);
        debug_assert!(server.starts_with(BASE));
        let site = &mut self.sites[place];
        let bare = address.rsplit_once(':').and_then(|(address, _)| address.parse::<IpAddr>().ok());
        for back in &site.backs {
            back.watcher.release(&bare.into_iter().collect());
        }
        if site.haproxy.try_command(&format!("set server {back}/{server} state {state}")).is_ok() {
            site.held.insert((server.clone(), address));
        }
        let name = site.name;
        self.note_edit(&format!("{server} of {name} is set to {state}"), &format!("operator's {state}"));
    }

    /// Sets the held servers ready again.
    pub(crate) fn release_held(&mut self) {
        let scene = self.fleet.scene();
        for site in &mut self.sites {
            let back = &site.backs[0];
            for (server, address) in std::mem::take(&mut site.held) {
                let bare = address.rsplit_once(':').and_then(|(address, _)| address.parse::<IpAddr>().ok());
                let now = site.haproxy.servers(back.name).remove(&server).expect("a template does not change");
                // A leaving instance may come back and would still be held.
                if now.addr == address && scene.instances.values().any(|instance| Some(ip(instance)) == bare) {
                    site.haproxy.command(&format!("set server {}/{server} state ready", back.name));
                }
            }
        }
    }
}

fn name_of(item: &Item) -> String {
    text_of(item, "ServerName").unwrap_or_default()
}

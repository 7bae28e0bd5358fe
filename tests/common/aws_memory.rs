//! AWS in this process: a group of instances, and a table with DynamoDB's conditions and isolated transactions, fast
//! enough that a bench measures hsdo. It records who wrote what.
//!
//! It understands the expressions that hsdo sends (`SET`, `REMOVE`, equality, `attribute_not_exists`, joined by `AND`)
//! and panics in a connection's thread on any other. It proves nothing about DynamoDB itself; moto is for that.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::http::{Listener, Request, Response, lock, read_request, write_response};

/// The table of reports.
pub const REPORTS: &str = "reports";
const KEY: &str = "BackendServerID";

/// An item in DynamoDB's JSON.
pub type Item = Map<String, Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub address: Ipv4Addr,
}

impl Instance {
    /// The instance of that number, at 127.2.x.y.
    pub fn number(number: u32) -> Self {
        let [_, _, high, low] = (number + 1).to_be_bytes();
        Instance { id: format!("i-{number:017x}"), address: Ipv4Addr::new(127, 2, high, low) }
    }
}

/// A write that took effect.
#[derive(Clone, Debug)]
pub struct Write {
    pub at: Instant,
    /// The access key that signed it.
    pub writer: String,
    /// The items before and after it, by slot.
    pub items: Vec<(u32, Option<Item>, Item)>,
}

#[derive(Debug, Default)]
struct State {
    group: String,
    instances: Vec<Instance>,
    items: BTreeMap<u32, Item>,
    history: Vec<Write>,
    recording: bool,
    /// Responses to transactions, by token.
    answered: BTreeMap<String, Arc<Vec<u8>>>,
    calls: BTreeMap<String, u64>,
    read_units: f64,
    write_units: f64,
    refused: u64,
    scan: Option<Arc<Vec<u8>>>,
    groups: Option<Arc<Vec<u8>>>,
    described: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
pub struct AwsMemory {
    listener: Listener,
    state: Arc<Mutex<State>>,
}

/// Usage since the start, or since [`AwsMemory::forget`].
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub calls: BTreeMap<String, u64>,
    /// Read units by DynamoDB's rules.
    pub read_units: f64,
    /// Write units by DynamoDB's rules.
    pub write_units: f64,
    /// Writes whose condition failed.
    pub refused: u64,
}

impl Usage {
    pub fn count(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }
}

impl AwsMemory {
    /// An empty table, and a group `web` of these instances, all in service.
    pub fn start(instances: Vec<Instance>) -> Self {
        let state = Arc::new(Mutex::new(State { group: "web".to_owned(), instances, ..State::default() }));
        let shared = Arc::clone(&state);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener =
            Listener::start(any, move |reader| serve(reader, &shared)).expect("some port of loopback is free");
        AwsMemory { listener, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// Records every write from now on, for [`AwsMemory::history`].
    pub fn record_history(&self) {
        self.lock().recording = true;
    }

    /// The recorded writes, in order.
    pub fn history(&self) -> Vec<Write> {
        self.lock().history.clone()
    }

    pub fn set_instances(&self, instances: Vec<Instance>) {
        let mut state = self.lock();
        (state.instances, state.groups, state.described) = (instances, None, None);
    }

    pub fn items(&self) -> BTreeMap<u32, Item> {
        self.lock().items.clone()
    }

    /// Edits an item as another writer would, without touching the marker.
    pub fn edit(&self, id: u32, change: impl FnOnce(&mut Item)) {
        let mut state = self.lock();
        let item = state.items.entry(id).or_insert_with(|| key_of(id));
        change(item);
        state.scan = None;
    }

    pub fn clear(&self) {
        let mut state = self.lock();
        state.items.clear();
        state.scan = None;
    }

    pub fn usage(&self) -> Usage {
        let state = self.lock();
        Usage {
            calls: state.calls.clone(),
            read_units: state.read_units,
            write_units: state.write_units,
            refused: state.refused,
        }
    }

    /// Resets the usage.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.calls.clear();
        (state.read_units, state.write_units, state.refused) = (0.0, 0.0, 0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn key_of(id: u32) -> Item {
    Item::from_iter([(KEY.to_owned(), json!({ "N": id.to_string() }))])
}

fn serve(mut reader: BufReader<TcpStream>, state: &Mutex<State>) {
    while let Ok(Some(request)) = read_request(&mut reader) {
        let (status, body) = lock(state).answer(&request);
        let response = Response { status, headers: Vec::new(), body: Vec::new() };
        if write_shared(reader.get_mut(), response, &body).is_err() {
            return;
        }
    }
}

/// Sends a shared body without copying it.
fn write_shared(stream: &mut TcpStream, response: Response, body: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    if body.len() < 32 * 1024 {
        return write_response(stream, &Response { body: body.to_vec(), ..response }, false);
    }
    write!(stream, "HTTP/1.1 {} Answer\r\nContent-Length: {}\r\n\r\n", response.status, body.len())?;
    stream.write_all(body)
}

type Reply = (u16, Arc<Vec<u8>>);

fn ok(value: &Value) -> Reply {
    (200, Arc::new(value.to_string().into_bytes()))
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        let target = request.headers.get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let Some(operation) = target else { return self.query(&String::from_utf8_lossy(&request.body)) };
        self.count(operation);
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let writer = request
            .headers
            .get("authorization")
            .and_then(|text| text.split("Credential=").nth(1)?.split('/').next())
            .unwrap_or_default();
        match operation {
            "GetItem" => self.get_item(&body),
            "Scan" => self.scan(&body),
            // Reports are written, and read by nobody.
            "UpdateItem" | "DeleteItem" if body["TableName"] == REPORTS => ok(&json!({})),
            "UpdateItem" => self.update_item(&body, writer),
            "TransactWriteItems" => self.transact(&body, writer),
            "DescribeTable" => ok(&json!({ "Table": {
                "TableStatus": "ACTIVE", "KeySchema": [{ "AttributeName": KEY, "KeyType": "HASH" }],
                "AttributeDefinitions": [{ "AttributeName": KEY, "AttributeType": "N" }] } })),
            other => panic!("unsupported operation {other}"),
        }
    }

    fn count(&mut self, operation: &str) {
        *self.calls.entry(operation.to_owned()).or_default() += 1;
    }

    fn get_item(&mut self, body: &Value) -> Reply {
        let item = self.items.get(&id_of(&body["Key"]));
        let units = if body["ConsistentRead"] == json!(true) { 1.0 } else { 0.5 };
        self.read_units += units;
        let wanted = body["ProjectionExpression"].as_str().map(|names| names.split(", ").collect::<Vec<_>>());
        let mut answer = json!({ "ConsumedCapacity": { "TableName": "hsdo", "CapacityUnits": units } });
        if let Some(item) = item {
            let seen = |name: &str| wanted.as_ref().is_none_or(|names| names.contains(&name));
            let item: Item =
                item.iter().filter(|(name, _)| seen(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
            answer["Item"] = json!(item);
        }
        ok(&answer)
    }

    fn scan(&mut self, body: &Value) -> Reply {
        let size: usize = self.items.values().map(size_of).sum();
        let units = (size.div_ceil(4096).max(1)) as f64 * if body["ConsistentRead"] == json!(true) { 1.0 } else { 0.5 };
        self.read_units += units;
        let items = &self.items;
        let body = self.scan.get_or_insert_with(|| {
            // Like DynamoDB, in hash order: here by the number's last digits.
            let mut all: Vec<&Item> = items.values().collect();
            all.sort_by_key(|item| id_of(&json!(item)).reverse_bits());
            Arc::new(json!({ "Count": all.len(), "ScannedCount": all.len(), "Items": all }).to_string().into_bytes())
        });
        (200, Arc::clone(body))
    }

    fn update_item(&mut self, body: &Value, writer: &str) -> Reply {
        self.write_units += 1.0;
        if !self.holds(body) {
            self.refused += 1;
            return refusal(&json!({ "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException" }));
        }
        self.apply(&[body], writer);
        ok(&json!({ "ConsumedCapacity": { "TableName": "hsdo", "CapacityUnits": 1.0 } }))
    }

    fn transact(&mut self, body: &Value, writer: &str) -> Reply {
        let token = body["ClientRequestToken"].as_str().expect("a token").to_owned();
        if let Some(answer) = self.answered.get(&token) {
            return (200, Arc::clone(answer));
        }
        let updates: Vec<&Value> =
            body["TransactItems"].as_array().expect("actions").iter().map(|action| &action["Update"]).collect();
        assert!(updates.len() <= 100, "{} actions", updates.len());
        let mut ids: Vec<u32> = updates.iter().map(|update| id_of(&update["Key"])).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), updates.len(), "an item twice in a transaction");
        let units = updates.len() as f64 * 2.0;
        self.write_units += units;
        let held: Vec<bool> = updates.iter().map(|update| self.holds(update)).collect();
        if held.contains(&false) {
            self.refused += 1;
            let code = |held: &bool| json!({ "Code": if *held { "None" } else { "ConditionalCheckFailed" } });
            let reasons: Vec<Value> = held.iter().map(code).collect();
            let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
            return refusal(&json!({ "__type": kind, "Message": "cancelled", "CancellationReasons": reasons }));
        }
        self.apply(&updates, writer);
        let answer = ok(&json!({ "ConsumedCapacity": [{ "TableName": "hsdo", "CapacityUnits": units }] }));
        self.answered.insert(token, Arc::clone(&answer.1));
        answer
    }

    fn holds(&self, update: &Value) -> bool {
        let nothing = Item::new();
        let item = self.items.get(&id_of(&update["Key"])).unwrap_or(&nothing);
        update["ConditionExpression"].as_str().expect("every write has a condition").split(" AND ").all(|part| {
            if let Some(name) = part.strip_prefix("attribute_not_exists(").and_then(|rest| rest.strip_suffix(')')) {
                return !item.contains_key(attribute(update, name));
            }
            let (name, value) = part.split_once(" = ").unwrap_or_else(|| panic!("unsupported condition: {part}"));
            item.get(attribute(update, name)) == Some(&update["ExpressionAttributeValues"][value])
        })
    }

    fn apply(&mut self, updates: &[&Value], writer: &str) {
        let mut items = Vec::new();
        for update in updates {
            let id = id_of(&update["Key"]);
            let before = self.items.get(&id).cloned();
            let item = self.items.entry(id).or_insert_with(|| key_of(id));
            let expression = update["UpdateExpression"].as_str().expect("an expression");
            let (set, remove) = expression.split_once("REMOVE ").unwrap_or((expression, ""));
            for part in set.trim().trim_start_matches("SET ").split(", ").filter(|part| !part.is_empty()) {
                let (name, value) = part.split_once(" = ").unwrap_or_else(|| panic!("not an assignment: {part}"));
                let value = update["ExpressionAttributeValues"][value].clone();
                item.insert(attribute(update, name).to_owned(), value);
            }
            for name in remove.trim().split(", ").filter(|name| !name.is_empty()) {
                item.remove(attribute(update, name));
            }
            if self.recording {
                items.push((id, before, item.clone()));
            }
        }
        self.scan = None;
        if self.recording {
            self.history.push(Write { at: Instant::now(), writer: writer.to_owned(), items });
        }
    }

    /// The Query APIs: the group, and the requested instances on one page. An instance that is not in the group has
    /// terminated.
    fn query(&mut self, form: &str) -> Reply {
        let action = form.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default().to_owned();
        self.count(&action);
        match action.as_str() {
            "DescribeAutoScalingGroups" => {
                let (group, instances) = (&self.group, &self.instances);
                (200, Arc::clone(self.groups.get_or_insert_with(|| Arc::new(groups(group, instances)))))
            }
            "DescribeInstances" => {
                let asked = form.split('&').filter(|pair| pair.starts_with("InstanceId.")).count();
                if asked == self.instances.len() {
                    let instances = &self.instances;
                    return (
                        200,
                        Arc::clone(self.described.get_or_insert_with(|| Arc::new(described(instances.iter())))),
                    );
                }
                let ids: Vec<&str> = form
                    .split('&')
                    .filter_map(|pair| pair.strip_prefix("InstanceId.")?.split_once('='))
                    .map(|(_, id)| id)
                    .collect();
                let known = |instance: &&Instance| ids.contains(&instance.id.as_str());
                let mut answer = described(self.instances.iter().filter(known));
                let end = answer.len() - END.len();
                for id in ids.iter().filter(|id| !self.instances.iter().any(|instance| instance.id == **id)) {
                    let ended = RECORD.replace("@ID@", id).replace("@IP@", "").replace(">running<", ">terminated<");
                    answer.splice(end..end, ended.into_bytes());
                }
                (200, Arc::new(answer))
            }
            // Nobody interrupts them.
            "DescribeSpotInstanceRequests" => (200, Arc::new(NO_SPOT_REQUESTS.to_vec())),
            other => panic!("unsupported operation {other}"),
        }
    }
}

fn refusal(body: &Value) -> Reply {
    (400, Arc::new(body.to_string().into_bytes()))
}

fn id_of(key: &Value) -> u32 {
    key[KEY]["N"].as_str().and_then(|text| text.parse().ok()).expect("a number of a slot")
}

fn attribute<'a>(update: &'a Value, name: &str) -> &'a str {
    update["ExpressionAttributeNames"][name].as_str().unwrap_or_else(|| panic!("{name} is undefined"))
}

/// An item's size by DynamoDB's rules, roughly: names and values.
fn size_of(item: &Item) -> usize {
    let text = |value: &Value| {
        let whole = |map: &Map<String, Value>| {
            map.iter()
                .map(|(kind, text)| {
                    text.as_str().map_or(1, |text| if kind == "N" { text.len() / 2 + 2 } else { text.len() })
                })
                .sum::<usize>()
        };
        value.as_object().map_or(1, whole)
    };
    item.iter().map(|(name, value)| name.len() + text(value)).sum()
}

fn groups(group: &str, instances: &[Instance]) -> Vec<u8> {
    let mut text = format!(
        "<DescribeAutoScalingGroupsResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
         <DescribeAutoScalingGroupsResult><AutoScalingGroups><member><AutoScalingGroupName>{group}</AutoScalingGroupName><Instances>"
    );
    for instance in instances {
        text.push_str(&GROUP_MEMBER.replace("@ID@", &instance.id));
    }
    text.push_str(
        "</Instances></member></AutoScalingGroups></DescribeAutoScalingGroupsResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></DescribeAutoScalingGroupsResponse>",
    );
    text.into_bytes()
}

fn described<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<u8> {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><reservationSet>",
    );
    for instance in instances {
        text.push_str(&RECORD.replace("@ID@", &instance.id).replace("@IP@", &instance.address.to_string()));
    }
    text.push_str(END);
    text.into_bytes()
}

const END: &str = "</reservationSet></DescribeInstancesResponse>";

const NO_SPOT_REQUESTS: &[u8] =
    b"<DescribeSpotInstanceRequestsResponse><spotInstanceRequestSet/></DescribeSpotInstanceRequestsResponse>";

/// A group member in Auto Scaling's XML.
const GROUP_MEMBER: &str = include_str!("../data/group-member.xml");
/// A reservation of one instance in EC2's XML: 4 KB.
const RECORD: &str = include_str!("../data/reservation.xml");

//! moto, an AWS emulator, as a process: the calls to create and change groups, instances and the table.
//!
//! The VPC is 127.1.0.0/16, so real servers can listen on the instances' addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bed::{REGION, TABLE, package_dir, tool};
use super::port::Port;
use super::process::Process;
use super::wait::wait_for;

/// The subnets, in the order of [`Moto::subnets`].
const SUBNETS: [(&str, &str); 3] =
    [("127.1.0.0/20", "eu-west-1a"), ("127.1.16.0/20", "eu-west-1b"), ("127.1.32.0/20", "eu-west-1c")];
const TEMPLATE: &str = "web";

/// An instance as its group sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupInstance {
    pub id: String,
    pub address: IpAddr,
    /// `InService`, `Standby`, …
    pub lifecycle: String,
    /// `Healthy` or `Unhealthy`, spelt as it was set.
    pub health: String,
}

/// An item in DynamoDB's JSON: `{"BackendServerID": {"N": "1"}, …}`.
pub type Item = Map<String, Value>;

pub fn program() -> PathBuf {
    let usual = [package_dir().join("target/venv/bin/moto_server"), PathBuf::from("/usr/bin/moto_server")];
    tool("HSDO_TEST_MOTO", &usual)
}

#[derive(Debug)]
pub struct Moto {
    process: Process,
    port: Port,
    agent: ureq::Agent,
    subnets: Vec<String>,
}

impl Moto {
    /// Starts moto on its own port, with the VPC, subnets and launch template of the tests.
    pub fn start(dir: &Path) -> Self {
        let port = Port::reserve();
        let mut command = Command::new(program());
        command.args(["-H", "127.0.0.1", "-p"]).arg(port.number().to_string());
        // Writing moto's log would only cost time.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONWARNINGS", "ignore");
        let process = Process::spawn(dir, "moto", &mut command);
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(60)))
                .http_status_as_error(false)
                .proxy(None)
                .build(),
        );
        let mut moto = Moto { process, port, agent, subnets: Vec::new() };
        moto.wait_until_it_answers();
        moto.make_network();
        moto
    }

    fn wait_until_it_answers(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port.number()));
        wait_for("moto to listen", Duration::from_secs(60), || {
            self.process.assert_running();
            TcpStream::connect_timeout(&address, Duration::from_secs(1))
        });
    }

    fn make_network(&mut self) {
        let vpc = element_text(&self.ec2("CreateVpc", &[("CidrBlock", "127.1.0.0/16")]), "vpcId");
        for (block, zone) in SUBNETS {
            let answer =
                self.ec2("CreateSubnet", &[("VpcId", vpc.as_str()), ("CidrBlock", block), ("AvailabilityZone", zone)]);
            self.subnets.push(element_text(&answer, "subnetId"));
        }
        let image = element_text(&self.ec2("DescribeImages", &[("MaxResults", "5")]), "imageId");
        self.ec2(
            "CreateLaunchTemplate",
            &[
                ("LaunchTemplateName", TEMPLATE),
                ("LaunchTemplateData.ImageId", &image),
                ("LaunchTemplateData.InstanceType", "t3.micro"),
            ],
        );
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The ids of the three subnets, 127.1.0.0/20, 127.1.16.0/20 and 127.1.32.0/20, each in a zone of its own.
    pub fn subnets(&self) -> &[String] {
        &self.subnets
    }

    /// An EC2 call: its XML.
    pub fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.query("ec2", "2016-11-15", action, parameters)
    }

    /// An Auto Scaling call: its XML.
    pub fn autoscaling(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.query("autoscaling", "2011-01-01", action, parameters)
    }

    /// An IAM call: its XML.
    pub fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.query("iam", "2010-05-08", action, parameters)
    }

    /// Whether moto checks signatures and IAM policies from now on.
    pub fn check_access(&self, on: bool) {
        let free_calls = if on { "0" } else { "inf" };
        let answer = self.agent.post(format!("{}/moto-api/reset-auth", self.url())).send(free_calls);
        assert!(
            answer.is_ok_and(|answer| answer.status().is_success()),
            "moto does not take INITIAL_NO_AUTH_ACTION_COUNT"
        );
    }

    /// A DynamoDB call: its JSON.
    pub fn dynamodb(&self, operation: &str, body: &Value) -> Value {
        let headers = [
            ("X-Amz-Target", format!("DynamoDB_20120810.{operation}")),
            ("Content-Type", "application/x-amz-json-1.0".to_owned()),
        ];
        let text = self.send("dynamodb", operation, &headers, body.to_string().as_bytes());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("moto's answer to {operation}: {error}: {text}"))
    }

    fn query(&self, service: &str, version: &str, action: &str, parameters: &[(&str, &str)]) -> String {
        let mut form = format!("Action={action}&Version={version}");
        for (name, value) in parameters {
            form.push_str(&format!("&{name}={}", percent(value)));
        }
        let headers = [("Content-Type", "application/x-www-form-urlencoded".to_owned())];
        self.send(service, action, &headers, form.as_bytes())
    }

    /// moto finds the service by the credential scope, and checks no signature.
    fn send(&self, service: &str, what: &str, headers: &[(&str, String)], body: &[u8]) -> String {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=x"
        );
        let mut request = self.agent.post(self.url()).header("Authorization", authorization);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut answer = request.send(body).unwrap_or_else(|error| panic!("moto does not answer {what}: {error}"));
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().expect("moto's body");
        assert!(status.is_success(), "moto refuses {what}: {status}: {text}");
        text
    }
}

/// Groups and their instances.
impl Moto {
    /// Creates a group of `count` instances, in service at once, in the subnet of that index.
    pub fn create_group(&self, name: &str, subnet: usize, count: usize) {
        self.autoscaling(
            "CreateAutoScalingGroup",
            &[
                ("AutoScalingGroupName", name),
                ("LaunchTemplate.LaunchTemplateName", TEMPLATE),
                ("LaunchTemplate.Version", "$Latest"),
                ("MinSize", "0"),
                ("MaxSize", "5000"),
                ("DesiredCapacity", &count.to_string()),
                ("VPCZoneIdentifier", &self.subnets[subnet]),
            ],
        );
    }

    pub fn set_desired(&self, name: &str, count: usize) {
        let count = count.to_string();
        self.autoscaling("SetDesiredCapacity", &[("AutoScalingGroupName", name), ("DesiredCapacity", &count)]);
    }

    /// Deletes the group and its instances.
    pub fn delete_group(&self, name: &str) {
        self.autoscaling("DeleteAutoScalingGroup", &[("AutoScalingGroupName", name), ("ForceDelete", "true")]);
    }

    /// The group's instances by address, those in standby too.
    pub fn instances(&self, name: &str) -> Vec<GroupInstance> {
        let answer = self.autoscaling("DescribeAutoScalingGroups", &[("AutoScalingGroupNames.member.1", name)]);
        assert!(answer.contains("<AutoScalingGroupName>"), "moto has no group {name}");
        // One chunk per instance; only EC2 knows its address.
        let members: Vec<&str> = answer.split("<InstanceId>").skip(1).collect();
        let ids: Vec<&str> = members.iter().map(|chunk| chunk.split('<').next().unwrap_or_default()).collect();
        let addresses = self.addresses(&ids);
        let mut instances: Vec<GroupInstance> = ids
            .iter()
            .zip(&members)
            .filter_map(|(&id, chunk)| {
                Some(GroupInstance {
                    id: id.to_owned(),
                    address: *addresses.get(id)?,
                    lifecycle: element_text(chunk, "LifecycleState"),
                    health: element_text(chunk, "HealthStatus"),
                })
            })
            .collect();
        instances.sort_by_key(|instance| instance.address);
        instances
    }

    fn addresses(&self, ids: &[&str]) -> BTreeMap<String, IpAddr> {
        if ids.is_empty() {
            return BTreeMap::new();
        }
        let names: Vec<String> = (1..=ids.len()).map(|number| format!("InstanceId.{number}")).collect();
        let parameters: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(ids.iter().copied()).collect();
        let answer = self.ec2("DescribeInstances", &parameters);
        answer
            .split("<instanceId>")
            .skip(1)
            .filter_map(|chunk| {
                let id = chunk.split('<').next()?.to_owned();
                Some((id, find(chunk, "privateIpAddress")?.parse().ok()?))
            })
            .collect()
    }

    /// Puts an instance into standby, which lowers the group's desired capacity.
    pub fn enter_standby(&self, group: &str, id: &str) {
        self.autoscaling(
            "EnterStandby",
            &[
                ("AutoScalingGroupName", group),
                ("InstanceIds.member.1", id),
                ("ShouldDecrementDesiredCapacity", "true"),
            ],
        );
    }

    pub fn exit_standby(&self, group: &str, id: &str) {
        self.autoscaling("ExitStandby", &[("AutoScalingGroupName", group), ("InstanceIds.member.1", id)]);
    }

    /// Sets the health status that the group sees: `Healthy` or `Unhealthy`.
    pub fn set_instance_health(&self, id: &str, health: &str) {
        let parameters = [("InstanceId", id), ("HealthStatus", health), ("ShouldRespectGracePeriod", "false")];
        self.autoscaling("SetInstanceHealth", &parameters);
    }

    /// Terminates an instance; the group replaces it unless its desired capacity is lowered too.
    pub fn terminate_in_group(&self, id: &str, decrement: bool) {
        let decrement = decrement.to_string();
        let parameters = [("InstanceId", id), ("ShouldDecrementDesiredCapacity", decrement.as_str())];
        self.autoscaling("TerminateInstanceInAutoScalingGroup", &parameters);
    }
}

/// The table.
impl Moto {
    /// Creates the table with the Python version's schema.
    pub fn create_table(&self) {
        self.dynamodb(
            "CreateTable",
            &json!({
                "TableName": TABLE,
                "KeySchema": [{"AttributeName": "BackendServerID", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "BackendServerID", "AttributeType": "N"}],
                "BillingMode": "PAY_PER_REQUEST",
            }),
        );
    }

    pub fn put_item(&self, item: &Value) {
        self.dynamodb("PutItem", &json!({"TableName": TABLE, "Item": item}));
    }

    /// Writes the row of an occupied slot as the Python version does; `group` is optional.
    pub fn put_server(&self, id: u32, address: &str, name: &str, group: Option<&str>, weight: u16) {
        let mut item = json!({
            "BackendServerID": {"N": id.to_string()},
            "IPAddress": {"S": address},
            "ServerName": {"S": name},
            "Weight": {"N": weight.to_string()},
            "BackendServerStatus": {"S": "enabled"},
            "LastWeightUpdate": {"S": "2024-01-02 03:04:05.678901"},
        });
        if let Some(group) = group {
            item["ASG"] = json!({"S": group});
        }
        self.put_item(&item);
    }

    /// Writes the row of a free slot as the Python version does.
    pub fn put_free(&self, id: u32) {
        self.put_item(&json!({
            "BackendServerID": {"N": id.to_string()},
            "IPAddress": {"S": "none"},
            "ServerName": {"S": "none"},
            "ASG": {"S": "none"},
            "Weight": {"N": "0"},
            "BackendServerStatus": {"S": "disabled"},
            "LastWeightUpdate": {"S": "0-0-0 00:00:00.000000"},
        }));
    }

    pub fn update_item(&self, id: u32, attributes: &Value) {
        let attributes = attributes.as_object().expect("attributes are given as an object");
        let names: Map<String, Value> =
            attributes.keys().enumerate().map(|(n, name)| (format!("#a{n}"), json!(name))).collect();
        let values: Map<String, Value> =
            attributes.values().enumerate().map(|(n, value)| (format!(":v{n}"), value.clone())).collect();
        let sets: Vec<String> = (0..attributes.len()).map(|n| format!("#a{n} = :v{n}")).collect();
        self.dynamodb(
            "UpdateItem",
            &json!({
                "TableName": TABLE,
                "Key": {"BackendServerID": {"N": id.to_string()}},
                "UpdateExpression": format!("SET {}", sets.join(", ")),
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": values,
            }),
        );
    }

    pub fn remove_attribute(&self, id: u32, name: &str) {
        self.dynamodb(
            "UpdateItem",
            &json!({
                "TableName": TABLE,
                "Key": {"BackendServerID": {"N": id.to_string()}},
                "UpdateExpression": "REMOVE #a",
                "ExpressionAttributeNames": {"#a": name},
            }),
        );
    }

    pub fn delete_item(&self, id: u32) {
        self.delete_any_item(i64::from(id));
    }

    /// The same for a number that need not be a slot's.
    pub fn delete_any_item(&self, id: i64) {
        let key = json!({"BackendServerID": {"N": id.to_string()}});
        self.dynamodb("DeleteItem", &json!({"TableName": TABLE, "Key": key}));
    }

    /// All items by slot; items whose number cannot be a slot's are left out.
    pub fn items(&self) -> BTreeMap<u32, Item> {
        let mut items = BTreeMap::new();
        let mut start = Value::Null;
        loop {
            let mut body = json!({"TableName": TABLE, "ConsistentRead": true});
            if !start.is_null() {
                body["ExclusiveStartKey"] = start;
            }
            let answer = self.dynamodb("Scan", &body);
            for item in answer["Items"].as_array().expect("a scan has items") {
                let id = item["BackendServerID"]["N"].as_str().expect("the key is a number").parse();
                if let Ok(id) = id {
                    items.insert(id, item.as_object().expect("an item is an object").clone());
                }
            }
            start = answer["LastEvaluatedKey"].clone();
            if start.is_null() {
                return items;
            }
        }
    }

    /// Without the marker and lease on slot 1's item, which change every second.
    pub fn rows(&self) -> BTreeMap<u32, Item> {
        let mut items = self.items();
        if let Some(first) = items.get_mut(&1) {
            first.retain(|name, _| {
                !["HsdoVersion", "HsdoHeartbeat", "HsdoLeader", "HsdoBlind"].contains(&name.as_str())
            });
        }
        items
    }

    /// One attribute of an item as text, whatever its type.
    pub fn attribute(&self, id: u32, name: &str) -> Option<String> {
        text_of(self.items().get(&id)?, name)
    }
}

/// A string or number attribute as text.
pub fn text_of(item: &Item, name: &str) -> Option<String> {
    let value = item.get(name)?;
    value["S"].as_str().or(value["N"].as_str()).map(str::to_owned)
}

/// The text of the first element of that name.
fn find<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{element}>"))?;
    rest.split('<').next()
}

/// The same for an element that must be there.
pub fn element_text(xml: &str, element: &str) -> String {
    find(xml, element).unwrap_or_else(|| panic!("no <{element}> in moto's answer: {xml}")).to_owned()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

//! Requests of the Query APIs (Auto Scaling, EC2): a form in the body. Pure.

use super::http::Request;
use crate::aws::service::Service;

/// A request whose parameters are added one by one.
pub(crate) struct Query {
    form: String,
}

impl Query {
    /// A query for `operation` in this version of the API.
    pub(crate) fn new(operation: &str, version: &str) -> Self {
        let mut query = Query { form: String::new() };
        query.add("Action", operation);
        query.add("Version", version);
        query
    }

    /// Adds a parameter.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !self.form.is_empty() {
            self.form.push('&');
        }
        encode(name, &mut self.form);
        self.form.push('=');
        encode(value, &mut self.form);
    }

    /// Adds a list as AWS numbers one: `name.1`, `name.2`, ...
    pub(crate) fn add_list(&mut self, name: &str, values: &[impl AsRef<str>]) {
        for (index, value) in values.iter().enumerate() {
            self.add(&format!("{name}.{}", index + 1), value.as_ref());
        }
    }

    /// The request.
    pub(crate) fn request(self, service: Service, operation: &'static str, subject: String) -> Request {
        let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_string())];
        Request { service, operation, subject, headers, body: self.form }
    }
}

/// The text as a query or a form carries it.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    encode(text, &mut out);
    out
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_lists_numbered() {
        let mut query = Query::new("DescribeAutoScalingGroups", "2011-01-01");
        query.add_list("AutoScalingGroupNames.member", &["web a".to_string(), "x&y=é/+".to_string()]);
        let request = query.request(Service::AutoScaling, "DescribeAutoScalingGroups", "groups".to_string());
        assert_eq!(
            request.body,
            "Action=DescribeAutoScalingGroups&Version=2011-01-01&AutoScalingGroupNames.member.1=web%20a\
             &AutoScalingGroupNames.member.2=x%26y%3D%C3%A9%2F%2B"
        );
    }
}

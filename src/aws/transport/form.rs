//! Requests of the Query APIs (Auto Scaling, EC2, STS): a form in the body. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

use super::http::Request;
use crate::aws::service::Service;

/// All but the unreserved characters (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(crate) struct Query {
    form: String,
}

impl Query {
    pub(crate) fn new(operation: &str, version: &str) -> Self {
        let mut query = Query { form: String::new() };
        query.add("Action", operation);
        query.add("Version", version);
        query
    }

    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !self.form.is_empty() {
            self.form.push('&');
        }
        self.form.extend(percent_encoded(name));
        self.form.push('=');
        self.form.extend(percent_encoded(value));
    }

    /// Adds a list in AWS numbering: `name.1`, `name.2`, ...
    pub(crate) fn add_list(&mut self, name: &str, values: &[impl AsRef<str>]) {
        for (index, value) in values.iter().enumerate() {
            self.add(&format!("{name}.{}", index + 1), value.as_ref());
        }
    }

    /// The finished request; `subject` is for messages.
    pub(crate) fn request(self, service: Service, operation: &'static str, subject: String) -> Request {
        let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_string())];
        Request { service, operation, subject, headers, body: self.form }
    }
}

pub(crate) fn percent_encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
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

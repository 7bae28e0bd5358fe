//! Families and samples in Prometheus text format 0.0.4.

use std::fmt::{Display, Write as _};

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a dyn Display);

/// The text so far. Writing to a `String` cannot fail, so results of `write!` are ignored.
pub(super) struct Text(String);

impl Text {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Text(String::with_capacity(bytes))
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `counts` are per bucket, not cumulative; the last one counts anything above the last of `bounds`.
    pub(super) fn histogram(&mut self, name: &str, help: &str, bounds: &[f64], counts: &[u64], sum: f64) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (count, bound) in counts.iter().zip(bounds) {
            below += count;
            self.sample(&bucket, &[("le", bound)], below);
        }
        let all: u64 = counts.iter().sum();
        self.sample(&bucket, &[("le", &"+Inf")], all);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], all);
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"{}\"", escape(&text.to_string()));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.sample(name, &[], value);
        }
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        self.single(name, "gauge", help, value);
    }
}

/// Escapes a label's value: backslash, quote and newline, as the format requires.
pub(super) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

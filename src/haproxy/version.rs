//! What HAProxy's versions do differently, as far as hsdo has to know. Pure.

/// A version such as `2.6.12-1+deb12u4` or `3.3-dev10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    /// Major and minor.
    series: (u32, u32),
    step: Step,
}

/// Development comes before the first release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Development(u32),
    Release(u32),
}

impl Version {
    /// `None` if it is unreadable; such a version counts as recent.
    fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let number = |text: &str| text[..digits(text)].parse().ok();
        let mut parts = text.splitn(3, '.');
        let (major, minor) = (parts.next()?, parts.next()?);
        let step = match minor[digits(minor)..].strip_prefix("-dev") {
            Some(development) => Step::Development(number(development).unwrap_or(0)),
            None => Step::Release(parts.next().and_then(number).unwrap_or(0)),
        };
        Some(Version { series: (number(major)?, number(minor)?), step })
    }
}

/// Whether this version hangs on a line that exceeds its buffer: 2.2 yes, 2.6 no (measured).
pub(super) fn hangs_on_long_lines(version: &str) -> bool {
    Version::parse(version).is_some_and(|version| version.series < (2, 6))
}

/// Whether a few dumps that are not read to the end crash this version: 3.2 yes, before 3.1 no (facts.md).
pub(super) fn crashes_on_aborted_dumps(version: &str) -> bool {
    Version::parse(version).is_none_or(|version| version.series >= (3, 1))
}

/// Whether this version keeps a connection that was in use when the server's address changed, and sends later requests over it to the
/// old address: with `http-reuse safe`, its default, for as long as requests come (measured on 2.6.12). Fixed as "backend: fix reuse
/// with set-dst/set-dst-port" in 2.6.22, 2.8.15, 3.0.10, 3.1.7 and 3.2, and not at all in the others.
pub fn keeps_old_connections(version: &str) -> bool {
    let Some(Version { series, step }) = Version::parse(version) else { return false };
    match series {
        (2, 6) => step < Step::Release(22),
        (2, 8) => step < Step::Release(15),
        (3, 0) => step < Step::Release(10),
        (3, 1) => step < Step::Release(7),
        series => series < (3, 0),
    }
}

/// Whether this version hashes a server's number twice, so that its ring is another one (HAProxy commit 03e9a5a1e,
/// "BUG/MAJOR: lb-chash: fix key calculation when using default hash-key id", of 2025-10-16).
///
/// By the changelogs, 3.2.7 and 3.3-dev10 have the fix. 3.0.12 and 3.1.9 were released on 2025-10-03, before it, so 3.0.13 and
/// 3.1.10 are the first that can have it. Measured on 300 keys: 2.2.9, 2.6.12, 2.8.25, 3.2.26 and 3.4.7 agree, 3.0.11 differs
/// from each of them; so does Debian's 3.0.11-1+deb13u5, which has only security fixes.
pub fn ring_differs(version: &str) -> bool {
    let Some(Version { series, step }) = Version::parse(version) else { return false };
    match series {
        (3, 0) => step < Step::Release(13),
        (3, 1) => step < Step::Release(10),
        (3, 2) => step < Step::Release(7),
        (3, 3) => step < Step::Development(10),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_versions_hang_on_long_lines() {
        for (version, hangs) in
            [("2.2.9", true), ("2.4-dev3", true), ("2.6.12", false), ("2.10.1", false), ("x", false)]
        {
            assert_eq!(hangs_on_long_lines(version), hangs, "{version}");
        }
    }

    #[test]
    fn only_recent_versions_crash_on_aborted_dumps() {
        for (version, crashes) in [
            ("2.2.9-2+deb11u7", false),
            ("2.10.1", false),
            ("3.0.11", false),
            ("3.2.26-1", true),
            ("3.4-dev1", true),
            ("x", true),
        ] {
            assert_eq!(crashes_on_aborted_dumps(version), crashes, "{version}");
        }
    }

    #[test]
    fn some_versions_keep_connections_to_an_address_of_before() {
        for (version, keeps) in [
            ("2.2.9-2+deb11u7", true),
            ("2.4.29", true),
            ("2.6.12-1+deb12u4", true),
            ("2.6.22", false),
            ("2.8.5-1ubuntu3", true),
            ("2.8.15", false),
            ("2.9.15", true),
            ("3.0.9", true),
            ("3.0.11-1+deb13u2", false),
            ("3.1.6", true),
            ("3.1.7", false),
            ("3.2.0", false),
            ("3.2-dev9", false),
            ("x", false),
        ] {
            assert_eq!(keeps_old_connections(version), keeps, "{version}");
        }
    }

    #[test]
    fn versions_with_another_ring() {
        for (version, differs) in [
            ("2.2.9-2+deb11u6", false),
            ("2.6.12-1+deb12u4", false),
            ("2.8.25-abc", false),
            ("2.9.15", false),
            ("3.0.0", true),
            ("3.0.11-1+deb13u5", true),
            ("3.0.12", true),
            ("3.0.13", false),
            ("3.1.9-f1e0a0e3b", true),
            ("3.1.10", false),
            ("3.2.0", true),
            ("3.2.6", true),
            ("3.2.7", false),
            ("3.2.26-1~bpo13+1", false),
            ("3.2-dev5", true),
            ("3.3-dev9-59", true),
            ("3.3-dev10", false),
            ("3.3.0", false),
            ("3.4.7", false),
            ("4.0.0", false),
            ("", false),
            ("x.y", false),
        ] {
            assert_eq!(ring_differs(version), differs, "{version}");
        }
    }
}

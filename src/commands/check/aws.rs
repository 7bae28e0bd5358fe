//! AWS: regions, credentials, and what they allow. Pure.

use super::line::{Level, Line, Trouble};
use crate::aws::HeldCredentials;
use crate::clock::Timestamp;

/// Credentials that expire sooner than this are worth a warning: an instance's are renewed long before.
const SOON: std::time::Duration = std::time::Duration::from_secs(5 * 60);

/// What is known of AWS.
#[derive(Debug)]
pub(super) struct AwsFacts {
    /// The calls with their regions: `("the table", "eu-west-1")`; empty if there is none.
    pub(super) regions: Vec<(&'static str, String)>,
    /// Where the region comes from.
    pub(super) region_place: String,
    pub(super) credentials: Result<HeldCredentials, Trouble>,
    /// Whose they are, by STS; `None` if it was not asked.
    pub(super) caller: Option<Result<String, Trouble>>,
    /// AWS's time.
    pub(super) now: Timestamp,
    /// The IAM actions that were tried.
    pub(super) actions: Vec<Action>,
}

/// An IAM action that was tried.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: &'static str,
    pub(super) need: Need,
    pub(super) outcome: Result<(), Trouble>,
}

/// What the roles need an action for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A role does not work without it.
    Required,
    /// The roles work without it; the text says how.
    Useful(&'static str),
    /// Only `check` asks; the text says what it cannot tell then.
    Told(&'static str),
}

pub(super) fn lines(facts: &AwsFacts) -> Vec<Line> {
    let mut lines = Vec::new();
    for (what, region) in &facts.regions {
        lines.push(Line::ok(format!("region of {what}"), format!("{region} ({})", facts.region_place)));
    }
    match &facts.credentials {
        Ok(held) => lines.push(credentials(held, facts.now)),
        Err(trouble) => {
            lines.push(Line::trouble("AWS credentials", trouble));
            let text = "IAM actions, table and groups are not checked: no call to AWS is possible";
            lines.push(Line::warn("AWS", text, "mend what is named above, and check again"));
        }
    }
    match &facts.caller {
        Some(Ok(arn)) => lines.push(Line::ok("AWS identity", arn)),
        Some(Err(trouble)) if trouble.denied => lines.push(Line::trouble("AWS identity", trouble)),
        // The roles call STS only to assume roles.
        Some(Err(trouble)) => lines.push(Line::ok("AWS identity", format!("not known: {}", trouble.text))),
        None => {}
    }
    lines.extend(facts.actions.iter().map(action));
    lines
}

fn credentials(held: &HeldCredentials, now: Timestamp) -> Line {
    let HeldCredentials { label, expires } = held;
    let subject = "AWS credentials";
    let Some(expires) = expires else { return Line::ok(subject, format!("{label}, which do not expire")) };
    let until = expires.to_string();
    let until = until.split('.').next().unwrap_or_default();
    match expires.since(now) {
        None => Line::warn(
            subject,
            format!("{label}, expired at {until} UTC"),
            "find out why their source does not renew them",
        ),
        Some(left) if left < SOON => Line::warn(
            subject,
            format!("{label}, valid until {until} UTC, {} s from now", left.as_secs()),
            "see that their source renews them",
        ),
        Some(_) => Line::ok(subject, format!("{label}, valid until {until} UTC")),
    }
}

fn action(action: &Action) -> Line {
    let Action { name, need, outcome } = action;
    match (outcome, need) {
        (Ok(()), _) => Line::ok(*name, "allowed"),
        (Err(trouble), _) if trouble.table => {
            Line::warn(*name, "not tried: the table cannot be used", "mend the table first, and check again")
        }
        (Err(trouble), Need::Told(unknown)) if trouble.denied => {
            Line::ok(*name, format!("not allowed, and no role needs it; {unknown}"))
        }
        (Err(trouble), Need::Useful(without)) if trouble.denied => Line {
            level: Level::Warn,
            ..Line::mend(*name, format!("denied: {}; {without}", trouble.text), &trouble.remedy)
        },
        (Err(trouble), Need::Told(unknown)) => {
            Line::ok(*name, format!("failed, and no role needs it; {unknown}: {}", trouble.text))
        }
        (Err(trouble), _) => Line::trouble(*name, trouble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(denied: bool, table: bool) -> Trouble {
        Trouble { text: "no".to_owned(), remedy: "allow it".to_owned(), denied, table }
    }

    #[test]
    fn what_an_action_means_depends_on_who_needs_it() {
        let useful = Need::Useful("more is read");
        let told = Need::Told("unknown");
        for (need, outcome, level) in [
            (Need::Required, Ok(()), Level::Ok),
            (Need::Required, Err(trouble(true, false)), Level::Mend),
            (Need::Required, Err(trouble(false, false)), Level::Mend),
            (Need::Required, Err(trouble(false, true)), Level::Warn),
            (useful, Err(trouble(true, false)), Level::Warn),
            (useful, Err(trouble(false, false)), Level::Mend),
            (told, Err(trouble(true, false)), Level::Ok),
            (told, Err(trouble(false, false)), Level::Ok),
        ] {
            let line = action(&Action { name: "dynamodb:Scan", need, outcome });
            assert_eq!(line.level, level, "{need:?}: {line:?}");
            assert_eq!(line.remedy.is_some(), level != Level::Ok);
        }
    }

    #[test]
    fn credentials_say_until_when() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let held = |seconds: Option<i64>| HeldCredentials {
            label: "key ...MPLE (the environment)".to_owned(),
            expires: seconds.map(|seconds| Timestamp::from_micros(now.as_micros() + seconds * 1_000_000)),
        };
        for (left, level, text) in [
            (None, Level::Ok, "do not expire"),
            (Some(3_600), Level::Ok, "valid until 2023-11-14 23:13:20 UTC"),
            (Some(60), Level::Warn, "60 s from now"),
            (Some(-60), Level::Warn, "expired at 2023-11-14 22:12:20 UTC"),
        ] {
            let line = credentials(&held(left), now);
            assert_eq!(line.level, level, "{line:?}");
            assert!(line.text.contains(text), "{line:?}");
        }
    }

    #[test]
    fn without_credentials_the_rest_is_named_as_unchecked() {
        let facts = AwsFacts {
            regions: vec![],
            region_place: String::new(),
            credentials: Err(trouble(false, false)),
            caller: None,
            now: Timestamp::from_micros(0),
            actions: vec![],
        };
        let levels: Vec<Level> = lines(&facts).iter().map(|line| line.level).collect();
        assert_eq!(levels, [Level::Mend, Level::Warn]);
    }
}

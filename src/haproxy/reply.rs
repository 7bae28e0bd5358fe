//! Splits a response into the replies to each command. Pure.

/// Splits a response: a reply is zero or more non-empty lines, then one empty line.
///
/// # Errors
/// The response does not end with an empty line: HAProxy just closes the connection if a dump is read too slowly.
pub(super) fn split(answer: &str) -> Result<Vec<&str>, String> {
    let mut replies = Vec::new();
    let (mut start, mut line) = (0, 0);
    while let Some(length) = memchr::memchr(b'\n', &answer.as_bytes()[line..]) {
        if length == 0 {
            // Strip the reply's last line end.
            replies.push(&answer[start..line.saturating_sub(1).max(start)]);
            start = line + 1;
        }
        line += length + 1;
    }
    if start == answer.len() { Ok(replies) } else { Err("it is truncated".to_owned()) }
}

pub(super) fn count(answer: &[u8]) -> usize {
    let mut count = 0;
    let mut line = 0;
    while let Some(length) = memchr::memchr(b'\n', &answer[line..]) {
        count += usize::from(length == 0);
        line += length + 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_of_haproxy() {
        let cases: [(&str, &str, Option<&[&str]>); 8] = [
            ("one success", "\n", Some(&[""])),
            ("three successes", "\n\n\n", Some(&["", "", ""])),
            (
                "address between two",
                "\nIP changed from 'a' to 'b'\n\n\n",
                Some(&["", "IP changed from 'a' to 'b'", ""]),
            ),
            ("refusal, success", "No such server.\n\n\n", Some(&["No such server.", ""])),
            ("two dumps", "# a,\n1,\n\n# a,\n2,\n\n", Some(&["# a,\n1,", "# a,\n2,"])),
            ("nothing at all", "", Some(&[])),
            ("cut in a line", "# a,\n1", None),
            ("cut at a line's end", "# a,\n1,\n", None),
        ];
        for (name, answer, expected) in cases {
            assert_eq!(split(answer).ok().as_deref(), expected, "{name}");
            assert_eq!(
                count(answer.as_bytes()),
                answer.matches("\n\n").count().max(expected.map_or(0, <[_]>::len)),
                "{name}"
            );
        }
    }
}

//! Cuts what HAProxy sent into the replies to each command. Pure.

/// Splits an answer: a reply is zero or more non-empty lines and then one empty line.
///
/// # Errors
/// The answer does not end with an empty line: HAProxy cuts a dump whose reader was too slow with a plain end of file.
pub fn split(answer: &str) -> Result<Vec<String>, String> {
    let mut replies = Vec::new();
    let mut rest = answer;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('\n') {
            replies.push(String::new());
            rest = after;
        } else if let Some(end) = rest.find("\n\n") {
            replies.push(rest[..end].to_owned());
            rest = &rest[end + 2..];
        } else {
            return Err("it was cut before its end".to_owned());
        }
    }
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_haproxy_gives_them() {
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
            let expected = expected.map(|replies| replies.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(split(answer).ok(), expected, "{name}");
        }
    }
}

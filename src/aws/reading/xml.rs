//! Streams the XML of the Query APIs without holding the document: DescribeInstances takes 5 KB an instance.
//!
//! Unknown elements are skipped; malformed or truncated documents are errors.

use std::io::BufRead;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// The deepest nesting accepted; AWS's responses stay under 12.
const MAX_DEPTH: usize = 64;

/// XML white space (XML 1.0, section 2.3), which is less than Unicode's.
const WHITE_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Calls `on_end` at the end of each element, children first, with its path from the root (joined by `/`) and the text since
/// the last tag: for a leaf, its whole text. An error of `on_end` ends the walk.
pub(crate) fn walk(
    input: &mut dyn BufRead,
    on_end: &mut dyn FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader::from_reader(input);
    reader.config_mut().expand_empty_elements = true;
    let (mut path, mut text, mut buffer) = (String::new(), String::new(), Vec::new());
    let mut depth = 0;
    let mut started = false;
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).map_err(message)? {
            Event::Start(_) if started && depth == 0 => return Err("a second document follows".to_string()),
            Event::Start(tag) => {
                depth += 1;
                started = true;
                if depth > MAX_DEPTH {
                    return Err(format!("elements nested deeper than {MAX_DEPTH}"));
                }
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(tag.local_name().as_ref());
                text.clear();
            }
            Event::End(_) => {
                on_end(&path, &text)?;
                depth -= 1;
                path.truncate(path.rfind('/').unwrap_or(0));
                text.clear();
            }
            Event::Text(chars) if depth == 0 && chars.xml10_content().trim_matches(WHITE_SPACE).is_empty() => {}
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if depth == 0 => {
                return Err("text outside the document".to_string());
            }
            Event::Text(chars) => text.push_str(&chars.xml10_content()),
            Event::CData(chars) => text.push_str(&chars.xml10_content()),
            Event::GeneralRef(name) => match name.resolve_char_ref().map_err(|error| error.to_string())? {
                Some(char) => text.push(char),
                None => text
                    .push_str(resolve_predefined_entity(&name).ok_or_else(|| format!("unknown entity &{};", &*name))?),
            },
            Event::DocType(_) => return Err("unexpected document type".to_string()),
            Event::Eof if depth > 0 => return Err("the document is truncated".to_string()),
            Event::Eof if !started => return Err("not an XML document".to_string()),
            Event::Eof => return Ok(()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

/// The error text, without the library's prefix for errors of `input`.
fn message(error: quick_xml::Error) -> String {
    match error {
        quick_xml::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(document: &str) -> Result<Vec<(String, String)>, String> {
        let mut seen = Vec::new();
        walk(&mut document.as_bytes(), &mut |path, text| {
            seen.push((path.to_string(), text.to_string()));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn elements_are_reported_by_path_at_their_end() {
        let document = "\u{feff}<?xml version=\"1.0\"?>\n<!-- no --><a xmlns=\"urn:x\"><!-- no --><x:b>1 &lt;&amp;&#65;<![CDATA[<2>]]></x:b>\n<c/></a>\n<!-- no -->\n<?no?>";
        let expected = [("a/b", "1 <&A<2>"), ("a/c", ""), ("a", "")];
        let expected: Vec<(String, String)> = expected.iter().map(|(p, t)| (p.to_string(), t.to_string())).collect();
        assert_eq!(seen(document).expect("a document"), expected);
    }

    #[test]
    fn malformed_documents_are_errors() {
        let deep = format!("{}{}", "<a>".repeat(65), "</a>".repeat(65));
        for bad in [
            "",
            "  ",
            "{\"a\": 1}",
            "<a>",
            "<a><b></b>",
            "<a><b></a>",
            "<a",
            "<a>&nope;</a>",
            "<!DOCTYPE a><a/>",
            "<a></b>",
            "<a/><a/>",
            "<a/>x",
            "x<a/>",
            "<a/>\u{b}",
            "<a/>\u{a0}",
            "<a/>&amp;",
            "<a/><![CDATA[x]]>",
            &deep,
        ] {
            assert!(seen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_of_the_caller_ends_the_walk() {
        let ended = walk(&mut "<a><b/></a>".as_bytes(), &mut |path, _| Err(path.to_string()));
        assert_eq!(ended, Err("a/b".to_string()));
    }

    proptest::proptest! {
        #[test]
        fn every_truncated_document_is_an_error(at in 0_usize..44) {
            let document = "<a><b>1</b><c>&amp;</c><d/><e>text</e></a>";
            let cut = &document[..at.min(document.len() - 1)];
            proptest::prop_assert!(seen(cut).is_err(), "{}", cut);
        }
    }
}

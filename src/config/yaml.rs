//! YAML in and out.
//!
//! The `config` crate's own YAML format is not used: it tells no line for a key that stands twice, expands aliases
//! without bound and recurses as deep as the file does.

use std::fmt::Write as _;

use config::{Map, Value, ValueKind};
use yaml_rust2::Yaml;
use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::{Marker, TScalarStyle};

use super::Problem;

/// Deeper than any key of ours.
const MAX_DEPTH: usize = 32;
/// Bytes; a configuration is a page or two.
pub(super) const MAX_SIZE: usize = 1 << 20;

/// A collection that is being read.
enum Open {
    List(Vec<Value>),
    Map { read: Map<String, Value>, lines: Map<String, usize>, key: Option<(String, usize)> },
}

/// Parses one document whose root is a map. `name` is the file's, for messages.
///
/// Keys keep their case; a plain scalar has the type that YAML 1.2 gives it, so that an unquoted number is told from
/// a quoted one.
pub(super) fn parse(text: &str, name: &str) -> Result<Map<String, Value>, Vec<Problem>> {
    let at = |mark: Marker, message: &str| vec![Problem::new(format!("{name}:{}", mark.line()), message)];
    if text.len() > MAX_SIZE {
        return Err(vec![Problem::new(name, format!("must be at most {MAX_SIZE} bytes, is {}", text.len()))]);
    }
    let origin = name.to_owned();
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut duplicates = Vec::new();
    loop {
        let (event, mark) = parser.next_token().map_err(|error| at(*error.marker(), error.info()))?;
        let value = match event {
            Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
            Event::DocumentStart if root.is_some() => {
                return Err(at(mark, "must be one YAML document; a second one begins here"));
            }
            Event::DocumentStart => continue,
            Event::Alias(_) => return Err(at(mark, "YAML aliases are not supported; write the value out")),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() == MAX_DEPTH {
                    return Err(at(mark, "is nested deeper than any key"));
                }
                if let Some(Open::Map { key: None, .. }) = open.last() {
                    return Err(at(mark, "a key must be text"));
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::List(Vec::new()),
                    _ => Open::Map { read: Map::new(), lines: Map::new(), key: None },
                });
                continue;
            }
            Event::Scalar(text, style, _, tag) => {
                if let Some(Open::Map { key: key @ None, .. }) = open.last_mut() {
                    *key = Some((text, mark.line()));
                    continue;
                }
                scalar(text, style, tag.as_ref())
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => ValueKind::Array(list),
                Some(Open::Map { read, .. }) => ValueKind::Table(read),
                None => continue,
            },
        };
        let value = Value::new(Some(&origin), value);
        let duplicate = match open.last_mut() {
            None => {
                root = Some(value);
                None
            }
            Some(Open::List(list)) => {
                list.push(value);
                None
            }
            Some(Open::Map { read, lines, key }) => key.take().and_then(|(name, line)| {
                read.insert(name.clone(), value);
                lines.insert(name.clone(), line).map(|first| (name, first, line))
            }),
        };
        if let Some((key, first, line)) = duplicate {
            let key = format!("{}{key}", path_of(&open));
            duplicates.push(Problem::new(key, format!("stands twice, in lines {first} and {line} of {name}")));
        }
    }
    if !duplicates.is_empty() {
        return Err(duplicates);
    }
    match root.map(|root| root.kind) {
        None | Some(ValueKind::Nil) => Ok(Map::new()),
        Some(ValueKind::Table(table)) => Ok(table),
        Some(_) => Err(vec![Problem::new(name, "must be a map of keys such as `push:`")]),
    }
}

/// The keys of the maps around a key, each with its dot.
fn path_of(open: &[Open]) -> String {
    let mut path = String::new();
    for open in open {
        if let Open::Map { key: Some((name, _)), .. } = open {
            path.push_str(name);
            path.push('.');
        }
    }
    path
}

fn scalar(text: String, style: TScalarStyle, tag: Option<&Tag>) -> ValueKind {
    let as_text = tag.is_some_and(|tag| tag.handle == "tag:yaml.org,2002:" && tag.suffix == "str");
    if style != TScalarStyle::Plain || as_text {
        return ValueKind::String(text);
    }
    match Yaml::from_str(&text) {
        Yaml::Null => ValueKind::Nil,
        Yaml::Boolean(value) => ValueKind::Boolean(value),
        Yaml::Integer(value) => ValueKind::I64(value),
        // `.inf` and `.nan` are not Rust's spelling.
        Yaml::Real(value) => match value.parse().or_else(|_| value.to_lowercase().replace('.', "").parse()) {
            Ok(number) => ValueKind::Float(number),
            Err(_) => ValueKind::String(value),
        },
        _ => ValueKind::String(text),
    }
}

/// Writes a section as YAML: maps and sections as blocks, lists in one line.
pub(super) fn print(value: &Yaml) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Yaml, indent: usize, out: &mut String) {
    let Yaml::Hash(entries) = value else { return };
    for (key, value) in entries {
        let key = key.as_str().map(text).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = match value {
            Yaml::Hash(entries) if !entries.is_empty() => {
                let _ = writeln!(out, "{:indent$}{key}:", "");
                block(value, indent + 2, out);
                Ok(())
            }
            value => writeln!(out, "{:indent$}{key}: {}", "", inline(value)),
        };
    }
}

fn inline(value: &Yaml) -> String {
    match value {
        Yaml::String(value) => text(value),
        Yaml::Integer(value) => value.to_string(),
        Yaml::Real(value) => value.clone(),
        Yaml::Boolean(value) => value.to_string(),
        Yaml::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Yaml::Hash(_) => "{}".to_owned(),
        Yaml::Null | Yaml::Alias(_) | Yaml::BadValue => "null".to_owned(),
    }
}

/// Plain where no YAML parser could take it for anything but this text, else in JSON's quotes, which YAML understands.
fn text(value: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "_/.-:".contains(c))
        && !value.ends_with(':')
        && !WORDS.contains(&value.to_ascii_lowercase().as_str());
    // Some parsers know numbers to the base of 60, and times.
    let number = value.chars().all(|c| c.is_ascii_digit() || "_.-:".contains(c)) && value.matches('.').count() < 3
        || Yaml::from_str(value) != Yaml::String(value.to_owned());
    if plain && !number { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

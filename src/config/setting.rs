//! How a value is read and shown: sections, maps, lists, words. The scalars are next door.
//!
//! Reading by hand instead of by serde is what lets one run report every mistake, each under its full key.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};
use yaml_rust2::Yaml;

use super::Problem;
use super::layers::ENVIRONMENT;

/// What `check` prints instead of a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// What may stand under a key.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A scalar, or a list of scalars: what an environment variable can set.
    Value,
    /// Keys that are the user's own: YAML only.
    Map,
    /// Keys that are ours.
    Section(&'static [(&'static str, Shape)]),
}

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// What may stand under such a key.
    const SHAPE: Shape;

    /// Reads a value that is not null; `None` after a problem was noted.
    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self>;

    /// The value as YAML that loads again, secrets redacted.
    fn show(&self) -> Yaml;
}

/// A struct of settings, made by [`settings!`].
pub(super) trait Section: Default {
    /// Its keys, in the order of the documentation.
    const KEYS: &'static [(&'static str, Shape)];

    /// Reads one of its keys.
    fn read_key(&mut self, name: &str, value: &Value, key: &str, problems: &mut Vec<Problem>);

    /// Its keys as YAML.
    fn show_keys(&self) -> Vec<(&'static str, Yaml)>;
}

/// Declares a struct of settings: each field is a key of that name, with its default.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::setting::Section for $name {
            const KEYS: &'static [(&'static str, $crate::config::setting::Shape)] =
                &[$(($crate::config::setting::key_name(stringify!($field)), <$type as $crate::config::setting::Setting>::SHAPE),)*];

            fn read_key(
                &mut self,
                name: &str,
                value: &::config::Value,
                key: &str,
                problems: &mut Vec<$crate::config::Problem>,
            ) {
                $(if name == $crate::config::setting::key_name(stringify!($field)) {
                    if let Some(read) = $crate::config::setting::Setting::read(value, key, problems) {
                        self.$field = read;
                    }
                    return;
                })*
            }

            fn show_keys(&self) -> Vec<(&'static str, ::yaml_rust2::Yaml)> {
                vec![$(($crate::config::setting::key_name(stringify!($field)), $crate::config::setting::Setting::show(&self.$field)),)*]
            }
        }
    };
}

/// Declares an enum of which each variant is one word.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The word that stands for it in YAML.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::config::setting::Setting for $name {
            const SHAPE: $crate::config::setting::Shape = $crate::config::setting::Shape::Value;

            fn read(
                value: &::config::Value,
                key: &str,
                problems: &mut Vec<$crate::config::Problem>,
            ) -> Option<Self> {
                const WORDS: &[&str] = &[$($word,)*];
                let word = $crate::config::setting::shown(value);
                match word.as_str() {
                    $($word => Some(Self::$variant),)*
                    _ => $crate::config::setting::refuse(problems, key, format!(
                        "must be one of {}, is {word}{}",
                        WORDS.join(", "),
                        $crate::config::setting::nearest(&word, WORDS.iter().copied()),
                    )),
                }
            }

            fn show(&self) -> ::yaml_rust2::Yaml {
                ::yaml_rust2::Yaml::String(self.as_str().to_owned())
            }
        }
    };
}

pub(super) use {settings, words};

/// The key of a field: `type` for `r#type`.
pub(super) const fn key_name(field: &str) -> &str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Notes a problem; `None` for `?` and for tails.
pub(super) fn refuse<T>(problems: &mut Vec<Problem>, key: &str, message: impl Into<String>) -> Option<T> {
    problems.push(Problem::new(key, message));
    None
}

/// `; did you mean …?`, when a known word is near enough, or is part of this one, or this one of it.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let word = word.to_lowercase();
    let is_part = |part: &str, whole: &str| part.len() >= 4 && whole.contains(part);
    known
        .clone()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(6) / 3)
        .map(|(_, candidate)| candidate)
        .or_else(|| {
            known.clone().find(|candidate| {
                let candidate = candidate.to_lowercase();
                is_part(&word, &candidate) || is_part(&candidate, &word)
            })
        })
        .map(|candidate| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}

/// [`nearest`], or when none is near all keys that there are.
pub(super) fn nearest_or_all(word: &str, keys: &[(&str, Shape)]) -> String {
    let known = keys.iter().map(|(key, _)| *key);
    let hint = nearest(word, known.clone());
    if hint.is_empty() { format!("; there are {}", known.collect::<Vec<_>>().join(", ")) } else { hint }
}

/// What a value is, for messages that must not show it: where a list, a map or a text is due may stand a secret.
pub(super) fn kind(value: &Value) -> &'static str {
    match value.kind {
        ValueKind::Nil => "null",
        ValueKind::Table(_) => "a map",
        ValueKind::Array(_) => "a list",
        ValueKind::String(_) => "text",
        ValueKind::Boolean(_) => "true or false",
        _ => "a number",
    }
}

/// A value as an error message shows it.
pub(super) fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => kind(value).to_owned(),
        ValueKind::String(text) if text.is_empty() => "empty".to_owned(),
        scalar => scalar.to_string(),
    }
}

fn from_environment(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT)
}

impl<T: Section> Setting for T {
    const SHAPE: Shape = Shape::Section(T::KEYS);

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let ValueKind::Table(table) = &value.kind else {
            return refuse(problems, key, format!("must be a map of keys, is {}", kind(value)));
        };
        let mut section = T::default();
        let path = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        for name in table.keys().collect::<BTreeSet<_>>() {
            if !T::KEYS.iter().any(|(known, _)| known == name) {
                let hint = nearest_or_all(name, T::KEYS);
                problems.push(Problem::new(path(name), format!("is not a known key{hint}")));
            }
        }
        for (name, _) in T::KEYS {
            if let Some(value) = table.get(*name).filter(|value| value.kind != ValueKind::Nil) {
                section.read_key(name, value, &path(name), problems);
            }
        }
        Some(section)
    }

    fn show(&self) -> Yaml {
        Yaml::Hash(self.show_keys().into_iter().map(|(key, value)| (Yaml::String(key.to_owned()), value)).collect())
    }
}

impl<T: Setting> Setting for Option<T> {
    const SHAPE: Shape = T::SHAPE;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &value.kind {
            // An empty variable takes back what the file says.
            ValueKind::String(text) if text.is_empty() && from_environment(value) => Some(None),
            _ => T::read(value, key, problems).map(Some),
        }
    }

    fn show(&self) -> Yaml {
        self.as_ref().map_or(Yaml::Null, T::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let mut item = |(index, value): (usize, &Value)| match value.kind {
            ValueKind::Nil => refuse(problems, &format!("{key}[{index}]"), "is empty"),
            _ => T::read(value, &format!("{key}[{index}]"), problems),
        };
        let read: Vec<T> = match &value.kind {
            ValueKind::Array(items) => items.iter().enumerate().filter_map(item).collect(),
            ValueKind::String(text) if from_environment(value) => {
                let origin = ENVIRONMENT.to_owned();
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.enumerate().filter_map(|(i, part)| item((i, &Value::new(Some(&origin), part)))).collect()
            }
            _ => return refuse(problems, key, format!("must be a list in brackets, is {}", kind(value))),
        };
        (problems.len() == before).then_some(read)
    }

    fn show(&self) -> Yaml {
        Yaml::Array(self.iter().map(T::show).collect())
    }
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let ValueKind::Table(table) = &value.kind else {
            return refuse(problems, key, format!("must be a map, is {}", kind(value)));
        };
        let before = problems.len();
        let entries: BTreeMap<_, _> = table.iter().collect();
        let mut read = Self::new();
        for (name, value) in entries {
            let key = format!("{key}.{name}");
            let entry = match value.kind {
                ValueKind::Nil => refuse(problems, &key, "is empty"),
                _ => T::read(value, &key, problems),
            };
            read.extend(entry.map(|entry| (name.clone(), entry)));
        }
        (problems.len() == before).then_some(read)
    }

    fn show(&self) -> Yaml {
        Yaml::Hash(self.iter().map(|(key, value)| (Yaml::String(key.clone()), value.show())).collect())
    }
}

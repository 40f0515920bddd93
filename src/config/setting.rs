//! How one value is read and shown: numbers, words, durations, lists, maps, sections.
//!
//! Reading by hand instead of by serde is what lets one run report every mistake, each under its full key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;
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

/// `; did you mean …?`, when a known word is near enough.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let word = word.to_lowercase();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(6) / 3)
        .map(|(_, candidate)| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}

/// A value as an error message shows it.
pub(super) fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "null".to_owned(),
        ValueKind::Table(_) => "a map".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
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
            return refuse(problems, key, format!("must be a map of keys, is {}", shown(value)));
        };
        let mut section = T::default();
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in entries {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            if !T::KEYS.iter().any(|(known, _)| known == name) {
                let known = T::KEYS.iter().map(|(known, _)| *known);
                problems.push(Problem::new(&key, format!("is not a known key{}", nearest(name, known))));
            } else if value.kind != ValueKind::Nil {
                section.read_key(name, value, &key, problems);
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
            _ => return refuse(problems, key, format!("must be a list, is {}; write [{0}]", shown(value))),
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
            return refuse(problems, key, format!("must be a map, is {}", shown(value)));
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

impl Setting for String {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &value.kind {
            ValueKind::String(text) => Some(text.clone()),
            ValueKind::Table(_) | ValueKind::Array(_) => {
                refuse(problems, key, format!("must be text, is {}", shown(value)))
            }
            // YAML has already lost its leading zeros or its spelling.
            _ => refuse(problems, key, format!("must be text, is {}; put it in quotes", shown(value))),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::String(self.clone())
    }
}

impl Setting for SecretString {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &value.kind {
            ValueKind::String(text) => Some(text.clone().into()),
            ValueKind::Table(_) | ValueKind::Array(_) => {
                refuse(problems, key, format!("must be text, is {}", shown(value)))
            }
            _ => refuse(problems, key, "must be text in quotes: YAML would change an unquoted number or word"),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::String(REDACTED.to_owned())
    }
}

impl Setting for PathBuf {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match String::read(value, key, problems)? {
            path if path.is_empty() => refuse(problems, key, "must be the path of a file, is empty"),
            path => Some(path.into()),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::String(self.display().to_string())
    }
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match shown(value).as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => refuse(problems, key, format!("must be true or false, is {other}")),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::Boolean(*self)
    }
}

impl Setting for usize {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let text = shown(value);
        match text.parse() {
            Ok(number) => Some(number),
            Err(_) => refuse(problems, key, format!("must be a whole number, 0 or more, is {text}")),
        }
    }

    fn show(&self) -> Yaml {
        i64::try_from(*self).map_or_else(|_| Yaml::Real(self.to_string()), Yaml::Integer)
    }
}

impl Setting for f64 {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::I64(number) => Some(*number as f64),
            _ => refuse(problems, key, format!("must be a number, is {}", shown(value))),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::Real(self.to_string())
    }
}

impl Setting for Duration {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let text = shown(value);
        if text.parse::<f64>().is_ok() {
            return refuse(problems, key, format!("must be a duration with its unit, is {text}; write {text}s"));
        }
        match humantime::parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(_) => {
                refuse(problems, key, format!("must be a duration such as 500ms, 15s, 5m, 24h or 1h30m, is {text}"))
            }
        }
    }

    fn show(&self) -> Yaml {
        Yaml::String(duration(*self))
    }
}

/// A duration in the largest unit that says it in one whole number: `168h`, `75s`, `500ms`.
pub(super) fn duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 5] =
        [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms"), (1, "ns")];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (size, unit) = UNITS.into_iter().find(|(size, _)| nanos % size == 0).unwrap_or((1, "ns"));
    format!("{}{unit}", nanos / size)
}

impl Setting for SocketAddr {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let text = shown(value);
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => refuse(
                problems,
                key,
                format!("must be an IP address and a port such as 0.0.0.0:8080 or [::]:8080, is {text}"),
            ),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::String(self.to_string())
    }
}

impl Setting for IpNet {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let text = shown(value);
        match text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(Self::from)) {
            Ok(network) => Some(network),
            Err(_) => refuse(
                problems,
                key,
                format!("must be an address range such as 192.0.2.0/24 or 2001:db8::/32, is {text}"),
            ),
        }
    }

    fn show(&self) -> Yaml {
        Yaml::String(self.to_string())
    }
}

impl Setting for Url {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        const FORM: &str = "must be a URL such as http://pushgateway:9091";
        let text = String::read(value, key, problems)?;
        let Ok(url) = Self::parse(&text) else {
            // Not echoed: what does not parse may hide a password.
            return refuse(problems, key, FORM);
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse(problems, key, format!("{FORM}: scheme http or https, is {}", url.scheme()));
        }
        Some(url)
    }

    fn show(&self) -> Yaml {
        let mut url = self.clone();
        if url.password().is_some() && url.set_password(Some(REDACTED)).is_err() {
            return Yaml::String(REDACTED.to_owned());
        }
        Yaml::String(url.to_string())
    }
}

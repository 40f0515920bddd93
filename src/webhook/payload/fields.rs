//! The fields whose shape varies between real bodies, each with the tolerance that it needs and no more.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::event::{ExtraSource, Timestamp};

/// Writes a visitor for `deserialize_any`: what it expects, what null means, and the forms that it takes.
macro_rules! any_visitor {
    ($type:ident, $expecting:literal, null => $null:expr, $($methods:tt)*) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_unit<E: Error>(self) -> Result<$type, E> {
                        Ok($null)
                    }
                    $($methods)*
                }
                deserializer.deserialize_any(Fields)
            }
        }
    };
}

/// An object, and not a list of its values in the order of our fields, which serde would take as well.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A time in either of Buildkite's formats, or null.
#[derive(Default)]
pub(super) struct Time(pub(super) Option<Timestamp>);

any_visitor! { Time, "a time such as 2020-09-20T03:24:38.888Z, or null", null => Time(None),
    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        match super::parse_time(text) {
            Some(time) => Ok(Time(Some(time))),
            None => Err(E::custom("expected a time such as 2020-09-20T03:24:38.888Z, or null")),
        }
    }
}

/// An exit status: an integer, but floats and digits in a string have been seen too; null before the end.
#[derive(Default)]
pub(super) struct ExitStatus(pub(super) Option<i64>);

any_visitor! { ExitStatus, "an exit status (a number), or null", null => ExitStatus(None),
    fn visit_i64<E: Error>(self, status: i64) -> Result<ExitStatus, E> {
        Ok(ExitStatus(Some(status)))
    }
    fn visit_u64<E: Error>(self, status: u64) -> Result<ExitStatus, E> {
        Ok(ExitStatus(Some(i64::try_from(status).unwrap_or(i64::MAX))))
    }
    fn visit_f64<E: Error>(self, status: f64) -> Result<ExitStatus, E> {
        Ok(ExitStatus(Some(status as i64)))
    }
    fn visit_str<E: Error>(self, status: &str) -> Result<ExitStatus, E> {
        if status.is_empty() {
            return Ok(ExitStatus(None));
        }
        match status.parse::<f64>() {
            Ok(status) => self.visit_f64(status),
            Err(_) => Err(E::custom("expected an exit status (a number), or null")),
        }
    }
}

/// Whether a field holds an object with anything in it; some of Buildkite's examples show `{}` where there is none.
#[derive(Default)]
pub(super) struct Presence(pub(super) bool);

any_visitor! { Presence, "an object or null", null => Presence(false),
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Presence, A::Error> {
        let mut filled = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            filled = true;
        }
        Ok(Presence(filled))
    }
    fn visit_bool<E: Error>(self, present: bool) -> Result<Presence, E> {
        Ok(Presence(present))
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Presence, E> {
        Ok(Presence(false))
    }
}

/// A person or bot: an object with a `name`, or the name itself.
#[derive(Default)]
pub(super) struct Named(pub(super) Option<Box<str>>);

any_visitor! { Named, "an object with a name, a name, or null", null => Named(None),
    fn visit_str<E: Error>(self, name: &str) -> Result<Named, E> {
        Ok(Named((!name.is_empty()).then(|| name.into())))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let mut name = None;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Name => name = map.next_value::<Option<Box<str>>>()?,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Named(name.filter(|name| !name.is_empty())))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Name,
    #[serde(other)]
    Other,
}

/// The first filled `queue=` of a list such as `["queue=linux", "os=linux"]`.
#[derive(Default)]
pub(super) struct QueueRule(pub(super) Option<Box<str>>);

any_visitor! { QueueRule, "a list of key=value strings, or null", null => QueueRule(None),
    fn visit_seq<A: SeqAccess<'de>>(self, mut rules: A) -> Result<QueueRule, A::Error> {
        let mut queue = None;
        while let Some(rule) = rules.next_element::<Text<'_>>()? {
            if queue.is_none() && let Some(name) = rule.0.trim().strip_prefix("queue=").map(str::trim) && !name.is_empty() {
                queue = Some(name.into());
            }
        }
        Ok(QueueRule(queue))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The slugs in an API URL: `…/v2/organizations/<slug>/pipelines/<slug>/…`.
#[derive(Clone, Default)]
pub(super) struct ResourceUrl {
    pub(super) organization: Option<Box<str>>,
    pub(super) pipeline: Option<Box<str>>,
}

any_visitor! { ResourceUrl, "a URL", null => ResourceUrl::default(),
    fn visit_str<E: Error>(self, url: &str) -> Result<ResourceUrl, E> {
        let after = |name: &str| {
            let rest = &url[url.find(name)? + name.len()..];
            let slug = rest.split(['/', '?', '#']).next()?;
            (!slug.is_empty()).then(|| slug.into())
        };
        Ok(ResourceUrl { organization: after("/organizations/"), pipeline: after("/pipelines/") })
    }
}

/// Reads the configured keys of `meta_data` and of the first `env` that has them. What is not a plain value has none.
pub(super) fn extra(
    wanted: &[ExtraSource],
    meta_data: Option<&RawValue>,
    envs: [Option<&RawValue>; 2],
) -> Vec<(ExtraSource, Box<str>)> {
    type Values<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
    fn values(raw: &RawValue) -> Option<Values<'_>> {
        serde_json::from_str(raw.get()).ok()
    }
    fn plain(raw: &RawValue) -> Option<Box<str>> {
        match serde_json::from_str::<serde_json::Value>(raw.get()).ok()? {
            serde_json::Value::String(text) => Some(text.into()),
            serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
            number_or_bool => Some(number_or_bool.to_string().into()),
        }
    }
    let meta_data = meta_data.and_then(values);
    let envs = envs.map(|env| env.and_then(values));
    wanted
        .iter()
        .filter_map(|source| {
            let value = match source {
                ExtraSource::MetaData(key) => meta_data.as_ref()?.get(&**key).and_then(|raw| plain(raw)),
                ExtraSource::Env(key) => envs.iter().flatten().find_map(|env| plain(env.get(&**key)?)),
            };
            Some((source.clone(), super::short(value?)))
        })
        .collect()
}

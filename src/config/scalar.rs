//! The scalar types that a key can have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;
use yaml_rust2::Yaml;

use super::Problem;
use super::setting::{REDACTED, Setting, Shape, kind, refuse, shown};

impl Setting for String {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &value.kind {
            ValueKind::String(text) => Some(text.clone()),
            ValueKind::Table(_) | ValueKind::Array(_) => {
                refuse(problems, key, format!("must be text, is {}", kind(value)))
            }
            // YAML has already lost its leading zeros or its spelling.
            _ => refuse(problems, key, format!("must be text, is {}; put it in quotes", kind(value))),
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
                refuse(problems, key, format!("must be text, is {}", kind(value)))
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
    let (size, unit) = UNITS.into_iter().find(|(size, _)| nanos.is_multiple_of(*size)).unwrap_or((1, "ns"));
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
            return refuse(
                problems,
                key,
                format!("{FORM}: it must begin with http:// or https://, not with {}:", url.scheme()),
            );
        }
        Some(url)
    }

    fn show(&self) -> Yaml {
        let mut url = self.clone();
        if url.password().is_some() && url.set_password(Some("redacted")).is_err() {
            return Yaml::String(REDACTED.to_owned());
        }
        Yaml::String(url.to_string())
    }
}

//! Defaults ← YAML file ← environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use config::{Map, Source, Value, ValueKind};

use super::setting::{Section, Setting, Shape, nearest, nearest_or_all};
use super::{Config, Problem, Warning, yaml};

/// What the `config` crate says of a value from an environment variable.
pub(super) const ENVIRONMENT: &str = "the environment";

const PREFIX: &str = "KITEPUSH__";

/// The environment variables that are kitepush's, by name.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    warnings: Vec<Warning>,
    problems: Vec<Problem>,
}

/// Names only: a value may be a secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// Of names and values; those that are not kitepush's are left out.
    pub fn new(variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>) -> Self {
        let mut environment = Self::default();
        let known = known_variables();
        for (name, value) in variables {
            let (Ok(name), value) = (name.into().into_string(), value.into()) else { continue };
            let upper = name.to_uppercase();
            if upper.starts_with(PREFIX) {
                if name != upper {
                    environment.problems.push(Problem::new(name, format!("must be in upper case: {upper}")));
                } else if let Ok(value) = value.into_string() {
                    environment.variables.insert(name, value);
                } else {
                    environment.problems.push(Problem::new(name, "must be UTF-8"));
                }
            } else if let Some((meant, ..)) =
                known.iter().find(|(known, ..)| known.replace("__", "_") == name.replace("__", "_"))
            {
                environment.warnings.push(Warning::new(name, format!("is not read; did you mean {meant}?")));
            }
        }
        environment
    }

    /// Variables that look like ours and are not.
    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What the `config` crate is to merge over the file, after refusing all that no key can take.
    fn layer(&self, problems: &mut Vec<Problem>) -> config::Environment {
        problems.extend(self.problems.iter().cloned());
        let known = known_variables();
        let mut accepted = Map::new();
        for (name, value) in &self.variables {
            match known.iter().find(|(known, ..)| known == name || is_under(name, known)) {
                Some((known, Shape::Value)) if known == name => {
                    accepted.insert(name.clone(), value.clone());
                }
                Some((_, Shape::Map)) => problems.push(Problem::new(
                    name,
                    "cannot be set by an environment variable, because it is a map; set it in the YAML file",
                )),
                _ if known.iter().any(|(known, _)| is_under(known, name)) => problems
                    .push(Problem::new(name, "is a section; set one of its keys, or the section in the YAML file")),
                _ => {
                    let hint = nearest(name, known.iter().map(|(known, _)| known.as_str()));
                    problems.push(Problem::new(name, format!("is not a known variable{hint}")));
                }
            }
        }
        // `separator` alone would change the separator after the prefix too, and every variable would be overlooked;
        // `try_parsing` would make a number of the secret 00123.
        config::Environment::with_prefix("KITEPUSH").prefix_separator("__").separator("__").source(Some(accepted))
    }
}

fn is_under(name: &str, section: &str) -> bool {
    name.strip_prefix(section).is_some_and(|rest| rest.starts_with("__"))
}

/// Every variable that has a key, with what the key takes.
fn known_variables() -> Vec<(String, Shape)> {
    fn walk(prefix: &str, keys: &[(&str, Shape)], known: &mut Vec<(String, Shape)>) {
        for (key, shape) in keys {
            let name = format!("{prefix}{}", key.to_uppercase());
            match shape {
                Shape::Section(keys) => walk(&format!("{name}__"), keys, known),
                _ => known.push((name, *shape)),
            }
        }
    }
    let mut known = Vec::new();
    walk(PREFIX, Config::KEYS, &mut known);
    known
}

/// The YAML file, parsed, for the `config` crate to merge. Only known keys reach it at the root, because it takes a
/// key there for a path expression.
#[derive(Clone, Debug)]
struct Yaml(Map<String, Value>);

impl Source for Yaml {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// Reads the layers. `Err` when the file is not YAML at all; else what could be read, defaults for what could not, and
/// every problem.
pub(super) fn read(
    file: Option<(&str, &str)>,
    environment: &Environment,
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut root = match file {
        Some((name, text)) => yaml::parse(text, name)?,
        None => Map::new(),
    };
    root.retain(|key, _| {
        let known = Config::KEYS.iter().any(|(known, _)| known == key);
        if !known {
            let hint = nearest_or_all(key, Config::KEYS);
            problems.push(Problem::new(key, format!("is not a known key{hint}")));
        }
        known
    });
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    let merged = config::Config::builder()
        .add_source(Yaml(root))
        .add_source(environment.layer(&mut problems))
        .build()
        .map_err(|error| vec![Problem::new("", error.to_string())])?
        .cache;
    let Some(mut config) = Config::read(&merged, "", &mut problems) else { return Err(problems) };
    if !config.auth.secrets.is_empty() && !is_set(&merged, &["auth", "secret_files"]) {
        config.auth.secret_files.clear();
    }
    Ok((config, problems))
}

fn is_set(root: &Value, path: &[&str]) -> bool {
    path.iter()
        .try_fold(root, |value, key| match &value.kind {
            ValueKind::Table(table) => table.get(*key),
            _ => None,
        })
        .is_some_and(|value| value.kind != ValueKind::Nil)
}

/// Reads a configuration file, which must be of a reasonable size.
pub(super) fn read_file(path: &Path) -> Result<String, Problem> {
    use std::io::Read as _;

    let name = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(yaml::MAX_SIZE as u64 + 1).read_to_string(&mut text))
        .map_err(|error| Problem::new(name, format!("cannot be read: {error}")))?;
    Ok(text)
}

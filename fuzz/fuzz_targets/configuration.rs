//! A configuration file: parsed or refused with the key's path, never a panic; what is accepted prints as YAML that
//! loads again to the same.
#![no_main]

use kitepush::config::{Environment, Loaded};
use libfuzzer_sys::fuzz_target;

const NONE: [(&str, &str); 0] = [];

fuzz_target!(|text: &str| {
    let environment = Environment::new(NONE);
    let loaded = Loaded::parse(Some(("fuzz.yaml", text)), &environment);
    for warning in loaded.warnings() {
        let _ = warning.to_string();
    }
    match loaded.finish() {
        Err(problems) => assert!(!problems.to_string().is_empty()),
        Ok(config) => {
            let shown = config.to_yaml();
            let again = Loaded::parse(Some(("shown.yaml", &shown)), &environment).finish();
            match again {
                Ok(again) => assert_eq!(again.to_yaml(), shown),
                // Redacted secrets do not load again, by intent; nothing else may fail.
                Err(problems) => assert!(shown.contains("<redacted>"), "{problems}\n{shown}"),
            }
        }
    }
});

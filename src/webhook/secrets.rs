//! The webhook secrets: any number of them active at once, from files, directories and the configuration, exchanged
//! without a restart.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus::IntCounter;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::signature::Key;
use crate::config::files::{SecretBytes, read_secrets};
use crate::config::{Auth, Problem};
use crate::health::{Health, Part};
use crate::metrics::own::Own;

/// The secrets that are active at a moment.
#[derive(Debug)]
pub struct Active {
    secrets: Vec<Secret>,
    /// Of all contents: tells whether the files hold something else now.
    digest: [u8; 32],
}

#[derive(Debug)]
struct Secret {
    key: Key,
    matches: IntCounter,
}

impl Active {
    /// The prepared keys, in a fixed order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.secrets.iter().map(|secret| &secret.key)
    }

    /// Counts a delivery that the key at `place` verified.
    pub fn matched(&self, place: usize) {
        if let Some(secret) = self.secrets.get(place) {
            secret.matches.inc();
        }
    }
}

/// Where secrets come from, and those that are active now.
///
/// The lock is held to clone or to replace an `Arc`, never while files are read or codes computed: readers wait a few
/// nanoseconds at most, which is why this is not one more dependency.
pub struct Secrets {
    auth: Auth,
    active: RwLock<Arc<Active>>,
    seen: Mutex<Seen>,
    own: Arc<Own>,
    health: Arc<Health>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("files", &self.auth.secret_files)
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

/// What the last look at the files found.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// What is active.
    Settled,
    /// Other contents.
    Other([u8; 32]),
    /// Something unreadable.
    Failure,
}

impl Secrets {
    /// Reads all of them.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or when there is none.
    pub fn load(auth: Auth, own: Arc<Own>, health: Arc<Health>) -> Result<Self, Problem> {
        let active = RwLock::new(Arc::new(activate(&read_secrets(&auth)?, &own)));
        Ok(Self { auth, active, seen: Mutex::new(Seen::Settled), own, health })
    }

    /// Those that are active now.
    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again. What is new counts from the second look that finds the same: a file that is being
    /// written, or a directory in the middle of Kubernetes' symlink swap, is never taken for a rotation. When files are
    /// unreadable or empty, the secrets that were active stay.
    pub fn look_again(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = read_secrets(&self.auth);
        let now = match &found {
            Err(_) => Seen::Failure,
            Ok(contents) => match digest(contents) {
                same if same == self.active().digest => Seen::Settled,
                other => Seen::Other(other),
            },
        };
        let twice = *seen == now;
        match (&now, found) {
            (Seen::Settled, _) => self.report_works(),
            (Seen::Other(_), Ok(contents)) if twice => {
                let active = Arc::new(activate(&contents, &self.own));
                let ids: Vec<&str> = active.secrets.iter().map(|s| s.key.id().as_str()).collect();
                tracing::info!(secrets = ?ids, "webhook secrets exchanged");
                *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&active);
                self.report_works();
                *seen = Seen::Settled;
                return;
            }
            (Seen::Failure, Err(error)) if twice => self.report_trouble(&error),
            _ => {}
        }
        *seen = now;
    }

    fn report_trouble(&self, error: &Problem) {
        if self.health.degraded(Part::Secrets, format!("{error}; the secrets read before stay active")) {
            tracing::error!(%error, "webhook secrets cannot be read again; those read before stay active");
        }
    }

    fn report_works(&self) {
        if self.health.works(Part::Secrets) {
            tracing::info!("webhook secrets can be read again");
        }
    }
}

fn activate(contents: &[SecretBytes], own: &Own) -> Active {
    let secrets = contents
        .iter()
        .map(|content| {
            let key = Key::new(content.expose_secret());
            let matches = own.secret_matches.with_label_values(&[key.id().as_str()]);
            Secret { key, matches }
        })
        .collect();
    Active { secrets, digest: digest(contents) }
}

fn digest(contents: &[SecretBytes]) -> [u8; 32] {
    let mut all = Sha256::new();
    for content in contents {
        all.update(Sha256::digest(content.expose_secret()));
    }
    all.finalize().into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::signature::{Signature, sign, verify};
    use super::*;

    struct Given {
        dir: TempDir,
        health: Arc<Health>,
        own: Arc<Own>,
    }

    impl Given {
        fn new() -> Self {
            Self { dir: TempDir::new().unwrap(), health: Arc::default(), own: Arc::new(Own::new("test", "test")) }
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.dir.path().join(name), content).unwrap();
        }

        fn load(&self, files: &[&str], inline: &[&str]) -> Result<Secrets, Problem> {
            let secret_files = files.iter().map(|name| self.dir.path().join(name)).collect();
            let secrets = inline.iter().map(|text| (*text).into()).collect();
            let auth = Auth { secret_files, secrets, ..Auth::default() };
            Secrets::load(auth, Arc::clone(&self.own), Arc::clone(&self.health))
        }
    }

    fn accepts(secrets: &Secrets, secret: &str) -> bool {
        let header = sign(secret.as_bytes(), 1, b"body");
        verify(secrets.active().keys(), &Signature::parse(header.as_bytes()).unwrap(), b"body").is_ok()
    }

    #[test]
    fn files_directories_and_inline_secrets_are_all_active() {
        let given = Given::new();
        given.write("file", "from file\n");
        fs::create_dir(given.dir.path().join("mount")).unwrap();
        fs::create_dir(given.dir.path().join("mount/not-a-file")).unwrap();
        given.write("mount/one", "first\r\n");
        given.write("mount/two", "second");
        given.write("mount/.hidden", "hidden");
        let secrets = given.load(&["file", "mount"], &["inline"]).unwrap();
        for secret in ["from file", "first", "second", "inline"] {
            assert!(accepts(&secrets, secret), "{secret}");
        }
        assert!(!accepts(&secrets, "hidden"));
        assert!(!accepts(&secrets, "first\r\n"));
        assert_eq!(secrets.active().keys().count(), 4);
    }

    #[test]
    fn a_start_without_a_readable_secret_is_refused() {
        let given = Given::new();
        fs::create_dir(given.dir.path().join("bare")).unwrap();
        for files in [&[][..], &["bare"], &["missing"]] {
            assert!(given.load(files, &[]).unwrap_err().key.starts_with("auth.secret_files"));
        }
    }

    #[test]
    fn a_symlink_swap_as_kubernetes_does_it_is_picked_up() {
        let given = Given::new();
        let mount = given.dir.path().join("mount");
        for (version, secret) in [("..v1", "old"), ("..v2", "new")] {
            fs::create_dir_all(mount.join(version)).unwrap();
            fs::write(mount.join(version).join("token"), secret).unwrap();
        }
        symlink("..v1", mount.join("..data")).unwrap();
        symlink("..data/token", mount.join("token")).unwrap();
        let secrets = given.load(&["mount"], &[]).unwrap();
        assert!(accepts(&secrets, "old"));

        symlink("..v2", mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        secrets.look_again();
        secrets.look_again();
        assert!(accepts(&secrets, "new") && !accepts(&secrets, "old"));
    }

    #[test]
    fn a_half_written_file_never_replaces_a_secret() {
        let given = Given::new();
        given.write("token", "complete");
        let secrets = given.load(&["token"], &[]).unwrap();
        given.write("token", "comp");
        secrets.look_again();
        given.write("token", "complete2");
        secrets.look_again();
        assert!(accepts(&secrets, "complete") && !accepts(&secrets, "comp"));
        secrets.look_again();
        assert!(accepts(&secrets, "complete2") && !accepts(&secrets, "complete"));
    }

    #[test]
    fn the_old_set_stays_while_the_new_one_is_unreadable_or_empty() {
        let given = Given::new();
        given.write("token", "kept");
        let secrets = given.load(&["token"], &[]).unwrap();
        for spoil in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "").unwrap()] {
            spoil(&given.dir.path().join("token"));
            secrets.look_again();
            assert!(given.health.troubles().is_empty(), "one failed look is no trouble");
            secrets.look_again();
            assert!(accepts(&secrets, "kept"));
            assert!(given.health.troubles()[&Part::Secrets].contains("stay active"));
            given.write("token", "kept");
            secrets.look_again();
            assert!(given.health.troubles().is_empty());
        }
    }

    #[test]
    fn nothing_printed_shows_a_secret() {
        let given = Given::new();
        given.write("token", "planted-value");
        let secrets = given.load(&["token"], &["planted-value-2"]).unwrap();
        assert!(!format!("{secrets:?} {:?}", secrets.active()).contains("planted"));
    }

    #[test]
    fn each_match_is_counted_under_the_short_id_of_the_secret() {
        let given = Given::new();
        let secrets = given.load(&[], &["one", "two"]).unwrap();
        let id = *Key::new(b"two").id();
        let place = secrets.active().keys().position(|key| *key.id() == id).unwrap();
        secrets.active().matched(place);
        assert_eq!(given.own.secret_matches.with_label_values(&[id.as_str()]).get(), 1);
    }
}

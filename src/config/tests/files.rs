//! Secrets, credentials and certificates on disk.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::files::{problems, read_key_pair, read_secret, read_secrets};

fn auth(paths: &[&Path]) -> Auth {
    Auth { secret_files: paths.iter().map(|path| path.to_path_buf()).collect(), ..Auth::default() }
}

fn texts(auth: &Auth) -> Vec<String> {
    let secrets = read_secrets(auth).unwrap();
    secrets.iter().map(|secret| String::from_utf8(secret.expose_secret().to_vec()).unwrap()).collect()
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

#[test]
fn the_newlines_that_end_a_secret_are_not_part_of_it() {
    let dir = Dir::new();
    for (content, secret) in
        [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n\n", "abc"), (" a\nb ", " a\nb "), ("\0\n", "\0")]
    {
        let path = dir.write("secret", content);
        assert_eq!(read_secret(&path).unwrap().expose_secret(), secret.as_bytes(), "{content:?}");
    }
    for empty in ["", "\n", "\r\n\n"] {
        let path = dir.write("secret", empty);
        assert_eq!(read_secret(&path).unwrap_err().to_string(), format!("{} is empty", path.display()));
    }
}

#[test]
fn a_directory_gives_each_regular_file_without_a_dot_once() {
    let dir = Dir::new();
    dir.write("b", "second");
    dir.write("a", "first\n");
    dir.write("c", "first");
    dir.write(".hidden", "no");
    fs::create_dir(dir.path().join("subdirectory")).unwrap();
    assert_eq!(texts(&auth(&[dir.path()])), ["first", "second"]);
}

#[cfg(unix)]
#[test]
fn kubernetes_links_are_followed() {
    use std::os::unix::fs::symlink;

    let dir = Dir::new();
    let data = dir.path().join("..2025_01_01");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("token"), "mounted").unwrap();
    symlink("..2025_01_01", dir.path().join("..data")).unwrap();
    symlink("..data/token", dir.path().join("token")).unwrap();
    assert_eq!(texts(&auth(&[dir.path()])), ["mounted"]);
}

#[test]
fn inline_secrets_come_first() {
    let dir = Dir::new();
    let path = dir.write("secret", "file");
    assert_eq!(texts(&Auth { secrets: vec!["inline".into()], ..auth(&[&path]) }), ["inline", "file"]);
}

#[test]
fn a_set_of_secrets_that_is_not_whole_is_refused() {
    let dir = Dir::new();
    let (good, empty) = (dir.write("good", "secret"), Dir::new());
    let missing = dir.path().join("missing");
    let line = |paths: &[&Path]| read_secrets(&auth(paths)).unwrap_err().to_string();
    assert_eq!(
        line(&[&good, &missing]),
        format!("auth.secret_files[1]: {} cannot be read: No such file or directory (os error 2)", missing.display())
    );
    assert_eq!(
        line(&[empty.path()]),
        format!(
            "auth.secret_files[0]: {} holds no secret: it has no regular file whose name begins with no dot",
            empty.path().display()
        )
    );
    let blank = empty.write("blank", "\n");
    assert_eq!(line(&[empty.path()]), format!("auth.secret_files[0]: {} is empty", blank.display()));
    assert_eq!(line(&[]), "auth.secret_files: must name at least one webhook secret");
}

fn certificate(dir: &Dir, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec![format!("{name}.example.com")]).unwrap();
    let cert_file = dir.write(&format!("{name}.crt"), made.cert.pem());
    (cert_file, dir.write(&format!("{name}.key"), made.signing_key.serialize_pem()))
}

#[test]
fn a_key_that_is_another_certificates_is_refused() {
    let dir = Dir::new();
    let ((cert_a, key_a), (_, key_b)) = (certificate(&dir, "a"), certificate(&dir, "b"));
    assert!(read_key_pair(&cert_a, &key_a).is_ok());
    let line = format!("{} is not the key of the certificate", key_b.display());
    assert_eq!(read_key_pair(&cert_a, &key_b).unwrap_err().to_string(), line);
}

#[test]
fn every_file_that_is_named_is_opened() {
    let dir = Dir::new();
    let (cert, key) = certificate(&dir, "a");
    let (secret, nonsense) = (dir.write("secret", "abc"), dir.write("nonsense", "-----BEGIN CERTIFICATE-----\n!\n"));
    let mut config = kitchen_sink();
    config.auth.secret_files = vec![secret.clone()];
    config.server.tls = Some(ServerTls { cert_file: cert.clone(), key_file: key.clone(), client_ca_file: None });
    config.admin.tls = Some(ServerTls { cert_file: key, key_file: cert, client_ca_file: Some(nonsense) });
    config.push.http.tls_config.ca_file = Some(secret.clone());
    config.state.path = Some(secret.with_file_name("missing").join("state.db"));
    let keys: Vec<_> = problems(&config).into_iter().map(|problem| problem.key).collect();
    assert_eq!(
        keys,
        [
            "admin.tls.cert_file",
            "admin.tls.key_file",
            "admin.tls.client_ca_file",
            "state.path",
            "admin.auth.bearer_token_file",
            "push.http.headers.X-Api-Key.files[0]",
            "push.http.tls_config.ca_file",
            "push.http.tls_config.cert_file",
            "push.http.tls_config.key_file",
            "push.http.oauth2.tls_config.ca_file",
        ]
    );
}

#[test]
fn the_state_file_may_be_new_and_its_directory_may_not() {
    let dir = Dir::new();
    let folder = dir.write("secret", "abc").parent().unwrap().to_owned();
    let message = |path: PathBuf| {
        let mut config = Config::default();
        config.auth.secret_files = vec![folder.join("secret")];
        config.state.path = Some(path);
        problems(&config).into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>()
    };
    assert!(message(folder.join("state.db")).is_empty() && message("state.db".into()).is_empty());
    let missing = folder.join("missing");
    let line = format!("state.path: the directory {} is not there; make it", missing.display());
    assert_eq!(message(missing.join("state.db")), [line]);
    let line = format!("state.path: {} is a directory; name a file in it", folder.display());
    assert_eq!(message(folder.clone()), [line]);
}

#[test]
fn the_output_of_check_is_no_configuration_to_serve_with() {
    let dir = Dir::new();
    let config = load(&kitchen_sink().to_yaml()).finish().unwrap();
    let lines: Vec<_> = problems(&config).iter().map(Problem::to_string).collect();
    let line = "auth.secrets[0]: must be the secret itself, is <redacted>, which `kitepush check` prints instead";
    assert!(lines.iter().any(|found| found == line), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains(REDACTED)).count(), 4);
    assert!(read_secrets(&Auth { secrets: vec![REDACTED.into()], ..auth(&[&dir.write("s", "s")]) }).is_err());
}

use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Uid, User};

/// A PostgreSQL installation and the operating system user its servers run as.
#[derive(Debug, Clone)]
pub struct Installation {
    bindir: PathBuf,
    owner: Option<User>,
}

impl Installation {
    /// The installation that the environment asks for.
    pub fn from_env() -> Result<Self> {
        let pg_config = std::env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into());
        let bindir = output(Command::new(pg_config).arg("--bindir"))?;
        Ok(Self {
            bindir: bindir.trim_end().into(),
            owner: owner()?,
        })
    }

    /// Where its programs are.
    pub(crate) fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// A client program, such as `psql`, run as the current user and free of the caller's `PG…` variables.
    #[must_use]
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bindir.join(name));
        for (variable, _) in std::env::vars_os() {
            if is_libpq_variable(&variable) {
                command.env_remove(variable);
            }
        }
        command
    }

    /// A server program, such as `initdb`, run as the user that owns the cluster.
    #[must_use]
    pub fn server_program(&self, name: &str, directory: &Path) -> Command {
        let mut command = self.client_program(name);
        // The owner may not be allowed to enter the current directory.
        command.current_dir(directory).env("HOME", directory);
        // The extension would add a Rust backtrace to every error it reports.
        command.env_remove("RUST_BACKTRACE");
        command.env("LC_ALL", "C");
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    }

    /// A new directory below `parent` that only the user who runs the servers can enter.
    pub(crate) fn private_directory(&self, parent: &Path) -> Result<PathBuf> {
        let directory = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in(parent)
            .with_context(|| format!("could not make a directory in {}", parent.display()))?;
        if let Some(owner) = &self.owner {
            chown(
                directory.path(),
                Some(owner.uid.as_raw()),
                Some(owner.gid.as_raw()),
            )?;
        }
        Ok(directory.keep())
    }
}

fn is_libpq_variable(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with("PG") && name != "PG_CONFIG")
}

fn owner() -> Result<Option<User>> {
    let name = std::env::var("SAFE_BACKFILL_RUN_AS").unwrap_or_default();
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    if name.is_empty() {
        bail!("PostgreSQL does not run as root: name an unprivileged user in SAFE_BACKFILL_RUN_AS");
    }
    let user =
        User::from_name(&name)?.with_context(|| format!("user \"{name}\" does not exist"))?;
    Ok(Some(user))
}

/// Runs a command to its end and returns what it printed; a failure carries what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command
        .output()
        .with_context(|| format!("could not run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

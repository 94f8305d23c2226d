use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::SUPERUSER;
use crate::installation::{Installation, output};

/// The directories of one database cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) installation: Installation,
    directory: PathBuf,
    sockets: PathBuf,
    environment: Vec<(String, String)>,
    turn: Mutex<()>,
}

impl Cluster {
    /// An empty place for a cluster, whose server gets these variables besides its usual environment.
    pub(crate) fn allocate(
        installation: Installation,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let state =
            std::env::var_os("SAFE_BACKFILL_STATE").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = installation.private_directory(&state)?;
        // The path of a socket is limited to 107 bytes, so it can't live below any directory the caller likes.
        let sockets = installation.private_directory(Path::new("/tmp"))?;
        Ok(Self {
            installation,
            directory,
            sockets,
            environment,
            turn: Mutex::default(),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn sockets(&self) -> &Path {
        &self.sockets
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// A new, empty cluster.
    pub(crate) fn init(&self) -> Result<()> {
        self.perform(
            self.server_program("initdb")
                .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"])
                .args(["--username", SUPERUSER])
                .arg("--pgdata")
                .arg(self.data()),
        )
    }

    /// A standby's copy of the cluster that listens on `sockets`.
    pub(crate) fn copy_from(&self, sockets: &Path) -> Result<()> {
        self.perform(
            self.server_program("pg_basebackup")
                .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
                .args(["--username", SUPERUSER])
                .arg("--host")
                .arg(sockets)
                .arg("--pgdata")
                .arg(self.data()),
        )
    }

    /// Moves the databases of a cluster whose server is stopped into this one, which is empty.
    pub(crate) fn upgrade_from(&self, old: &Cluster) -> Result<()> {
        self.perform(
            self.server_program("pg_upgrade")
                .args(["--username", SUPERUSER])
                .arg("--old-bindir")
                .arg(old.installation.bindir())
                .arg("--new-bindir")
                .arg(self.installation.bindir())
                .arg("--old-datadir")
                .arg(old.data())
                .arg("--new-datadir")
                .arg(self.data())
                .arg("--socketdir")
                .arg(&self.sockets),
        )
    }

    /// Adds settings to the configuration file; the last one of a name counts.
    pub(crate) fn configure(&self, settings: &[(String, String)]) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut text =
            fs::read_to_string(&path).context("could not read the configuration file")?;
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        fs::write(&path, text).context("could not write the configuration file")
    }

    /// Runs `pg_ctl` with an action and waits until it is done.
    pub(crate) fn control(&self, action: &[&str]) -> Result<()> {
        self.perform(&mut self.pg_ctl(action))
    }

    /// The process id of the postmaster, if one runs.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Stops the server if it runs and removes all it has left.
    pub(crate) fn remove(&self) {
        let _turn = self.turn();
        if self.postmaster().is_some() {
            // There is nobody to tell, and the directories go anyway.
            let _ = output(&mut self.pg_ctl(&["stop", "-m", "immediate"]));
        }
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(&self.sockets);
    }

    fn pg_ctl(&self, action: &[&str]) -> Command {
        let mut command = self.server_program("pg_ctl");
        command
            .envs(self.environment.iter().cloned())
            .args(action)
            .args(["-w", "-s", "-t", "300", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.log());
        command
    }

    fn perform(&self, command: &mut Command) -> Result<()> {
        let _turn = self.turn();
        output(command)?;
        Ok(())
    }

    /// Only one program works on the directories at a time: after an interrupt they are removed by another thread.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server_program(&self, name: &str) -> Command {
        self.installation.server_program(name, &self.directory)
    }
}

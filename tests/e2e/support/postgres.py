"""A PostgreSQL of a test's own, whose log is kept and which may be lost; as root it runs as the user postgres."""
import os
import pwd
import shutil
import signal
import subprocess
import tempfile

from support.process import Process, free_port
from support.stack import psql
from support.wait import until

BIN = os.environ.get("TALLY_POSTGRES_BIN", "/usr/lib/postgresql/15/bin")
TOOLS = os.path.join(os.path.dirname(__file__), "..", "..", "..", "deploy", "backup")


class Postgres(Process):
    def __init__(self, log_folder):
        # Not beside the logs: the user postgres may not be able to enter that folder.
        self.home = tempfile.mkdtemp(prefix="tally-postgres-")
        self.user = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.home, owner.pw_uid, owner.pw_gid)
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig", "KILL"]
        self.data = os.path.join(self.home, "data")
        self.backups = os.path.join(self.home, "backups")
        self.port = free_port()
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        os.makedirs(log_folder, exist_ok=True)
        super().__init__("postgres", [*self.user, os.path.join(BIN, "postgres"), "-D", self.data],
                         {**os.environ, "TZ": "UTC"}, os.path.join(log_folder, "postgres.log"), self.home)

    def start(self):
        if not os.path.exists(self.data):
            self._create()
        self.spawn()
        until("PostgreSQL answers", self._answers)

    def _answers(self):
        self.spawn_again_where_its_port_was_taken()
        return psql(self.dsn, "SELECT 1")

    def stop(self, how=signal.SIGINT):
        self.signal(how)
        self.wait()

    def remove(self):
        self.kill()
        shutil.rmtree(self.home)

    def now(self):
        return psql(self.dsn, "SELECT clock_timestamp() AT TIME ZONE 'UTC'")[0][0] + "Z"

    def tool(self, name, *arguments, check=0):
        """A script of deploy/backup; `check`: the exit code that is expected. Returns all that it says."""
        done = subprocess.run([os.path.join(TOOLS, name), "--folder", self.backups, *arguments],
                              capture_output=True, text=True, timeout=120, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == check, f"{name} {arguments} ended with {done.returncode}, not {check}:\n{said}"
        return said

    def keep_log(self):
        """Turns archiving on, which takes a restart."""
        assert "Restart it" in self.tool("archive", "--dsn", self.dsn)
        self.stop()
        self.start()
        assert "The log is kept" in self.tool("archive", "--dsn", self.dsn)

    def _create(self):
        subprocess.run([*self.user, os.path.join(BIN, "initdb"), "-D", self.data, "-U", "postgres", "-E", "UTF8",
                        "--locale=C.UTF-8", "-A", "trust", "--no-sync", "--wal-segsize=1"], cwd="/", check=True, capture_output=True)
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as file:
            file.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n"
                       "timezone = 'UTC'\nlog_timezone = 'UTC'\n"
                       # What a killed server has written is safe from anything but a power cut, which is not tested.
                       "fsync = off\nshared_buffers = 32MB\n")

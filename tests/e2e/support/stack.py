"""A stack: Tally's three services on a database, topics, consumer group and Redis of their own.

PostgreSQL and Kafka are the servers of TALLY_PG_DSN and TALLY_KAFKA_BROKERS, shared with other stacks and never
stopped; the database and the topics on them belong to the stack alone.
"""
import os
import secrets
import shutil
import subprocess
import urllib.request
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit

from support import kafka
from support.api import Client, Response
from support.murmur2 import partition_of
from support.process import Process, free_port
from support.redis import Redis
from support.wait import PATIENCE_S, until

PARTITIONS = 8
# What a service waits before it calls a server dead, many times what is right in production: on a machine that stands still
# for a second nothing is dead. {setting: (value, the programs that have it)}
PATIENT = {
    "TALLY_BREAKER_MS": ("10000", ("command", "query")),
    "TALLY_COMMAND_TIMEOUT_MS": ("60000", ("command",)),
    "TALLY_REDIS_TIMEOUT_MS": ("10000", ("projector", "query", "ctl")),
    "TALLY_DRAIN_MS": ("60000", ("command", "projector", "query", "ctl")),
}
TALLIED = """
SELECT u.id, u.version, (SELECT count(*) FROM posts p WHERE p.author_id = u.id AND p.deleted_at IS NULL),
       (SELECT count(*) FROM comments c WHERE c.author_id = u.id)
FROM users u WHERE u.deleted_at IS NULL
"""
UNSWEPT = """
SELECT (SELECT count(*) FROM posts WHERE deleted_at IS NOT NULL)
     + (SELECT count(*) FROM users WHERE deleted_at IS NOT NULL AND swept_at IS NULL)
"""


def required(name):
    value = os.environ.get(name)
    assert value, f"{name} is not set: tests/run sets it"
    return value


class Service(Process):
    """One of the three services, with its admin port and, where it has one, its API."""

    def __init__(self, stack, kind, number, settings):
        self.kind = kind
        self.admin = f"127.0.0.1:{free_port()}"
        self.settings = {"TALLY_ADMIN_LISTEN": self.admin, "TALLY_LOG_LEVEL": stack.log_level}
        self.api = None
        if kind != "projector":
            self.api = f"127.0.0.1:{free_port()}"
            self.settings[f"TALLY_{kind.upper()}_LISTEN"] = self.api
        else:
            # Static membership: a projector that was killed takes its partitions again without waiting for the
            # group to miss it.
            self.settings["TALLY_GROUP_INSTANCE_ID"] = f"projector-{number}"
        self.settings.update(stack.settings_of(kind))
        self.settings.update(settings)
        name = f"{kind}-{number}"
        super().__init__(name, [stack.program(f"tally-{kind}")], stack.environment(self.settings),
                         os.path.join(stack.folder, f"{name}.log"), stack.folder)
        self.client = Client(self.api) if self.api else None

    def start(self):
        self.spawn()
        self.until_ready()
        return self

    def until_ready(self):
        until(f"{self.name} is ready", self._ready_or_dead)

    def _ready_or_dead(self):
        self.spawn_again_where_its_port_was_taken()
        if not self.runs():
            raise RuntimeError(f"{self.name} ended with {self._popen.returncode}:\n{self.log_tail()}")
        answer = self.look("/readyz?verbose")
        assert answer.status == 200, answer.body
        return True

    def look(self, path, timeout=30):
        """GET on the admin port."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=timeout) as answer:
                return Response(answer.status, answer.headers, answer.read())
        except HTTPError as error:
            with error:
                return Response(error.code, error.headers, error.read())

    def ready(self):
        return self.look("/readyz").status == 200

    def metrics(self):
        """{name with labels: value}"""
        text = self.look("/metrics").body.decode()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in text.splitlines() if line and not line.startswith("#")}


class Stack:
    living = []
    log_level = "debug"

    def __init__(self, folder, impatient=()):
        """`impatient`: the programs that wait no longer than they do in production."""
        self.folder = str(folder)
        # Of an earlier run: its data would be taken for this one's.
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        self.id = secrets.token_hex(6)
        self.brokers = required("TALLY_KAFKA_BROKERS")
        self.topic = f"tally.e2e.{self.id}.events"
        self.dlq_topic = f"tally.e2e.{self.id}.dlq"
        self.server_dsn = required("TALLY_PG_DSN")
        self.database = f"tally_e2e_{self.id}"
        self.dsn = urlunsplit(urlsplit(self.server_dsn)._replace(path=f"/{self.database}"))
        self.redis = Redis(self.folder, os.path.join(self.folder, "redis.log"))
        self.services = []
        self.impatient = impatient
        self.partitions = PARTITIONS
        self._user_count = 0
        Stack.living.append(self)

    # --- life ---------------------------------------------------------------------------------------------

    def start(self):
        """All three services, ready."""
        self.prepare()
        for kind in ("command", "projector", "query"):
            self.add(kind).spawn()
        for service in self.services:
            service.until_ready()
        return self

    def prepare(self):
        """The servers' part alone: Redis, database, schema, topics."""
        self.redis.start()
        self.server_sql(f"CREATE DATABASE {self.database}")
        self.ctl("migrate", check=0)
        self.make_topics()

    def make_topics(self):
        until("the topics are made", lambda: self.ctl("topics", "create", "--partitions", str(PARTITIONS), check=0))
        kafka.until_led(self.brokers, self.topic, PARTITIONS)

    def add(self, kind, **settings):
        number = 1 + sum(service.kind == kind for service in self.services)
        service = Service(self, kind, number, settings)
        self.services.append(service)
        return service

    def stop(self):
        for process in [*self.services, self.redis]:
            process.resume()
            process.kill()
        # Refused while PostgreSQL's own vacuum is in it.
        until("the database is dropped",
              lambda: self.server_sql(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)") is not None)
        Stack.living.remove(self)
        kafka.delete_topics(self.brokers, [self.topic, self.dlq_topic])

    def logs(self):
        for process in [*self.services, self.redis]:
            yield process.name, process.log_tail()

    # --- settings -----------------------------------------------------------------------------------------

    def settings_of(self, kind):
        """Each side is told only of the servers it may talk to."""
        settings = {}
        if kind in ("command", "ctl"):
            settings["TALLY_PG_DSN"] = self.dsn
        if kind in ("command", "projector", "ctl"):
            settings.update(TALLY_KAFKA_BROKERS=self.brokers, TALLY_TOPIC=self.topic)
        if kind in ("projector", "ctl"):
            settings.update(TALLY_DLQ_TOPIC=self.dlq_topic, TALLY_CONSUMER_GROUP=f"tally-e2e-{self.id}")
        if kind in ("projector", "query", "ctl"):
            settings["TALLY_REDIS_URL"] = self.redis.url
        if kind not in self.impatient:
            settings.update({name: value for name, (value, kinds) in PATIENT.items() if kind in kinds})
        return settings

    @staticmethod
    def environment(settings):
        own = {name: value for name, value in os.environ.items()
               if not name.startswith("TALLY_") or name == "TALLY_TEST_RUN"}
        return {**own, **settings}

    @staticmethod
    def program(name):
        return os.path.join(required("TALLY_BIN_DIR"), name)

    # --- the services -------------------------------------------------------------------------------------

    def service(self, kind, number=1):
        return next(service for service in self.services if service.name == f"{kind}-{number}")

    @property
    def command(self):
        return self.service("command")

    @property
    def projector(self):
        return self.service("projector")

    @property
    def query(self):
        return self.service("query")

    @property
    def write(self):
        return self.command.client

    @property
    def read(self):
        return self.query.client

    # --- tools --------------------------------------------------------------------------------------------

    def ctl(self, *arguments, check=None, timeout=300, **settings):
        """tallyctl on this stack; `check`: the exit code that is expected."""
        own = self.settings_of("ctl")
        for service in reversed(self.services):
            own[f"TALLY_{service.kind.upper()}_ADMIN"] = service.admin
            if service.api:
                own[f"TALLY_{service.kind.upper()}_LISTEN"] = service.api
        own.update(settings)
        done = subprocess.run([self.program("tallyctl"), *arguments], env=self.environment(own), cwd=self.folder,
                              capture_output=True, text=True, timeout=timeout, check=False)
        if check is not None:
            assert done.returncode == check, (
                f"tallyctl {' '.join(arguments)} ended with {done.returncode}, not {check}:\n"
                f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    def sql(self, statement, timeout=120):
        """Rows of text, by psql on the stack's database."""
        return psql(self.dsn, statement, timeout)

    def server_sql(self, statement):
        """On the server's own database."""
        return psql(self.server_dsn, statement)

    # --- writing ------------------------------------------------------------------------------------------

    def new_profile(self):
        self._user_count += 1
        return {"name": f"User {self._user_count}", "email": f"user-{self._user_count}.{self.id}@example.org"}

    def new_user(self, client=None):
        """The id of a user that was just made."""
        answer = (client or self.write).post("/v1/users", self.new_profile())
        assert answer.status == 201, answer
        return answer.json["id"]

    def new_post(self, author, client=None):
        answer = (client or self.write).post("/v1/posts", {"authorId": author, "body": "A post"})
        assert answer.status == 201, answer
        return answer.json["id"]

    def new_comment(self, post, author, client=None):
        answer = (client or self.write).post(f"/v1/posts/{post}/comments", {"authorId": author, "body": "A comment"})
        assert answer.status == 201, answer
        return answer.json["id"]

    # --- reading ------------------------------------------------------------------------------------------

    def user_at(self, user, version):
        """The user's document at this version or a later one."""
        def looked():
            answer = self.read.get(f"/v1/users/{user}", {"Prefer": "wait=5"}, {"minVersion": version})
            assert answer.status in (200, 503), answer
            return answer.status == 200 and answer
        return until(f"user {user} is read at version {version}", looked)

    def recount(self):
        """{user: (version, posts, comments)} of every living user, counted in PostgreSQL."""
        return {row[0]: tuple(map(int, row[1:])) for row in self.sql(TALLIED)}

    def read_model(self, users):
        """The same of these users as the read API tells it; users that it does not know are left out."""
        found = {}
        for at in range(0, len(users), 100):
            answer = self.read.get("/v1/users", query={"ids": ",".join(users[at:at + 100])})
            assert answer.status == 200, answer
            for row in answer.json["users"]:
                assert "degraded" not in row, row
                found[row["user"]["id"]] = (row["version"], row["postCount"], row["commentCount"])
        return found

    def stats(self):
        answer = self.read.get("/v1/stats")
        assert answer.status == 200, answer
        return answer.json

    def totals(self):
        stats = self.stats()
        return stats["users"], stats["posts"], stats["comments"]

    def until_swept(self, seconds=PATIENCE_S):
        """Until the background half of deleting has nothing more to do."""
        until("nothing is left to sweep", lambda: self.sql(UNSWEPT) == [["0"]], seconds)

    def until_equal(self, seconds=PATIENCE_S):
        """Waits until the read model equals a recount, both by our own count and by tallyctl verify; returns it."""
        self.until_swept(seconds)
        source = self.recount()

        def differing():
            shown = self.read_model(sorted(source))
            different = [(user, source[user], shown.get(user)) for user in source if source[user] != shown.get(user)]
            assert not different, (f"{len(different)} of {len(source)} users differ, (version, posts, comments) "
                                   f"in PostgreSQL and as read: {different[:5]}")
            return True
        until("the read model equals a recount", differing, seconds)
        expected = (len(source), sum(row[1] for row in source.values()), sum(row[2] for row in source.values()))

        def totalled():
            totals = self.totals()
            assert totals == expected, f"/v1/stats says {totals}"
            return True
        until(f"the totals (users, posts, comments) are {expected}", totalled, seconds)
        self.ctl("verify", check=0)
        return source

    def applied(self):
        """Sum of the read model's positions: events applied since the topic began."""
        script = ("local sum = 0 for p = 0, ARGV[1] - 1 do sum = sum + (redis.call('HGET', 'tally:' .. "
                  "redis.call('GET', 'tally:generation') .. ':{' .. p .. '}:position', 'offset') or 0) end return sum")
        return int(self.redis.call("EVAL", script, "0", str(self.partitions)))

    def user_key(self, user):
        """The user's key in Redis, by our own reading of the layout."""
        generation = self.redis.call("GET", "tally:generation")
        return f"tally:{generation}:{{{partition_of(user, self.partitions)}}}:user:{user}"


def psql(dsn, statement, timeout=120):
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", statement],
        capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise OSError(f"{statement}: {done.stderr}")
    return [line.split("\t") for line in done.stdout.splitlines()]


class Lock:
    """Holds what `statement` locks; it returns one row."""

    def __init__(self, stack, statement):
        self.stack = stack
        self.statement = statement

    def __enter__(self):
        self.session = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", self.stack.dsn], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.session.stdin.write(f"BEGIN; {self.statement};\n")
        self.session.stdin.flush()
        assert self.session.stdout.readline().strip(), f"nothing to lock: {self.statement}"
        return self

    def until_awaited(self, sessions=1):
        """Until so many sessions of the database wait for a lock."""
        until(f"{sessions} sessions wait for {self.statement}", lambda: int(self.stack.server_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            f"AND datname = '{self.stack.database}'")[0][0]) >= sessions)

    def release(self):
        if self.session.poll() is None:
            self.session.communicate("ROLLBACK;\n", timeout=30)

    def __exit__(self, *_):
        self.release()


class RowLock(Lock):
    """Holds the row of a user, so that a write to that user stays in flight for as long as the test likes."""

    def __init__(self, stack, user):
        super().__init__(stack, f"SELECT id FROM users WHERE id = {user} FOR UPDATE")

"""The relay, stopped at a chosen place."""
from support.stack import Lock
from support.wait import until

SAVING = """
FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tally-relay'
AND wait_event_type = 'Lock' AND query LIKE 'update relay_position set snapshot%'
"""


class HeldPosition(Lock):
    """While it is held the relay cannot save its position; what it has published until then is in Kafka."""

    def __init__(self, stack):
        super().__init__(stack, "SELECT only_row FROM relay_position FOR UPDATE")

    def until_relay_waits(self):
        """Kafka has acknowledged a batch: only then the relay saves."""
        until("the relay waits to save its position", lambda: self.stack.sql(f"SELECT count(*) {SAVING}") == [["1"]],
              pause_s=0.005)

    def drop_what_waits(self):
        """The session of a killed relay would save as soon as it may: PostgreSQL does not notice the death of a client
        that waits for a lock."""
        self.stack.sql(f"SELECT pg_terminate_backend(pid) {SAVING}")
        until("nobody waits to save a position", lambda: self.stack.sql(f"SELECT count(*) {SAVING}") == [["0"]])

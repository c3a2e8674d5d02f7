"""What an operator may do to the topic of a stack: delete it, make it anew, add partitions, drop records."""
import json
import subprocess

from support import kafka
from support.stack import PARTITIONS
from support.wait import until


def delete(stack):
    kafka.delete_topics(stack.brokers, [stack.topic])
    until("the topic is gone", lambda: partitions(stack) == 0)


def recreate(stack):
    delete(stack)
    stack.make_topics()


def add_partitions(stack, count):
    kafka.add_partitions(stack.brokers, stack.topic, count)
    until("the topic has more partitions", lambda: partitions(stack) == count)
    kafka.until_led(stack.brokers, stack.topic, count)
    stack.partitions = count


def drop_records(stack):
    """All that the log holds, as retention does."""
    kafka.delete_all(stack.brokers, stack.topic, PARTITIONS)


def partitions(stack):
    done = subprocess.run(["kcat", "-b", stack.brokers, "-L", "-J", "-t", stack.topic], capture_output=True, text=True,
                          timeout=60, check=True)
    return len(json.loads(done.stdout)["topics"][0]["partitions"])

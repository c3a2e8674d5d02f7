"""The audit beside writers, among many users: it repairs those who were corrupted, and touches nobody else."""
from support.audit import Audit, corrupt, digests, make_quiet_users, until_applied
from support.load import Load
from support.oracle import until_equal
from support.scale import scaled

FINE = 0
USERS = scaled(1_000_000, 20_000)
CORRUPTED = 100
PATIENCE_S = scaled(1800, 120)


def test_100_corrupted_users_are_repaired_within_one_sweep_under_load_and_nobody_else_is_touched(own_stack, figures):
    stack = own_stack
    quiet = make_quiet_users(stack, 1_000_000_000, USERS, PATIENCE_S)
    until_applied(stack, quiet, PATIENCE_S)
    corrupted = quiet[7::USERS // CORRUPTED]
    before = digests(stack)
    with Load(stack) as load:
        corrupt(stack, corrupted)
        audit = Audit(stack, "--rate", str(USERS // 4)).start()
        audit.until_swept(seconds=PATIENCE_S)
        metrics = audit.metrics()
        load.until_more(100)
    repaired = audit.repaired()
    figures.load("audit: load", load.per_second)
    figures.told("audit: users", USERS)
    figures.exactly("audit: corrupted users that were repaired within one sweep", len(set(repaired) & set(corrupted)), CORRUPTED)
    figures.exactly("audit: others that were repaired", len(set(repaired) - set(corrupted)))
    figures.exactly("audit: repairs", int(metrics["tally_audit_repaired_total"]), CORRUPTED)
    figures.exactly("audit: repairs that failed", int(metrics["tally_audit_repair_failures_total"]))
    for kind in ("counts", "missing", "ahead", "profile"):
        assert metrics[f'tally_audit_differences_total{{kind="{kind}"}}'] == CORRUPTED / 4, metrics
    assert audit.differences() == CORRUPTED
    after = digests(stack)
    assert [after[user][1] for user in corrupted] == [before[user][1] for user in corrupted]
    touched = [user for user in quiet if user not in repaired and before[user] != after[user]]
    assert not touched, (len(touched), touched[:5])
    assert audit.terminate() == 0
    until_equal(stack, PATIENCE_S)
    stack.ctl("verify", check=FINE, timeout=PATIENCE_S)

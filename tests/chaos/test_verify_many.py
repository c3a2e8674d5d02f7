"""tallyctl verify at ten million users: as exact and as small as at any other number."""
from support.many import PEAK_MOST_KIB, fill, verify
from support.scale import scaled

FINE, DIFFERENT = 0, 1
USERS = scaled(10_000_000, 20_000)
WRONG = 100
PATIENCE_S = scaled(3600, 300)


def test_verify_finds_each_wrong_user_among_ten_million_in_the_memory_of_a_few(servers, figures):
    figures.told("verify: users", USERS)
    fill(servers, USERS, seconds=PATIENCE_S)
    code, result, peak_kib = verify(servers, seconds=PATIENCE_S)
    assert code == FINE, result
    figures.exactly("verify: users compared", result["usersChecked"], USERS)
    figures.exactly("verify: keys of the read model looked at", result["keysScanned"], USERS)
    figures.at_most("verify: peak of its memory in KiB", peak_kib, PEAK_MOST_KIB)
    servers.sql(f"UPDATE users SET name = 'Somebody else' WHERE id % {USERS // WRONG} = 0", timeout=PATIENCE_S)
    code, result, peak_kib = verify(servers, "--grace", "1", seconds=PATIENCE_S)
    assert code == DIFFERENT, result
    figures.exactly("verify: wrong users that were found", result["usersDiffering"], WRONG)
    figures.at_most("verify: peak of its memory in KiB, with wrong users", peak_kib, PEAK_MOST_KIB)

# shellcheck shell=bash
# What archive, backup and restore share: the folder of backups, whose user PostgreSQL runs as, and how a person sees progress.
#
#   FOLDER/base/20260131T235959Z   a base backup, named by the moment from which on it can be restored to
#   FOLDER/wal                     the write-ahead log since the oldest of them

# shellcheck source=deploy/local/lib/ui.sh
. "${BASH_SOURCE[0]%/*}/../local/lib/ui.sh"
# shellcheck source=deploy/local/lib/state.sh
. "${BASH_SOURCE[0]%/*}/../local/lib/state.sh"

HELD_DESCRIPTORS=()
LOGS='' # folder of this run's logs

backup_init() {
    local candidate
    # Debian keeps the server's programs out of the path.
    for candidate in "${TALLY_POSTGRES_BIN:-}" /usr/lib/postgresql/15/bin; do
        [[ -z $candidate || ! -x $candidate/postgres ]] || { PATH=$candidate:$PATH && break; }
    done
    AS_USER=()
    if ((EUID == 0)); then
        getent passwd "$SERVER_USER" >/dev/null || fail "there is no user $SERVER_USER" '' \
            "--user names the one that PostgreSQL runs as"
        AS_USER=(setpriv --reuid="$SERVER_USER" --regid="$(id -gn "$SERVER_USER")" --init-groups --)
    fi
    LOGS=$(mktemp -d)
}

backup_end() {
    step_abort
    [[ -z $LOGS ]] || rm -rf -- "$LOGS"
}

as_user() { (cd / && "${AS_USER[@]}" "$@"); }

# absolute NAME: the folder's whole name; it stands in archive_command and restore_command, unquoted.
absolute() {
    local name
    name=$(realpath -m -- "$1")
    [[ $name =~ ^[A-Za-z0-9/._-]+$ ]] ||
        fail "the name $name holds a character that PostgreSQL's archive_command does not take as it is" '' \
            "choose a folder of letters, digits and / . _ - alone"
    printf '%s' "$name"
}

# sql STATEMENT: rows as text.
sql() { psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -d "$DSN" -c "$1"; }

connect() {
    sql 'select 1' >"$LOGS/connect" 2>&1 || fail "PostgreSQL cannot be reached" "$LOGS/connect" \
        "--dsn says where it is, PGPASSWORD or ~/.pgpass how to log in"
}

# watch LABEL LOG ADVICE COMMAND…: run_step, with the last thing that the command's log says beside the label.
watch() {
    local label=$1 log=$2 advice=$3 status=0
    shift 3
    step_begin "$label"
    (
        cd /
        release_held_descriptors
        exec setsid setpriv --pdeathsig KILL -- "${AS_USER[@]}" "$@"
    ) </dev/null >"$log" 2>&1 &
    UI_STEP_PID=$!
    while kill -0 "$UI_STEP_PID" 2>/dev/null; do
        UI_STEP="$label  $(tail -c 120 -- "$log" | tr '\r' '\n' | grep -oE '[0-9]+%' | tail -n 1 || true)"
        step_tick
        sleep 0.1
    done
    UI_STEP=$label
    wait "$UI_STEP_PID" || status=$?
    UI_STEP_PID=''
    ((status == 0)) || fail "$label failed (exit code $status)" "$log" "$advice"
    # shellcheck disable=SC2119
    step_end
}

# The base backups of FOLDER, oldest first.
# shellcheck disable=SC2153 # the script sets it
bases() { find "$FOLDER/base" -mindepth 1 -maxdepth 1 -type d -name '2*Z' -printf '%f\n' 2>/dev/null | sort; }

# moment NAME: of a base backup, as a date.
moment() { printf '%s-%s-%s %s:%s:%sZ' "${1:0:4}" "${1:4:2}" "${1:6:2}" "${1:9:2}" "${1:11:2}" "${1:13:9}"; }

need() { # need OPTION VALUE
    [[ -n $2 ]] && return 0
    printf '%s: %s is missing\n\n' "${0##*/}" "$1" >&2
    usage >&2
    exit 2
}

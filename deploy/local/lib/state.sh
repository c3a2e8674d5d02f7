# shellcheck shell=bash
# Where a stack keeps its state, the lock that lets one `up` or `down` act at a time, and its ports.

# state_init: sets ROOT (the checkout), STATE (this stack's folder), CACHE (what every stack of the checkout shares).
state_init() {
    ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd -P)
    STATE=${TALLY_LOCAL_DIR:-$ROOT/.local}
    mkdir -p -- "$STATE" "$ROOT/.cache"
    STATE=$(cd -- "$STATE" && pwd -P)
    # shellcheck disable=SC2034 # used by the scripts that source this
    CACHE=$ROOT/.cache
    RUN=$STATE/run
    LOG=$STATE/log
    HELD_DESCRIPTORS=()
    declare -gA PORT=()
}

state_folders() { mkdir -p -- "$RUN" "$LOG"; }

# A started server must not keep our locks: it would hold them for as long as it runs.
release_held_descriptors() {
    local descriptor
    for descriptor in "${HELD_DESCRIPTORS[@]}"; do
        exec {descriptor}>&-
    done
}

# lock_take FILE [SECONDS]: an flock that the kernel drops when this process ends, however it ends. `down --purge`
# removes the file, so a lock on a removed file is no lock and is taken again.
lock_take() {
    local file=$1 seconds=${2:-600} descriptor
    while :; do
        exec {descriptor}>>"$file"
        if ! flock -w "$seconds" "$descriptor"; then
            exec {descriptor}>&-
            return 1
        fi
        [[ $(stat -Lc %d:%i "/proc/$$/fd/$descriptor") == "$(stat -c %d:%i -- "$file" 2>/dev/null)" ]] && break
        exec {descriptor}>&-
        mkdir -p -- "$(dirname -- "$file")"
    done
    HELD_DESCRIPTORS+=("$descriptor")
    LOCK_DESCRIPTOR=$descriptor
}

# Everything: our locks and our ports, once the servers listen on them.
locks_drop() {
    release_held_descriptors
    HELD_DESCRIPTORS=()
}

lock_drop() { # lock_drop DESCRIPTOR
    local descriptor=$1 held kept=()
    for held in "${HELD_DESCRIPTORS[@]}"; do
        [[ $held == "$descriptor" ]] || kept+=("$held")
    done
    HELD_DESCRIPTORS=("${kept[@]}")
    exec {descriptor}>&-
}

# shellcheck disable=SC2034 # STATE_LOCK is used by the scripts that source this
state_lock() {
    lock_take "$STATE/lock" 0 && { STATE_LOCK=$LOCK_DESCRIPTOR; return; }
    say "Another deploy/local command is at work in $STATE; waiting for it."
    lock_take "$STATE/lock" 600 || fail "another deploy/local command has been at work for 10 minutes" '' \
        "see who holds it: fuser -v $STATE/lock"
    STATE_LOCK=$LOCK_DESCRIPTOR
}

# --- ports -------------------------------------------------------------------------------------------------
# name and default; the order is the order of choosing.
PORT_DEFAULTS=(command=8080 query=8081 command_admin=9080 query_admin=9081 projector_admin=9082
    postgres=5432 redis=6379 kafka=9092 kafka_controller=9093)

port_answers() { (exec 4<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Reserves a port among the stacks of this user until this process ends; by then its server listens on it.
port_reserve() {
    local folder=${XDG_RUNTIME_DIR:-/tmp}/tally-ports-$EUID descriptor
    [[ -d $folder ]] || mkdir -m 700 -- "$folder" || true
    [[ -O $folder ]] || fail "$folder belongs to somebody else" '' "remove it, or set XDG_RUNTIME_DIR to a folder of yours"
    exec {descriptor}>>"$folder/$1"
    if flock -n "$descriptor" && ! port_answers "$1"; then
        HELD_DESCRIPTORS+=("$descriptor")
        return 0
    fi
    exec {descriptor}>&-
    return 1
}

ports_load() {
    local name value
    [[ -f $STATE/ports ]] || return 0
    while IFS='=' read -r name value; do
        [[ $value =~ ^[0-9]+$ ]] && PORT[$name]=$value
    done <"$STATE/ports"
}

ports_save() {
    local name
    for name in "${!PORT[@]}"; do
        printf '%s=%s\n' "$name" "${PORT[$name]}"
    done | sort >"$STATE/ports.new"
    mv -- "$STATE/ports.new" "$STATE/ports"
}

# port_choose NAME: the remembered port if it is free, else the default, else the next free one. With
# TALLY_LOCAL_PORTS=ephemeral any port below the kernel's own range, so that no outgoing connection has it.
port_choose() {
    local name=$1 entry first=0 candidate attempt
    for entry in "${PORT_DEFAULTS[@]}"; do
        [[ ${entry%%=*} == "$name" ]] && first=${entry#*=}
    done
    if [[ -n ${PORT[$name]:-} ]] && port_reserve "${PORT[$name]}"; then
        return 0
    fi
    for ((attempt = 0; attempt < 400; attempt++)); do
        if [[ ${TALLY_LOCAL_PORTS:-} == ephemeral ]]; then
            candidate=$((15000 + SRANDOM % 17000))
        else
            candidate=$((first + attempt))
        fi
        if port_reserve "$candidate"; then
            PORT[$name]=$candidate
            ports_save
            return 0
        fi
    done
    fail "no free port for $name between $first and $candidate" '' "stop what listens there: ss -ltnp"
}

# shellcheck shell=bash
# A whole stack: what runs of it, stopping it, forgetting it.

# shellcheck source=deploy/local/lib/ui.sh
. "${BASH_SOURCE[0]%/*}/ui.sh"
# shellcheck source=deploy/local/lib/state.sh
. "${BASH_SOURCE[0]%/*}/state.sh"
# shellcheck source=deploy/local/lib/process.sh
. "${BASH_SOURCE[0]%/*}/process.sh"
# shellcheck source=deploy/local/lib/packages.sh
. "${BASH_SOURCE[0]%/*}/packages.sh"
# shellcheck source=deploy/local/lib/servers.sh
. "${BASH_SOURCE[0]%/*}/servers.sh"
# shellcheck source=deploy/local/lib/services.sh
. "${BASH_SOURCE[0]%/*}/services.sh"

# What this invocation has started, to be stopped again when it fails.
STARTED=()

all_run() {
    local name
    for name in "$@"; do
        process_runs "$name" || return 1
    done
}

any_runs() {
    local name
    for name in "$@"; do
        process_runs "$name" && return 0
    done
    return 1
}

stop_titled() { # stop_titled TITLE NAME…
    local title=$1 waiting
    shift
    any_runs "$@" || { processes_stop "$@"; return 0; }
    step_begin "Stopping $title"
    processes_stop "$@" &
    waiting=$!
    while kill -0 "$waiting" 2>/dev/null; do
        step_tick
        sleep 0.1
    done
    wait "$waiting" || true
    step_end
}

# Services first: they drain what they hold into servers that still answer.
stack_stop() {
    stop_titled "tally-command, tally-projector, tally-query" "${SERVICES[@]}"
    stop_titled "Kafka, Redis, PostgreSQL" "${SERVERS[@]}"
    rm -f -- "$STATE/env"
}

# Only what we made: TALLY_LOCAL_DIR may name a folder with other things in it.
stack_purge() {
    local data
    data=$(readlink -- "$STATE/pg" 2>/dev/null || true)
    [[ $data != /var/lib/tally-local/* ]] || rm -rf -- "$data" "$data.new"
    rm -rf -- "$STATE"/{pg,pg.new,redis,kafka,run,log,ports,env,env.new,process,process.new,pg-password,pg-password.new,lock}
    rmdir -- "$STATE" 2>/dev/null || true
}

# shellcheck shell=bash
# Tally itself: build, schema, topic, the three services, and the lines that tell where everything is.

# shellcheck disable=SC2034 # used by the scripts that source this
SERVICES=(query projector command)
# Seconds a service may take to be ready.
SERVICE_PATIENCE_S=${TALLY_LOCAL_PATIENCE_S:-60}

# build_preset PRESET TESTS: one build at a time in a build tree. TESTS is ON where the tests are wanted; they need
# packages that running Tally does not. A tree that has them keeps them.
build_preset() {
    local preset=$1 tests=$2 lock
    mkdir -p -- "$ROOT/build"
    lock_take "$ROOT/build/$preset.lock" 1800 || fail "another build of $preset has been running for 30 minutes"
    lock=$LOCK_DESCRIPTOR
    # shellcheck disable=SC2016 # expanded by the inner shell
    run_step "Building ($preset)" "$LOG/build-$preset.log" "the whole log is $LOG/build-$preset.log" \
        bash -euc 'cd "$1"
            [[ -f build/$2/build.ninja ]] && { [[ $3 == OFF ]] || grep -q "^TALLY_TESTS:BOOL=ON" "build/$2/CMakeCache.txt"; } ||
                cmake --preset "$2" -DTALLY_TESTS="$3"
            cmake --build "build/$2"' - "$ROOT" "$preset" "$tests"
    lock_drop "$lock"
}

servers_environment() {
    printf 'TALLY_PG_DSN=postgresql://tally:%s@127.0.0.1:%s/tally\n' "$PG_PASSWORD" "${PORT[postgres]}"
    printf 'TALLY_REDIS_URL=redis://127.0.0.1:%s/0\n' "${PORT[redis]}"
    printf 'TALLY_KAFKA_BROKERS=127.0.0.1:%s\n' "${PORT[kafka]}"
}

# What tallyctl and a service started by hand want to know beside the servers.
addresses_environment() {
    printf 'TALLY_COMMAND_LISTEN=127.0.0.1:%s\n' "${PORT[command]}"
    printf 'TALLY_QUERY_LISTEN=127.0.0.1:%s\n' "${PORT[query]}"
    printf 'TALLY_COMMAND_ADMIN=127.0.0.1:%s\n' "${PORT[command_admin]}"
    printf 'TALLY_QUERY_ADMIN=127.0.0.1:%s\n' "${PORT[query_admin]}"
    printf 'TALLY_PROJECTOR_ADMIN=127.0.0.1:%s\n' "${PORT[projector_admin]}"
}

services_environment() {
    printf 'TALLY_COMMAND_URL=http://127.0.0.1:%s\n' "${PORT[command]}"
    printf 'TALLY_QUERY_URL=http://127.0.0.1:%s\n' "${PORT[query]}"
    printf 'TALLY_COMMAND_ADMIN_URL=http://127.0.0.1:%s\n' "${PORT[command_admin]}"
    printf 'TALLY_QUERY_ADMIN_URL=http://127.0.0.1:%s\n' "${PORT[query_admin]}"
    printf 'TALLY_PROJECTOR_ADMIN_URL=http://127.0.0.1:%s\n' "${PORT[projector_admin]}"
}

environment_write() { # environment_write FUNCTION…: .local/env appears whole or not at all; it holds a password
    local part
    (
        umask 077
        for part in "$@"; do
            "$part"
        done >"$STATE/env.new"
    )
    mv -- "$STATE/env.new" "$STATE/env"
}

# For whoever knows only where the state of this stack is: .local/process is deploy/local/process, .local/kafka-topics is
# Kafka's tool of that name.
tools_write() {
    printf '#!/usr/bin/env bash\nTALLY_LOCAL_DIR=%q exec %q "$@"\n' "$STATE" "$ROOT/deploy/local/process" | tool_write process
    printf '#!/usr/bin/env bash\nexec java -Xmx128m -cp %q org.apache.kafka.tools.TopicCommand --bootstrap-server %q "$@"\n' \
        "$KAFKA_LIBS/*" "127.0.0.1:${PORT[kafka]}" | tool_write kafka-topics
}

tool_write() { # tool_write NAME: what it reads
    cat >"$STATE/$1.new"
    chmod 0755 -- "$STATE/$1.new"
    mv -- "$STATE/$1.new" "$STATE/$1"
}

# The settings of one service; the rest are the defaults of the settings table.
service_settings() {
    local name=$1 line
    SETTINGS=("TALLY_ADMIN_LISTEN=127.0.0.1:${PORT[${name}_admin]}")
    [[ -z ${PORT[$name]:-} ]] || SETTINGS+=("TALLY_${name^^}_LISTEN=127.0.0.1:${PORT[$name]}")
    # Static membership: after a kill -9 its partitions are its own again at once.
    [[ $name != projector ]] || SETTINGS+=(TALLY_GROUP_INSTANCE_ID=local)
    while read -r line; do
        case $name:$line in
        # Each side is told only of the servers it may talk to.
        query:TALLY_PG_DSN=* | query:TALLY_KAFKA_BROKERS=* | projector:TALLY_PG_DSN=* | command:TALLY_REDIS_URL=*) ;;
        *) SETTINGS+=("$line") ;;
        esac
    done < <(servers_environment)
}

service_choose_ports() {
    case $1 in
    projector) port_choose projector_admin ;;
    *) port_choose "$1" && port_choose "$1_admin" ;;
    esac
}

service_spawn() {
    service_settings "$1"
    process_spawn "$1" env "${SETTINGS[@]}" "$ROOT/build/release/bin/tally-$1"
}

service_ready() { curl -fsS -m 2 -o /dev/null "http://127.0.0.1:${PORT[${1}_admin]}/readyz"; }

service_start() { # service_start NAME [keep-ports]
    local name=$1 keep=${2:-} status attempt
    # One that was never started has no port to keep.
    [[ -n ${PORT[${name}_admin]:-} ]] || keep=''
    step_begin "Starting tally-$name"
    for ((attempt = 1; attempt <= PORT_ATTEMPTS; attempt++)); do
        if [[ $keep == keep-ports ]]; then
            ((attempt == 1)) || sleep 1
        else
            ((attempt == 1)) || say "The port was taken meanwhile; trying another one."
            service_choose_ports "$name"
        fi
        service_spawn "$name"
        status=0
        process_await "$name" "$SERVICE_PATIENCE_S" service_ready "$name" || status=$?
        if ((status == 0)); then
            step_end "port ${PORT[$name]:-${PORT[${name}_admin]}}"
            return 0
        fi
        ((status == 1)) || break
        port_was_taken "$name" || break
    done
    if ((status == 2)); then
        printf '\n--- /readyz?verbose of tally-%s\n' "$name" >&2
        curl -sS -m 2 "http://127.0.0.1:${PORT[${name}_admin]}/readyz?verbose" >&2 || true
        fail "tally-$name was not ready within $SERVICE_PATIENCE_S s" "$LOG/$name.log" "the log is $LOG/$name.log"
    fi
    fail "tally-$name ended while starting" "$LOG/$name.log" "the log is $LOG/$name.log"
}

tallyctl() { # tallyctl ARGUMENT…: against this stack's servers
    local -a settings
    mapfile -t settings < <(servers_environment && addresses_environment)
    env "${settings[@]}" "$ROOT/build/release/bin/tallyctl" "$@"
}

services_start() {
    local name
    local -a settings
    mapfile -t settings < <(servers_environment)
    local -a ctl=(env "${settings[@]}" "$ROOT/build/release/bin/tallyctl")
    run_step "Migrating the schema" "$LOG/migrate.log" "the log is $LOG/migrate.log" "${ctl[@]}" migrate
    # Topics that are there stay as they are, also with other partitions than the default.
    "${ctl[@]}" topics status >"$LOG/topics.log" 2>&1 ||
        run_step "Creating the topic" "$LOG/topics.log" "the log is $LOG/topics.log" "${ctl[@]}" topics create
    for name in command projector query; do
        process_runs "$name" || service_start "$name"
    done
}

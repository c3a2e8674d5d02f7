# shellcheck shell=bash
# Starting and stopping detached processes. A pid file holds "pid start-time boot-id": a pid that the kernel has
# given to somebody else since has another start time, and is never signalled.

process_identity() { # process_identity PID: prints "start-time boot-id", fails when there is no such process
    local stat boot
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    # The command name in the second field may hold blanks and brackets; what follows its last bracket may not.
    stat=${stat##*) }
    # shellcheck disable=SC2086 # split into fields on purpose
    set -- $stat
    [[ $1 != Z ]] || return 1
    printf '%s %s' "${20}" "$boot"
}

process_pid() { # process_pid NAME: prints the pid when the process recorded under NAME runs
    local pid identity
    { read -r pid identity <"$RUN/$1.pid"; } 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ && $(process_identity "$pid") == "$identity" ]] || return 1
    printf '%s' "$pid"
}

process_runs() { process_pid "$1" >/dev/null; }

# process_spawn NAME COMMAND…: starts COMMAND in a session of its own, so that the terminal's Ctrl-C reaches only us
# and we stop things in order. The pid file is written by the new process before it becomes COMMAND: at no moment
# does a server run that `down` would not find.
process_spawn() {
    local name=$1 log=$LOG/$1.log pid self
    shift
    [[ ! -s $log ]] || mv -f -- "$log" "$log.1"
    rm -f -- "$RUN/$name.pid"
    (
        # A function in a redirection or a failed exec must end this child, never return into the caller's code.
        trap - EXIT INT TERM HUP
        release_held_descriptors
        exec 3>&-
        cd /
        self=$BASHPID # inside $(…) it would name the substitution's own process
        printf '%s %s\n' "$self" "$(process_identity "$self")" >"$RUN/$name.pid.new"
        mv -- "$RUN/$name.pid.new" "$RUN/$name.pid"
        exec setsid "$@"
    ) </dev/null >"$log" 2>&1 &
    pid=$!
    disown "$pid"
    STARTED+=("$name")
    while [[ ! -s $RUN/$name.pid ]] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.01
    done
}

# process_await NAME SECONDS READY…: waits until the command READY succeeds. Returns 1 when the process ends first,
# 2 when the time is over.
process_await() {
    local name=$1 deadline now
    now_ms now
    deadline=$((now + $2 * 1000))
    shift 2
    until "$@" >/dev/null 2>&1; do
        process_runs "$name" || return 1
        now_ms now
        ((now < deadline)) || return 2
        step_tick
        sleep 0.1
    done
}

process_gone() { ! process_runs "$1"; }

wait_gone() { # wait_gone TENTHS NAME…
    local tenths=$1 name alive
    shift
    while :; do
        alive=0
        for name in "$@"; do
            process_runs "$name" && alive=1
        done
        ((alive)) || return 0
        ((tenths-- > 0)) || return 1
        sleep 0.1
    done
}

# process_signal NAME SIGNAL: to the process and, for KILL, to all of its group: what it forked must not outlive it.
process_signal() {
    local pid
    pid=$(process_pid "$1") || return 0
    if [[ $2 == KILL ]]; then
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    else
        kill -"$2" "$pid" 2>/dev/null || true
    fi
}

# PostgreSQL calls SIGINT a fast shutdown: SIGTERM would wait for every client to leave.
stop_signal() { if [[ $1 == postgres ]]; then echo INT; else echo TERM; fi; }

# processes_stop NAME…: asks all of them, waits up to 30 s, then insists. PostgreSQL is given SIGQUIT first, which
# takes its children along.
processes_stop() {
    local name
    for name in "$@"; do
        process_signal "$name" "$(stop_signal "$name")"
        process_signal "$name" CONT
    done
    if ! wait_gone 300 "$@"; then
        for name in "$@"; do
            [[ $name != postgres ]] || process_signal "$name" QUIT
        done
        wait_gone 20 "$@" || true
        for name in "$@"; do
            process_signal "$name" KILL
        done
        wait_gone 50 "$@" || say "still running after SIGKILL: $*"
    fi
    for name in "$@"; do
        process_runs "$name" || rm -f -- "$RUN/$name.pid"
    done
}

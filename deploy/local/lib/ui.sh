# shellcheck shell=bash
# What a person sees: steps with elapsed time, failures with the log that explains them.
# Human output goes to descriptor 3, so that --quiet can silence it without touching standard output.

ui_init() { # ui_init QUIET(0|1)
    if [[ $1 == 1 ]]; then
        exec 3>/dev/null
        UI_TTY=0
    else
        exec 3>&1
        if [[ -t 1 ]]; then UI_TTY=1; else UI_TTY=0; fi
    fi
    UI_STEP=''
    UI_STEP_PID=''
}

say() { printf '%s\n' "$*" >&3; }

# Milliseconds since the epoch, without a fork.
now_ms() { printf -v "$1" '%d' "${EPOCHREALTIME/[.,]/}" && printf -v "$1" '%d' "$((${!1} / 1000))"; }

elapsed() { # elapsed SINCE_MS: prints "1.4 s" or "2 min 05 s"
    local now ms
    now_ms now
    ms=$((now - $1))
    if ((ms < 60000)); then
        printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
    else
        printf '%d min %02d s' $((ms / 60000)) $((ms / 1000 % 60))
    fi
}

step_begin() {
    UI_STEP=$1
    now_ms UI_STEP_AT
    UI_TICK=0
    ((UI_TTY)) || say "$UI_STEP …"
}

# One turn of the spinner; in a pipe a line every 30 s, so that a log shows it is alive.
step_tick() {
    local frames="|/-\\"
    UI_TICK=$((UI_TICK + 1))
    if ((UI_TTY)); then
        printf '\r\033[K%s %s  %s' "${frames:UI_TICK%4:1}" "$UI_STEP" "$(elapsed "$UI_STEP_AT")" >&3
    elif ((UI_TICK % 300 == 0)); then
        say "$UI_STEP … $(elapsed "$UI_STEP_AT")"
    fi
}

# shellcheck disable=SC2120 # the note may be left out
step_end() { # step_end [NOTE]
    if ((UI_TTY)); then
        printf '\r\033[K✓ %s  %s%s\n' "$UI_STEP" "$(elapsed "$UI_STEP_AT")" "${1:+  ($1)}" >&3
    else
        say "$UI_STEP: done in $(elapsed "$UI_STEP_AT")${1:+ ($1)}"
    fi
    UI_STEP=''
}

# fail MESSAGE [LOG] [ADVICE]: says what went wrong and leaves; the exit trap of the caller cleans up.
fail() {
    ((${UI_TTY:-0})) && [[ -n ${UI_STEP:-} ]] && printf '\r\033[K✗ %s\n' "$UI_STEP" >&3
    UI_STEP=''
    {
        printf '\n%s: %s\n' "${0##*/}" "$1"
        if [[ -n ${2:-} && -s ${2:-} ]]; then
            printf -- '--- the end of %s\n' "$2"
            tail -n 20 -- "$2"
            printf -- '---\n'
        fi
        [[ -z ${3:-} ]] || printf 'What to do: %s\n' "$3"
    } >&2
    exit 1
}

# run_step LABEL LOG ADVICE COMMAND…: runs a long command with its output in LOG. The command gets a session of
# its own, so that an interrupt ends all of it (step_abort) and not half; should we be killed, it must not go on
# writing where the next start writes.
run_step() {
    local label=$1 log=$2 advice=$3
    shift 3
    step_begin "$label"
    : >"$log"
    (
        release_held_descriptors
        exec setsid setpriv --pdeathsig KILL -- "$@"
    ) </dev/null >>"$log" 2>&1 &
    UI_STEP_PID=$!
    while kill -0 "$UI_STEP_PID" 2>/dev/null; do
        step_tick
        sleep 0.1
    done
    local status=0
    wait "$UI_STEP_PID" || status=$?
    UI_STEP_PID=''
    ((status == 0)) || fail "$label failed (exit code $status)" "$log" "$advice"
    # shellcheck disable=SC2119
    step_end
}

# Ends the command of an interrupted run_step. Called from the exit trap.
step_abort() {
    ((${UI_TTY:-0})) && [[ -n ${UI_STEP:-} ]] && printf '\r\033[K' >&3
    [[ -n ${UI_STEP_PID:-} ]] || return 0
    kill -TERM -- "-$UI_STEP_PID" 2>/dev/null || true
    wait "$UI_STEP_PID" 2>/dev/null || true
    UI_STEP_PID=''
}

# shellcheck shell=bash
# check NAME COMMAND…: runs a check as a test of $SUITE and appends its result to $RESULTS.
check() {
    local name=$1 output status=0
    shift
    output=$("$@" 2>&1) || status=$?
    if ((status == 0)); then
        printf 'passed\t%s\t%s\t\n' "$SUITE" "$name" >>"$RESULTS"
        return 0
    fi
    printf -- '--- %s: %s (exit code %s)\n%s\n' "$SUITE" "$name" "$status" "$output"
    printf 'failed\t%s\t%s\t%s\n' "$SUITE" "$name" "exit code $status" >>"$RESULTS"
}

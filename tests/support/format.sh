#!/usr/bin/env bash
# The suite `format`: clang-format over every C file, clang-tidy over every one that is compiled.
# Environment: SUITE, RESULTS. Needs build/release/compile_commands.json.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/support/check.sh
. tests/support/check.sh

tidy() {
    # What gcc knows and clang 14 does not, or takes only with a flag, is none of clang-tidy's business.
    clang-tidy-14 -p build/release --quiet --warnings-as-errors='*' \
        --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-ignored-optimization-argument \
        --extra-arg=-ftrivial-auto-var-init=uninitialized --extra-arg=-Qunused-arguments "$1" 2>&1
}

# Called by xargs below: one file a process, the output in one piece.
if [[ ${1:-} == --tidy ]]; then
    check "clang-tidy $2" tidy "$2"
    exit 0
fi

mapfile -d '' -t sources < <(find lib cmd tests -name '*.[ch]' -type f -print0 | sort -z)
for source in "${sources[@]}"; do
    check "clang-format $source" clang-format-14 --dry-run -Werror "$source"
done
compiled() { jq -r '.[].file' build/release/compile_commands.json | grep -F "$PWD/" | sed "s|^$PWD/||" | sort -u; }
compiled | grep -E '^(lib|cmd)/' | tr '\n' '\0' | xargs -0 -r -n 1 -P "$(nproc)" bash "$0" --tidy

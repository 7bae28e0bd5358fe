#!/bin/sh
# Fuzzes for a bounded time: fuzz.sh SECONDS [TARGET...], by default all targets. Prints a line per target. A crash is reported
# with its input, and fails the run after all targets have run.
set -eu

seconds=$1
shift
fuzz=tests/fuzz
built=target/fuzz
# No sanitizer: hsdo has no unsafe code, and a sanitizer would need a nightly compiler.
cargo fuzz build --fuzz-dir "$fuzz" --target-dir "$built" --sanitizer none -O -a
[ $# -gt 0 ] || set -- $(cargo fuzz list --fuzz-dir "$fuzz")
host=$(rustc -vV | sed -n 's/^host: //p')

failed=''
printf '%-22s %12s %10s %10s %8s\n' target executions a-second coverage corpus
for target; do
    corpus=$fuzz/corpus/$target
    artifacts=$fuzz/artifacts/$target
    log=$built/$target.log
    mkdir -p "$corpus" "$artifacts"
    code=0
    "$built/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$artifacts/" "$corpus" "$fuzz/seeds/$target" >"$log" 2>&1 </dev/null || code=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    printf '%-22s %12s %10s %10s %8s\n' "$target" "${executions:-?}" "${rate:-?}" "${coverage:-?}" \
        "$(find "$corpus" -type f | wc -l)"
    if [ "$code" -ne 0 ]; then
        failed="$failed $target"
        grep -v -e '^#' -e '^stat::' -e '^[[:space:]]*NEW_' "$log" | tail -n 30 >&2
        echo "$target: fix it, and keep the input as a seed in $fuzz/seeds/$target" >&2
    fi
done
[ -z "$failed" ] || { echo "these targets broke a promise:$failed" >&2; exit 1; }

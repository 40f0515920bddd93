#!/bin/bash
# Fuzzes each target for FUZZ_SECONDS (300), one after the other; `fuzz/run.sh payload` only that one. A finding ends it
# with an error and stays in fuzz/artifacts. Corpora grow in fuzz/corpus, from the seeds and the webhook fixtures.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-300}
sanitizer=${FUZZ_SANITIZER:-address}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(signature_header payload configuration client_address gateway_groups)

# libFuzzer's instrumentation needs flags that stable compilers keep behind this switch.
export RUSTC_BOOTSTRAP=1

seed() {
    local corpus=fuzz/corpus/$1
    mkdir -p "$corpus"
    [ ! -d "fuzz/seeds/$1" ] || cp -r "fuzz/seeds/$1/." "$corpus"
    case $1 in
        payload) cp webhook-fixtures/*.json "$corpus" ;;
        configuration) cp src/config/tests/*.yaml "$corpus" ;;
    esac
}

for target in "${targets[@]}"; do
    seed "$target"
    echo "== fuzzing $target for $seconds s"
    log=fuzz/corpus/$target.log
    cargo fuzz run --sanitizer "$sanitizer" "$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1 || {
        tail -n 60 "$log"
        exit 1
    }
    grep -E '^(Done|stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb))' "$log" | sed 's/^/   /'
done

# Adds up what the test runners said at their ends, and says it once more in one line.
/^ *Summary \[/ || /^test result:/ || /^[0-9]+ passed, [0-9]+ failed/ {
    line = $0
    while (match(line, /[0-9]+ (passed|failed|skipped|ignored|timed out)/)) {
        split(substr(line, RSTART, RLENGTH), word, " ")
        total[word[2]] += word[1]
        line = substr(line, RSTART + RLENGTH)
    }
}
END {
    failed = total["failed"] + total["timed"]
    skipped = total["skipped"] + total["ignored"]
    printf "\n%d passed, %d failed%s\n", total["passed"], failed, skipped ? ", " skipped " skipped" : ""
    exit failed > 0 || total["passed"] == 0
}

#!/bin/sh
# Prints the type names that occur more than once in src, with their files. Fails when one of them is not on the list below.
#   scripts/duplicate-types.sh
set -eu
cd "$(dirname "$0")/.."

# Two files give the same type for different systems, one of which is compiled.
allowed="Sandbox SandboxSession"

# Types of a module, of a function or of tests; the associated types of an impl are no types of their own.
declared() {
    find src -name '*.rs' -exec awk '
        /^[ \t]*(pub(\([^)]*\))?[ \t]+)?(struct|enum|trait|union)[ \t]+[A-Z]/ || /^(pub(\([^)]*\))?[ \t]+)?type[ \t]+[A-Z]/ {
            sub(/^[ \t]*(pub(\([^)]*\))?[ \t]+)?[a-z]+[ \t]+/, "")
            match($0, /^[A-Za-z0-9_]+/)
            print substr($0, 1, RLENGTH), FILENAME
        }' {} +
}

declared | sort | awk -v allowed="$allowed" '
    { count[$1]++; files[$1] = files[$1] " " $2 }
    END {
        split(allowed, names, " ")
        for (i in names) fine[names[i]] = 1
        for (name in count)
            if (count[name] > 1) {
                print name ":" files[name] (name in fine ? " (allowed)" : "")
                if (!(name in fine)) bad = 1
            }
        exit bad
    }'

#!/bin/sh
# Prints the type names that are declared more than once in src, with their files. Fails if one of them is not in the list below.
#   scripts/duplicate-types.sh
set -eu
cd "$(dirname "$0")/.."

# One type for Linux and one for other systems; only one of the two is compiled.
allowed="Sandbox SandboxSession"

# Types of modules, functions and tests. Associated types in an `impl` are left out.
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

#!/usr/bin/env bash
# Simulates 4,000 studies for each of 48 settings and prints, for each, the share of studies with a false verdict, the coverage of
# the intervals over seeds, and the share of differences of at least 5 points that were found: with the method of reports, and
# ("before") with a plain t test and a required power of 50 %. Then the same for strategies with several wordings: coverage of the
# variance components, and false verdicts between strategies. Fails if a rate is above 5 % or a coverage below 93 %.
#
#   scripts/verdict-rates.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --quiet --test it -- --exact --ignored --nocapture verdicts::many_simulated_studies
cargo test --release --quiet --test it -- --exact --ignored --nocapture wordings::rates_of_many_studies

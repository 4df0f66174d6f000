#!/usr/bin/env bash
# Lets every call of a short run that changes a file fail once: ENOSPC, EIO, a short write, and a kill. Prints, for each kind of
# work, the calls, the faults, the saved checkpoints that were lost, and the runs that ended without an error and with other
# results. Exits with an error if there are any. Takes some minutes. Every test run tries 40 of these faults.
#
#   scripts/disk-faults.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --quiet --test it -- --exact --ignored --nocapture disk_faults::every_fault_of_the_disk

#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# coverage.sh - line and branch coverage by file, of the unit tests, scenarios, model and thread
# tests and of the fuzz corpora. Prints a table; build/coverage/report/index.html shows the lines.
# Branches that only an assertion or a failed allocation takes count as well.
set -eu

cd "$(dirname "$0")/.."
folder=build/coverage
CC=gcc scripts/build.sh coverage -Db_coverage=true -Dbuildtype=debug -Dtests=enabled \
    -Dbench=disabled
find "$folder" -name '*.gcda' -delete
meson test -C "$folder" --no-rebuild --timeout-multiplier 4 --quiet || failed=yes
mkdir -p "$folder/report"

report() {
    gcovr --root . --object-directory "$folder" -j 2 --exclude-unreachable-branches \
        --filter 'lib/' --filter 'models/' --filter 'server/' --filter 'tools/' \
        --exclude '.*_test\.c' --exclude '.*/test_[a-z_]*\.[ch]' \
        --exclude 'server/vfio_user/recorder\.c' "$@" "$folder" 2>"$folder/report/log" && return 0
    cat "$folder/report/log" >&2
    exit 1
}

report --html-details "$folder/report/index.html" --txt "$folder/report/lines.txt"
report --branches --txt "$folder/report/branches.txt"
cat "$folder/report/lines.txt" "$folder/report/branches.txt"
echo "report: $folder/report/index.html"
if [ -n "${failed:-}" ]; then
    echo 'coverage: some tests failed (see above): the figures are of the rest as well' >&2
    exit 1
fi

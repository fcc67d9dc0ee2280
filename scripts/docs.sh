#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# docs.sh - checks links and paths in the documents, then writes HTML of the public headers to
# build/docs/html (needs doxygen; without it that part is left out).
set -eu

cd "$(dirname "$0")/.."
python3 -B scripts/checks.py documents
if ! command -v doxygen >/dev/null 2>&1; then
    echo 'docs: no doxygen here, so no HTML of the headers'
    exit 0
fi
mkdir -p build/docs
# Comments above declarations are their documentation here, without doxygen's own marks: a filter
# adds them.
doxygen - >build/docs/log 2>&1 <<'END' || { tail -n 20 build/docs/log >&2; exit 1; }
PROJECT_NAME = viommu
OUTPUT_DIRECTORY = build/docs
INPUT = include/viommu README.md CONTRIBUTING.md docs
USE_MDFILE_AS_MAINPAGE = README.md
RECURSIVE = YES
STRIP_FROM_PATH = .
STRIP_FROM_INC_PATH = include
OPTIMIZE_OUTPUT_FOR_C = YES
EXTRACT_ALL = YES
GENERATE_LATEX = NO
JAVADOC_AUTOBRIEF = YES
INPUT_FILTER = "sed -e 's:^\( *\)/\*$:\1/**:' -e 's:^\( *\)/\* :\1/** :' -e 's:\([;,{] *\)/\* :\1/**< :'"
QUIET = YES
WARNINGS = NO
END
echo 'docs: build/docs/html/index.html'

#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# one-object.sh IN.a OUT.a LD OBJCOPY AR - makes a static library of one object in which only the
# public symbols (viommu_*) are global. Called by meson.build.
set -eu

in=$1 out=$2 ld=$3 objcopy=$4 ar=$5
object=$out.d/viommu.o
mkdir -p "$out.d"
"$ld" -r -o "$object" --whole-archive "$in"
"$objcopy" --wildcard --keep-global-symbol='viommu_*' "$object"
rm -f "$out"
"$ar" rcsD "$out" "$object"

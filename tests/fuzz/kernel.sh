#!/usr/bin/env bash
# Fuzzes the C kernel under AddressSanitizer and UndefinedBehaviorSanitizer: kernel.sh [SECONDS]
#
# With clang the harnesses run under libFuzzer, without it under the loop of kernel_main.c. CC names another compiler.
set -euo pipefail

seconds=${1:-60}
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${CC:-}" ] && ! command -v clang gcc cc >/dev/null; then
  echo "kernel fuzz: skipped, there is no C compiler" >&2
  exit 0
fi

scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT
# A compiler may be there without the libraries of its sanitizers.
for compiler in ${CC:-clang gcc cc}; do
  if echo 'int main(void) { return 0; }' |
    "$compiler" -fsanitize=address,undefined -x c -o "$scratch/probe" - 2>/dev/null; then
    break
  fi
  compiler=
done
if [ -z "$compiler" ]; then
  echo "kernel fuzz: no compiler here has the sanitizers; on Debian: apt-get install gcc" >&2
  exit 1
fi
flags=(-std=gnu11 -g -O1 -Wall -Wextra -Wno-unused-function -fno-omit-frame-pointer -fno-sanitize-recover=all)
harnesses=(kernel_cut_fuzz kernel_files_fuzz)
share=$(((seconds + 1) / ${#harnesses[@]}))

for harness in "${harnesses[@]}"; do
  program=$scratch/$harness
  if echo 'int LLVMFuzzerTestOneInput(const unsigned char *i, unsigned long n) { return !i && n; }' |
    "$compiler" -fsanitize=fuzzer,address -x c -o "$scratch/probe" - 2>/dev/null; then
    "$compiler" "${flags[@]}" -fsanitize=fuzzer,address,undefined -o "$program" "$here/$harness.c"
    command=("$program" -max_total_time="$share" -max_len=16384 -print_final_stats=0 -verbosity=0)
  else
    "$compiler" "${flags[@]}" -fsanitize=address,undefined -o "$program" "$here/$harness.c" "$here/kernel_main.c"
    command=("$program" "$share")
  fi
  echo "$harness: $share s"
  mkdir "$scratch/work"
  # An empty working directory: kernel_files_fuzz writes there. A crash is shown, and what failed is kept.
  if ! (cd "$scratch/work" && UBSAN_OPTIONS=print_stacktrace=1 "${command[@]}"); then
    kept=$(mktemp -d)
    cp -r "$program" "$scratch/work" "$kept"
    echo "$harness failed; the program and its working directory are in $kept" >&2
    exit 1
  fi
  rm -rf "$scratch/work"
done

#!/usr/bin/env bash
# From COCO's captions to the table of the public sets: extract, train, evaluate, report.
#
#     tools/coco.sh COCO BENCHMARKS OUT [--dry-run]
#
# COCO        train2017/ and annotations/captions_train2017.json
# BENCHMARKS  the public sets; `fastzss evaluate --check BENCHMARKS` says where each belongs
# OUT         store/, run/, features/, report/
#
# Every step goes on where it was interrupted, and is quick when it is done: the same command again.  --dry-run says
# what each would write and how long it would take.  Variables change a step:
#
#     SOURCE=coco:COCO:train2017    images and captions, any source
#     EXTRACT, TRAIN, EVALUATE      more flags of a step, such as EXTRACT="--weights FILE", EVALUATE="--sets voc20"
#     LAUNCH="fastzss train"        such as "accelerate launch --multi_gpu fastzss/train.py", "torchrun ..."
set -euo pipefail

usage="usage: tools/coco.sh COCO BENCHMARKS OUT [--dry-run]"
places=() dry=
for word in "$@"; do
    case $word in
        --dry-run) dry=--dry-run ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
        -*) echo "coco.sh: unknown flag $word; $usage" >&2 && exit 2 ;;
        *) places+=("$word") ;;
    esac
done
[ ${#places[@]} -eq 3 ] || { echo "coco.sh: ${#places[@]} of 3 places given; $usage" >&2; exit 2; }
coco=${places[0]} benchmarks=${places[1]} out=${places[2]}
source=${SOURCE:-coco:$coco:train2017}
[ -n "${SOURCE:-}" ] || [ -d "$coco" ] || { echo "coco.sh: no folder at $coco; $usage" >&2; exit 2; }
[ -d "$benchmarks" ] || { echo "coco.sh: no folder at $benchmarks; $usage" >&2; exit 2; }

step() {
    echo "== $*" >&2
    "$@"
}

# shellcheck disable=SC2086  # flags are several words
{
    step fastzss evaluate --check "$benchmarks"
    step fastzss-cache extract "$source" "$out/store" ${EXTRACT:-} $dry
    if [ -z "$dry" ] || [ -f "$out/store/features/manifest.json" ]; then
        step ${LAUNCH:-fastzss train} --store "$out/store" --out "$out/run" --recipe simzss-coco ${TRAIN:-} $dry
    else
        echo "== training: 280 steps of 16,384 captions; more is known once the store is there" >&2
    fi
    run=$out/run
    [ -z "$dry" ] || [ -f "$run/latest" ] || run=
    step fastzss evaluate $run --data "$benchmarks" --sets all --protocol tcl --refine smooth+pamr \
        --cache "$out/features" --out "$out/report" ${EVALUATE:-} $dry
}
[ -n "$dry" ] || echo "$out/report/report.html"

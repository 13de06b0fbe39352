#!/usr/bin/env bash
# Uses the installed package as a person without the checkout would: all commands in an empty folder.
# use_installed.sh ENVIRONMENT (`make test-wheel`)
set -euo pipefail
export PATH="$1/bin:$PATH" TF_CPP_MIN_LOG_LEVEL=3
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python - "$1" <<'END'
import importlib.metadata, pathlib, sys
import yt8m_gat

package = pathlib.Path(yt8m_gat.__file__).parent
wheel = importlib.metadata.distribution("yt8m-gat")
if pathlib.Path(sys.argv[1]).resolve() not in package.resolve().parents:
    sys.exit(f"not the installed package: {package}")
if wheel.version != yt8m_gat.__version__ or not (package / "py.typed").is_file():
    sys.exit("the wheel has another version than the package, or no py.typed")
if not any(path.name == "LICENSE" for path in wheel.files):
    sys.exit("the wheel holds no licence")
END

yt8m-gat --help
yt8m-gat demo --output_dir=demo

# Another model on the demo's sample, step by step.
sample=demo/sample run=runs/logistic
yt8m-gat train --model=FrameLevelLogisticModel --num_classes=24 --max_frames=30 --max_steps=2 \
  --train_data_pattern="$sample/train*.tfrecord" --train_dir="$run"
yt8m-gat eval --train_dir="$run" --eval_data_pattern="$sample/test*.tfrecord" --max_videos=64 \
  --output_file="$run/evaluation.json"
yt8m-gat inference --train_dir="$run" --input_data_pattern="$sample/test*.tfrecord" --output_file=logistic.csv
yt8m-gat kaggle check logistic.csv --num_classes=24
python -m yt8m_gat report demo/gat "$run" --output_file=report.html
yt8m-gat archive pack --train_dir="$run" --output_file=logistic.tgz
rows=$(wc -l < logistic.csv)
[ "$rows" = 401 ] || { echo "logistic.csv has $rows lines; expected 400 videos and a header" >&2; exit 1; }
[ -s report.html ] && [ -s demo/submission.csv ] && [ -s logistic.tgz ]
echo "the installed package works"

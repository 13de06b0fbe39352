"""Runs every benchmark, prints one table and writes it as JSON with the machine's description.

python benchmarks/run_all.py --output_file=performance.json [--torch_python=/path/to/python]

`--quick` makes everything small, to check that it runs. With `--torch_python`, a Python that has
PyTorch, the CE step is compared with PyTorch's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe_machine

HERE = Path(__file__).resolve().parent


def run(script, *arguments, python=sys.executable):
    """Runs a benchmark and returns its standard output; its progress goes to this terminal."""
    print(f"$ python benchmarks/{script} {' '.join(arguments)}", file=sys.stderr, flush=True)
    finished = subprocess.run(
        [python, str(HERE / script), *arguments],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        sys.exit(f"benchmarks/{script} failed with {finished.returncode}")
    return finished.stdout


def report_of(script, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        run(script, *arguments, f"--output_file={path}")
        return json.loads(path.read_text(encoding="utf-8"))


def step_rows(quick, torch_python):
    frames, classes = ("60", "100") if quick else ("300", "3862")
    rows, details = [], {}
    for batch in ("4",) if quick else ("16", "64"):
        size = (f"--batch_size={batch}", f"--max_frames={frames}", f"--num_classes={classes}")
        whole_batch = {}
        for objective in ("none", "frobenius"):
            name = f"Transformer:{objective}"
            report = report_of("train_step.py", *size, "--steps=3", f"--steps_of={name}")
            whole_batch[objective] = details[f"{name}, batch {batch}"] = report
            rows.append([f"peak MiB, {name}, batch {batch}", report["peak_bytes"] / 2**20, "", ""])
            parts = str(int(batch) // 4)
            report = report_of(
                "train_step.py",
                *size,
                "--steps=3",
                f"--steps_of={name}",
                f"--micro_batch_size={parts}",
            )
            details[f"{name}, batch {batch} in parts of {parts}"] = report
            whole, cut = whole_batch[objective]["rows"][0], report["rows"][0]
            rows += [
                [
                    f"peak MiB, {name}, batch {batch} in parts of {parts}",
                    report["peak_bytes"] / 2**20,
                    "",
                    "",
                ],
                [
                    f"step of {name}, batch {batch} in parts of {parts}, over all at once",
                    cut["seconds"] / whole["seconds"],
                    cut["cpu_seconds"] / whole["cpu_seconds"],
                    "",
                ],
            ]
        ce = whole_batch["none"]["rows"][0]
        rows.append(
            [
                f"CE step, batch {batch}, share of the product rate",
                ce["share"],
                ce["cpu_share"],
                {"16": "0.90", "64": "0.85"}.get(batch, ""),
            ]
        )
        if torch_python:
            report = json.loads(run("pytorch_step.py", *size, python=torch_python))
            details[f"PyTorch, batch {batch}"] = report
            rows += [
                [
                    f"PyTorch's CE step over ours, batch {batch}",
                    report["seconds"] / ce["seconds"],
                    report["cpu_seconds"] / ce["cpu_seconds"],
                    "1.05",
                ],
                [
                    f"matrix product, TensorFlow's rate over PyTorch's, batch {batch}",
                    ce["product_gflop_per_second"] / report["product_gflop_per_second"],
                    ce["product_gflop_per_cpu_second"] / report["product_gflop_per_cpu_second"],
                    "",
                ],
                [f"peak MiB, PyTorch, batch {batch}", report["peak_bytes"] / 2**20, "", ""],
            ]
    batch = "4" if quick else "16"
    size = (f"--batch_size={batch}", f"--max_frames={frames}", f"--num_classes={classes}")
    report = details["all steps"] = report_of("train_step.py", *size, "--steps=5")
    for row in report["rows"][1:]:
        reach = {"none": "1.55", "temporal": "2.7"}.get(row["objective"], "2.3")
        if row["model"] in ("ShareAtt", "GateAtt"):
            reach = ""
        what = f"{row['model']} {row['objective']} over CE (counted {row['counted']})"
        rows.append([what, row["over_ce"], row["cpu_over_ce"], reach])
    return rows, details


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_file", required=True)
    parser.add_argument("--torch_python", help="a Python with torch==2.13.0 (CPU build) in it")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()

    rows, details = step_rows(options.quick, options.torch_python)

    small = ("--num_files=2", "--records_per_file=16") if options.quick else ()
    report = details["reader"] = report_of("reader.py", *small)
    for row in report["rows"][1:]:
        reach = "0.75" if row["reader"] == "uint8, in order" else ""
        rows.append(
            [
                f"reader: {row['reader']}, of bare",
                row["ratio_to_bare"],
                row["cpu_ratio_to_bare"],
                reach,
            ]
        )

    small = ("--num_files=1", "--num_frames=20") if options.quick else ()
    fed = ("--training", "--batch_size=16", "--records_per_file=48", "--repeats=3", "--passes=3")
    report = details["training from files"] = report_of("reader.py", *fed, *small)
    (row,) = report["rows"]
    rows.append(["training from memory over from files", row["ratio"], row["cpu_ratio"], "0.97"])

    small = ("--num_videos=8", "--max_frames=40", "--batch_size=4") if options.quick else ()
    report = details["jobs"] = report_of("jobs.py", *small)
    for row in report["rows"]:
        what = f"{row['what']} over {row['beside']}"
        if row["counted"]:
            what += f" (counted {row['counted']:.2f})"
        reach = "" if row["reach"] is None else f"{row['reach']:.2f}"
        rows.append([what, row["ratio"], row["cpu_ratio"], reach])

    # The heap at its real size: extrapolated from a small one it would look twice as fast.
    small = "--num_videos=20000" if options.quick else "--heap_videos=1112356"
    report = details["metrics"] = report_of("metrics.py", small)
    rows += [
        ["GAP and MAP over an argsort of the pairs", report["ratio_to_argsort"], "", "3"],
        ["a Python heap over GAP and MAP", report["heap_over_ours"], "", "100"],
    ]
    small = ("--num_frames", "75", "300", "--seconds=1", "--no-memory") if options.quick else ()
    report = details["attention"] = report_of("attention.py", *small)
    shorter, longer = sorted(report["settings"]["num_frames"])[-2:]
    for kind, ratio in report["growth"]["ms_per_clip"].items():
        reach = "4.4" if kind.startswith("local") else ""
        cpu = report["growth"]["processor_ms_per_clip"][kind]
        rows.append([f"{kind}, {longer:,} frames over {shorter:,}", ratio, cpu, reach])
    for row in report["rows"]:
        if row["num_frames"] == longer and "over_sa" in row and row["kind"] != "SA":
            what = f"{row['kind']}, {longer:,} frames, over SA"
            rows.append([what, row["over_sa"], row["processor_over_sa"], ""])

    print(f"{'what':66} {'wall':>8} {'CPU':>8}  reach")
    for what, wall, cpu, reach in rows:
        shown = [f"{value:8.2f}" if value != "" else " " * 8 for value in (wall, cpu)]
        print(f"{what:66} {' '.join(shown)}  {reach}")
    report = {
        "machine": describe_machine(),
        "rows": [dict(zip(("what", "wall", "cpu", "reach"), row, strict=True)) for row in rows],
        "details": details,
    }
    Path(options.output_file).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Times the CE step of SA written in PyTorch, a reference for `benchmarks/train_step.py`.

It needs a separate environment with PyTorch (torch==2.13.0, the CPU build), which nothing else here
needs:

python benchmarks/pytorch_step.py --batch_size=16 --max_frames=300

It prints one line of JSON: wall-clock and processor seconds of the median step, the rate of a bare
matrix product in the same process, and peak memory.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
from torch import nn

SIZES = {"rgb": 1024, "audio": 128}


class SelfAttentionClassifier(nn.Module):
    """The default architecture: an encoder layer per modality, mean, a hidden layer, logits."""

    def __init__(self, num_classes: int, max_frames: int, hidden_size: int = 1280) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {
                name: nn.TransformerEncoderLayer(size, 8, size, dropout=0.0, batch_first=True)
                for name, size in SIZES.items()
            }
        )
        for name, size in SIZES.items():
            self.register_buffer(f"positions_{name}", torch.randn(max_frames, size))
        self.hidden = nn.Linear(sum(SIZES.values()), hidden_size)
        self.logits = nn.Linear(hidden_size, num_classes)

    def forward(self, features: dict[str, torch.Tensor], num_frames: torch.Tensor) -> torch.Tensor:
        length = next(iter(features.values())).shape[1]
        padding = torch.arange(length)[None] >= num_frames[:, None]
        real = (~padding)[..., None].float()
        frames = []
        for name, stored in features.items():
            x = stored.float() * (4 / 255) + (4 / 512 - 2)
            x = (x + getattr(self, f"positions_{name}")[:length]) * real
            frames.append(self.blocks[name](x, src_key_padding_mask=padding) * real)
        mean = torch.cat(frames, -1).sum(1) / num_frames[:, None]
        return self.logits(torch.relu(self.hidden(mean)))


def matrix_product_rate(rows: int) -> tuple[float, float]:
    """Returns operations a second of a [rows, 1024] x [1024, 1024] product, wall and processor."""
    left, right = torch.randn(rows, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(10):
        started = time.perf_counter(), time.process_time()
        left @ right
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds, cpu_seconds = np.median(times, axis=0)
    return 2 * rows * 1024**2 / seconds, 2 * rows * 1024**2 / cpu_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_frames", type=int, default=300)
    parser.add_argument("--num_classes", type=int, default=3862)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = SelfAttentionClassifier(options.num_classes, options.max_frames)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    shape = (options.batch_size, options.max_frames)
    features = {
        name: torch.from_numpy(rng.integers(0, 256, (*shape, size), dtype=np.uint8))
        for name, size in SIZES.items()
    }
    num_frames = torch.full((options.batch_size,), options.max_frames)
    labels = torch.from_numpy(rng.random((options.batch_size, options.num_classes)) < 0.01).float()

    def step() -> float:
        loss = nn.functional.binary_cross_entropy_with_logits(model(features, num_frames), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    times = []
    for _ in range(options.steps):
        started = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds, cpu_seconds = np.median(times, axis=0).tolist()
    rate, cpu_rate = matrix_product_rate(options.batch_size * options.max_frames)
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "product_gflop_per_second": rate / 1e9,
                "product_gflop_per_cpu_second": cpu_rate / 1e9,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "parameters": sum(p.numel() for p in model.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Times the training step of TSM on raw clips in PyTorch, a peer of `benchmarks/clip_step.py`.

It needs a separate environment with PyTorch (torch==2.13.0, the CPU build), which nothing else here
needs. The network is the one of `--models=TSM --backbone=ResNet10Small` (or `ResNet50Torchvision`)
there, with the same optimizer, on a batch of the same shape; so run both with the same sizes, one
after the other on an idle machine:

python benchmarks/clip_step.py --models=TSM --output_file=clip_step.json
python benchmarks/pytorch_clip_step.py

It prints one line of JSON: wall-clock and processor seconds of the fastest step, the rate of a bare
convolution in the same process, and the number of parameters.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn

# As `yt8m_gat.models.backbones.residual_network` builds them: blocks, widths, bottleneck.
NETWORKS = {
    "ResNet10Small": ((1, 1, 1, 1), (32, 64, 128, 256), False),
    "ResNet50Torchvision": ((3, 4, 6, 3), (64, 128, 256, 512), True),
}
SHIFT_DIV = 8


class Shift(nn.Module):
    """TSM's shift: an eighth of the channels comes from the next frame, one from the last one."""

    def __init__(self, num_segments: int) -> None:
        super().__init__()
        self.num_segments = num_segments

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clips = x.view(-1, self.num_segments, *x.shape[1:])
        fold = x.shape[1] // SHIFT_DIV
        shifted = torch.zeros_like(clips)
        shifted[:, :-1, :fold] = clips[:, 1:, :fold]
        shifted[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
        shifted[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
        return shifted.view(x.shape)


def convolution(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    """A residual block with the shift at the beginning of its branch."""

    def __init__(
        self, inputs: int, width: int, stride: int, bottleneck: bool, num_segments: int
    ) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            sizes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        layers: list[nn.Module] = [Shift(num_segments)]
        for number, size in enumerate(sizes):
            layers += [nn.ReLU(inplace=True)] if number else []
            layers += convolution(*size)
        self.branch = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*convolution(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class TSM(nn.Module):
    """The mean of the logits of T frames."""

    def __init__(self, name: str, num_classes: int, num_segments: int) -> None:
        super().__init__()
        blocks, widths, bottleneck = NETWORKS[name]
        self.num_segments = num_segments
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        layers = [*convolution(3, widths[0], 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        inputs = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            for number in range(count):
                stride = 2 if stage and not number else 1
                layers.append(Block(inputs, width, stride, bottleneck, num_segments))
                inputs = 4 * width if bottleneck else width
        self.network = nn.Sequential(*layers)
        self.logits = nn.Sequential(nn.Dropout(0.5), nn.Linear(inputs, num_classes))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pictures = pixels.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        frames = self.network((pictures - self.mean) / self.deviation).mean((2, 3))
        return self.logits(frames).view(-1, self.num_segments, self.logits[1].out_features).mean(1)


def convolution_rate(repeats: int = 20) -> float:
    """Returns operations a second of a 3 x 3 convolution of 64 channels, forward."""
    x, kernel = torch.randn(16, 64, 28, 28), torch.randn(64, 64, 3, 3)
    best = float("inf")
    with torch.no_grad():
        for _ in range(repeats):
            started = time.perf_counter()
            nn.functional.conv2d(x, kernel, padding=1)
            best = min(best, time.perf_counter() - started)
    return 2 * 16 * 28 * 28 * 64 * 9 * 64 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=tuple(NETWORKS), default="ResNet10Small")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--crop_size", type=int, default=96)
    parser.add_argument("--num_segments", type=int, default=8)
    parser.add_argument("--num_classes", type=int, default=174)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = TSM(options.backbone, options.num_classes, options.num_segments)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    shape = (options.batch_size, options.num_segments, options.crop_size, options.crop_size, 3)
    pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, options.num_classes, options.batch_size))

    def step() -> None:
        loss = nn.functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 20.0)
        optimizer.step()

    step()
    times = []
    for _ in range(options.steps):
        started = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds, cpu_seconds = (min(of_kind) for of_kind in zip(*times, strict=True))
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "options": vars(options),
                "seconds": seconds,
                "processor_seconds": cpu_seconds,
                "convolution_gigaoperations_per_second": convolution_rate() / 1e9,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()

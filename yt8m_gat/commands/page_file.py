"""A page on disk, and the figures in it as files of their own."""

import os
import re
from pathlib import Path

from yt8m_gat.disk import replacing
from yt8m_gat.locks import only_writer, only_writer_in
from yt8m_gat.report.drawing.chart import standalone


def write_page(
    output_file: str | os.PathLike,
    page: str,
    figures: dict[str, str],
    figures_dir: str | os.PathLike | None,
) -> None:
    """Writes the page and, if asked to, each figure as a file of its own."""
    with only_writer(output_file), replacing(output_file) as temporary:
        _write_text(temporary, page)
    print(f"{output_file}: {Path(output_file).stat().st_size / 1e3:.0f} kB, {len(figures)} figures")
    if figures_dir is None:
        return
    taken: set[str] = set()
    with only_writer_in(figures_dir):
        for name, svg in figures.items():
            # Names come from files: nothing of them may leave the folder, or take another's place.
            safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
            while safe.lower() in taken:
                safe += "_"
            taken.add(safe.lower())
            with replacing(Path(figures_dir, f"{safe}.svg")) as temporary:
                _write_text(temporary, standalone(svg))


def _write_text(path: Path, text: str) -> None:
    # JSON may hold halves of characters, which UTF-8 has no bytes for.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")

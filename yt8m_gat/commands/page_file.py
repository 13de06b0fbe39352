"""Writes an HTML page, and its figures as separate files."""

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
    """Writes the page and, if `figures_dir` is set, each figure as a separate file."""
    with only_writer(output_file), replacing(output_file) as temporary:
        _write_text(temporary, page)
    drawn = f", {len(figures)} figures" if figures else ""
    print(f"{output_file}: {Path(output_file).stat().st_size / 1e3:.0f} kB{drawn}")
    if figures_dir is None:
        return
    used_names: set[str] = set()
    with only_writer_in(figures_dir):
        for name, svg in figures.items():
            # Names come from files: none may point outside the folder or overwrite another.
            safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
            while safe.lower() in used_names:
                safe += "_"
            used_names.add(safe.lower())
            with replacing(Path(figures_dir, f"{safe}.svg")) as temporary:
                _write_text(temporary, standalone(svg))


def _write_text(path: Path, text: str) -> None:
    # JSON may hold lone surrogates, which UTF-8 cannot encode.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")

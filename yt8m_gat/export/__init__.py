"""Export of models: SavedModels for serving, and archives."""

from yt8m_gat.export.archive import ArchiveError, read_archive, write_archive
from yt8m_gat.export.saved_model import ServingModule, export_saved_model

__all__ = [
    "ArchiveError",
    "ServingModule",
    "export_saved_model",
    "read_archive",
    "write_archive",
]

"""Models for serving."""

from yt8m_gat.export.saved_model import ServingModule, export_saved_model

__all__ = ["ServingModule", "export_saved_model"]

"""SVG charts and HTML tables from plain numbers and texts."""

"""Predictions of clips and segments: the submission CSV, its tools, and Apache Beam."""

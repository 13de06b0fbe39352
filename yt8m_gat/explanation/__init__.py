"""Explanations of predictions: attention, class activation over time, local sensitivity."""

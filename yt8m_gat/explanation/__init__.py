"""What a prediction rests on: attention, class activation over time, local sensitivity."""

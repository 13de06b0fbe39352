"""Video files to frames and sound, and lists of clips; no TensorFlow."""

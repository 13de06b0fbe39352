"""The weights of a run: their files, reading, writing, copying, and their identity in results.

Import from the modules: `files` needs no TensorFlow, the others do.
"""

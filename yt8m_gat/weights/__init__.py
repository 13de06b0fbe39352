"""The weights of a run: their files, reading, writing, copying, and which of them a result is of.

Import from the modules: `files` needs no TensorFlow, the others do.
"""

"""YouTube-8M video classification on Keras 3, with the Gated Adversarial Transformer family."""

__version__ = "0.1.0"

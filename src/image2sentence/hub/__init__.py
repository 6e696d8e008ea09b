"""Vision-language models of the Hugging Face Hub as model folders, without torch."""

from image2sentence.hub.layouts import Layout, recognise

__all__ = ["Layout", "recognise"]

"""Encoders of the runtime: the protocol, model folders, and ONNX Runtime."""

from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.encoders.onnx import Explanation, OnnxEncoder, load_encoder

__all__ = ["Encoder", "Explanation", "OnnxEncoder", "Vectors", "load_encoder"]

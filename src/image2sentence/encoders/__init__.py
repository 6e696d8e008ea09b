"""Encoders of the runtime: the protocol, model folders, and ONNX Runtime."""

from image2sentence.encoders.onnx_encoder import Explanation, OnnxEncoder, load_encoder
from image2sentence.encoders.protocols import Encoder, Vectors

__all__ = ["Encoder", "Explanation", "OnnxEncoder", "Vectors", "load_encoder"]

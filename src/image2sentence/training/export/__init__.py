"""Export of trained models to ONNX model folders."""

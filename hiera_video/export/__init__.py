"""Export to torch.export and ONNX programs."""

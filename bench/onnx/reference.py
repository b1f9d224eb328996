"""What onnx_reference (reference.c) has written, for PyTorch."""
import numpy
import torch


def read_reference(path, mean, std):
    """Test images normalised as (n, c, h, w), labels, and lowbit's scores (n, classes)."""
    data = open(path, "rb").read()
    count, c, h, w, classes = numpy.frombuffer(data, "<i4", 5)
    record = numpy.dtype([("pixels", "u1", (h, w, c)), ("label", "<i4"), ("scores", "<i4", classes)])
    images = numpy.frombuffer(data, record, count, 20)
    pixels = (images["pixels"].astype("f4") / 255 - numpy.float32(mean)) / numpy.float32(std)
    return (torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), torch.from_numpy(images["label"].astype("i8")),
            torch.from_numpy((images["scores"] / 65536).astype("f4")))

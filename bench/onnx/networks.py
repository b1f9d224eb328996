"""For torchvision.sh.

networks.py export NAME SIZE FILE: torchvision's network NAME for 10 classes, with random weights and random statistics of its batch norms, as
FILE.onnx (batch norms kept) and FILE.pt.
networks.py compare FILE REFERENCE: the largest difference between PyTorch's scores and those that onnx_reference has written, and the largest
score; status 1 if they differ by more than 1e-3.
"""
import sys
import warnings

import torch
import torchvision

from reference import read_reference

warnings.filterwarnings("ignore")
MEAN, STD = 0.5, 0.25  # torchvision.sh says so too


def export(name, size, file):
    torch.manual_seed(1)
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    net = getattr(torchvision.models, name)(weights=None, num_classes=10, **options)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    net.eval()
    torch.save(net, file + ".pt")
    torch.onnx.export(net, torch.randn(1, 3, size, size), file + ".onnx", opset_version=14, input_names=["image"],
                      output_names=["scores"], training=torch.onnx.TrainingMode.PRESERVE, dynamic_axes={"image": {0: "n"}})


def compare(file, reference):
    images, _, scores = read_reference(reference, MEAN, STD)
    with torch.no_grad():
        difference = (torch.load(file + ".pt").eval()(images) - scores).abs().max().item()
    print(f"{difference:.1e} {scores.abs().max().item():.2g}")
    return int(difference > 1e-3)


torch.set_num_threads(1)
if sys.argv[1] == "export":
    export(sys.argv[2], int(sys.argv[3]), sys.argv[4])
else:
    sys.exit(compare(*sys.argv[2:]))

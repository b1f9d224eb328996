"""For resnet20.sh: a float ResNet-20 that PyTorch trains and exports.

resnet20.py train PEER IMAGES EPOCHS FILE: the network, trained by the function `accuracy` of PEER (../shared/peers/torch_train.py, seed 1)
on the images in folder IMAGES, as FILE.pt.
resnet20.py export PEER FILE: FILE.pt as FILE.onnx, batch norms kept.
resnet20.py compare PEER IMAGES FILE REFERENCE: its accuracy in f32 on the test images as PyTorch's side decodes them, and how many
predictions for the pixels in REFERENCE are those that onnx_reference has written; status 1 if a score differs by more than 1e-3.
"""
import argparse
import ast
import sys
import warnings

import torch

from reference import read_reference

warnings.filterwarnings("ignore")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # the peer and resnet20.sh say so too


def definitions(path):
    """A program's functions and classes, without running its main part."""
    tree = ast.parse(open(path).read(), path)
    tree.body = [s for s in tree.body if isinstance(s, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef))]
    names = {"__name__": "peer"}
    exec(compile(tree, path, "exec"), names)
    return names


def train(path, images, epochs, file):
    peer = definitions(path)
    made = []
    network = peer["ResNet20"]
    peer["ResNet20"] = lambda *options: made.append(network(*options)) or made[0]
    peer["accuracy"](argparse.Namespace(bits=0, width=16, batch=128, epochs=int(epochs), seed=1, data=images))
    torch.save(made[0].state_dict(), file + ".pt")


def load(peer, file):
    net = peer["ResNet20"](0, 16)
    net.load_state_dict(torch.load(file + ".pt"))
    return net.eval()


def export(path, file):
    torch.onnx.export(load(definitions(path), file), torch.randn(1, 3, 32, 32), file + ".onnx", opset_version=14,
                      input_names=["image"], output_names=["scores"], training=torch.onnx.TrainingMode.PRESERVE,
                      dynamic_axes={"image": {0: "n"}})


def run(net, images):
    with torch.no_grad():
        return torch.cat([net(batch) for batch in images.split(500)])


def compare(path, folder, file, reference):
    peer = definitions(path)
    net = load(peer, file)
    images, labels = peer["load"](folder, "test")
    right = (run(net, images).argmax(1) == labels).sum().item()
    images, labels, scores = read_reference(reference, MEAN, STD)
    theirs, ours = run(net, images), scores.argmax(1)
    equal, difference = (theirs.argmax(1) == ours).sum().item(), (theirs - scores).abs().max().item()
    print(f"PyTorch {100 * right / len(labels):.2f} % on its own decoding, lowbit {100 * (ours == labels).sum().item() / len(labels):.2f} %; "
          f"{equal:,} of {len(labels):,} predictions equal, largest difference of a score {difference:.1e}")
    return int(difference > 1e-3)


sys.exit({"train": train, "export": export, "compare": compare}[sys.argv[1]](*sys.argv[2:]))

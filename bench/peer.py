#!/usr/bin/env python3
"""Training speed of PyTorch on the CPU for networks of lowbit's zoo with DoReFa quantizers: the peer of bench/train.sh.

Needs PyTorch: apt-get install python3-torch (1.13 on Debian 12). First and last layers stay float; in between, weights and the inputs of
layers have --bits bits (0: float). Data: one random batch. Four ways are tried, f32 and bf16 (autocast), contiguous and channels-last, a
step each; then the fastest is timed. The last two lines are "best IMAGES_PER_S CONFIG" and "peak_rss_mb MB", of this process.
"""
import argparse
import resource
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Round(torch.autograd.Function):
    """rint(x n) / n, whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx, x, n):
        return torch.round(x * n) / n

    @staticmethod
    def backward(ctx, diff):
        return diff, None


def quantized_weights(w, bits):
    t = torch.tanh(w)
    return 2 * Round.apply(t / (2 * t.abs().max()) + 0.5, 2**bits - 1) - 1


def quantized(x, bits):
    return Round.apply(x.clamp(0, 1), 2**bits - 1)


class Conv(nn.Conv2d):
    def __init__(self, ic, oc, k, stride=1, groups=1, bits=0):
        super().__init__(ic, oc, k, stride, k // 2, groups=groups, bias=False)
        self.bits = bits

    def forward(self, x):
        return self._conv_forward(x, quantized_weights(self.weight, self.bits) if self.bits else self.weight, None)


class Linear(nn.Linear):
    def __init__(self, ic, oc, bits):
        super().__init__(ic, oc, bias=False)
        self.bits = bits

    def forward(self, x):
        return F.linear(x, quantized_weights(self.weight, self.bits) if self.bits else self.weight)


class Act(nn.Module):
    """What follows batch norm: the quantizer, or in float ReLU up to `top`."""

    def __init__(self, bits, top=None):
        super().__init__()
        self.bits, self.top = bits, top

    def forward(self, x):
        return quantized(x, self.bits) if self.bits else F.relu(x) if self.top is None else x.clamp(0, self.top)


def unit(ic, oc, k, stride, bits, groups=1, top=None):
    return [Conv(ic, oc, k, stride, groups, bits), nn.BatchNorm2d(oc), Act(bits, top)]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, ic, oc, stride, bits):
        super().__init__()
        self.body = nn.Sequential(*unit(ic, oc, 3, stride, bits), Conv(oc, oc, 3, bits=bits), nn.BatchNorm2d(oc))
        self.shortcut = nn.Identity()
        if stride != 1 or ic != oc:
            self.shortcut = nn.Sequential(Conv(ic, oc, 1, stride, bits=bits), nn.BatchNorm2d(oc))
        self.act = Act(bits)

    def forward(self, x):
        return self.act(self.body(x) + self.shortcut(x))


class Inverted(nn.Module):
    """Expand by 1x1, 3x3 depthwise, project by 1x1 without activation."""

    def __init__(self, ic, oc, stride, expand, bits):
        super().__init__()
        mid = ic * expand
        layers = unit(ic, mid, 1, 1, bits, top=6) if expand != 1 else []
        layers += unit(mid, mid, 3, stride, bits, groups=mid, top=6) + [Conv(mid, oc, 1, bits=bits), nn.BatchNorm2d(oc)]
        self.bits, self.body, self.adds = bits, nn.Sequential(*layers), stride == 1 and ic == oc

    def forward(self, x):
        y = self.body(quantized(x, self.bits) if self.bits else x)
        return x + y if self.adds else y


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def residual(stem, blocks, width, bits, classes):
    layers, ic = stem, width
    for group, count in enumerate(blocks):
        for i in range(count):
            oc = width << group
            layers.append(Block(ic, oc, 2 if group and i == 0 else 1, bits))
            ic = oc
    return nn.Sequential(*layers, Pool(), nn.Linear(ic, classes))


def cifar_resnet(n, width, bits, classes):
    return residual(unit(3, width, 3, 1, 0), (n, n, n), width, bits, classes)


def resnet18(bits, classes):
    return residual(unit(3, 64, 7, 2, 0) + [nn.MaxPool2d(3, 2, 1)], (2, 2, 2, 2), 64, bits, classes)


def vgg9(size, bits, classes):
    layers, ic = [], 3
    for i, oc in enumerate((64, 64, 128, 128, 256, 256)):
        layers += unit(ic, oc, 3, 1, bits if i else 0)
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)] if i % 2 else []
        ic = oc
    layers.append(nn.Flatten())
    ic *= (size // 8) ** 2
    for i in range(2):
        layers += [Linear(ic, 512, bits), nn.BatchNorm1d(512), Act(bits)] + ([nn.Dropout(0.5)] if i == 0 else [])
        ic = 512
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(512, classes))


def mobilenet_v2(bits, classes):
    layers, ic = unit(3, 32, 3, 2, 0, top=6), 32
    groups = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, oc, repeat, stride in groups:
        for i in range(repeat):
            layers.append(Inverted(ic, oc, 1 if i else stride, expand, bits))
            ic = oc
    layers += unit(320, 1280, 1, 1, bits, top=6)
    return nn.Sequential(*layers, Pool(), nn.Dropout(0.2), nn.Linear(1280, classes))


def build(a):
    if a.net == 'vgg9':
        return vgg9(a.size, a.bits, a.classes)
    if a.net == 'resnet18':
        return resnet18(a.bits, a.classes)
    if a.net == 'mobilenet-v2':
        return mobilenet_v2(a.bits, a.classes)
    return cifar_resnet((int(a.net[6:]) - 2) // 6, a.width, a.bits, a.classes)


def rate(a, config, warm, steps):
    precision, layout = config.split(',')
    fmt = torch.channels_last if layout == 'channels-last' else torch.contiguous_format
    clock = time.process_time if a.clock == 'cpu' else time.perf_counter
    torch.manual_seed(0)
    model = build(a).to(memory_format=fmt)
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(a.batch, 3, a.size, a.size).to(memory_format=fmt)
    y = torch.randint(0, a.classes, (a.batch,))
    times = []
    for step in range(warm + steps):
        begin = clock()
        opt.zero_grad(set_to_none=True)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=precision == 'bf16'):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if step >= warm:
            times.append(clock() - begin)
    return a.batch / sorted(times)[len(times) // 2]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('net', choices=('resnet20', 'resnet56', 'vgg9', 'mobilenet-v2', 'resnet18'))
    p.add_argument('--bits', type=int, default=2)
    p.add_argument('--width', type=int, default=16, help='first channels of resnet20 and resnet56')
    p.add_argument('--batch', type=int, default=128)
    p.add_argument('--size', type=int, default=32)
    p.add_argument('--classes', type=int, default=10)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--steps', type=int, default=7)
    p.add_argument('--clock', choices=('wall', 'cpu'), default='wall', help='cpu: processor time, for one thread on a busy machine')
    p.add_argument('--config', help='f32 or bf16, comma, contiguous or channels-last: only this one')
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    config = a.config
    if not config:
        rates = {c: rate(a, c, 1, 1) for c in ('f32,contiguous', 'f32,channels-last', 'bf16,contiguous', 'bf16,channels-last')}
        config = max(rates, key=rates.get)
    print(f'best {rate(a, config, 2, a.steps):.1f} {config}')
    print(f'peak_rss_mb {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}')


main()

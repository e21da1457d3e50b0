"""PyTorch on the other side of bench/engine.ts: answers one JSON line for each JSON line on stdin.

{"op": "make", "id", "network", "batch", "size", "classes", "mode": "train" | "features", "channelsLast": bool}  -> {}
{"op": "run", "id"}                                                                                          -> {"milliseconds"}
{"op": "drop", "id"}                                                                                         -> {}
{"op": "memory"}                                                                                             -> {"peakMegabytes"}
"""
import json
import resource
import sys
import time

import torch
import torchvision
from torch import nn

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)


class Separable(nn.Module):
    """EfficientNet-Lite's block: expand, depthwise, project, with the paddings of TensorFlow."""

    def __init__(self, inside, outside, kernel, stride, expand):
        super().__init__()
        middle = inside * expand
        self.same = inside == outside and stride == 1
        self.expand = convolution(inside, middle, 1) if expand > 1 else nn.Identity()
        self.depthwise = convolution(middle, middle, kernel, stride, groups=middle)
        self.project = convolution(middle, outside, 1, activation=False)

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.same else y


def convolution(inside, outside, kernel, stride=1, groups=1, activation=True):
    padding = []
    if stride == 2:  # even sizes: one row less at the top and left
        all_around = kernel - stride
        padding = [nn.ZeroPad2d((all_around // 2, all_around - all_around // 2, all_around // 2, all_around - all_around // 2))]
    layers = [
        *padding,
        nn.Conv2d(inside, outside, kernel, stride, 0 if padding else kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside, eps=1e-3),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if activation else []))


def efficientnet_lite0(classes):
    stages = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
    layers, inside = [convolution(3, 32, 3, 2)], 32
    for repeat, kernel, stride, expand, outside in stages:
        for i in range(repeat):
            layers.append(Separable(inside, outside, kernel, stride if i == 0 else 1, expand))
            inside = outside
    return nn.Sequential(*layers, convolution(320, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


networks = {"efficientnet-lite0": efficientnet_lite0, "resnet18": lambda classes: torchvision.models.resnet18(num_classes=classes)}


def make(network, batch, size, classes, mode, channelsLast):
    torch.manual_seed(0)
    model = networks[network](classes)
    x, labels = torch.randn(batch, 3, size, size), torch.arange(batch) % classes
    if channelsLast:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if mode == "features":
        model = model[:-1] if isinstance(model, nn.Sequential) else nn.Sequential(*list(model.children())[:-1])
        model.eval()

        def features():
            with torch.inference_mode():
                model(x)

        return features
    model.train()
    for module in model.modules():  # frozen statistics, trained scale and shift
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-2)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(x), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


made = {}
for line in sys.stdin:
    request = json.loads(line)
    answer = {}
    if request["op"] == "make":
        made[request["id"]] = make(**{k: v for k, v in request.items() if k not in ("op", "id")})
    elif request["op"] == "run":
        start = time.perf_counter()
        made[request["id"]]()
        answer = {"milliseconds": (time.perf_counter() - start) * 1e3}
    elif request["op"] == "drop":
        made.pop(request["id"], None)
    elif request["op"] == "memory":
        answer = {"peakMegabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}
    print(json.dumps(answer), flush=True)

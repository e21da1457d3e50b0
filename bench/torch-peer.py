"""PyTorch on the other side of bench/engine.ts: answers one JSON line for each JSON line on stdin.

{"op": "make", "id", "network", "batch", "size", "classes", "mode": "train" | "features", "channelsLast": bool}  -> {}
{"op": "run", "id"}                                                                                          -> {"milliseconds"}
{"op": "drop", "id"}                                                                                         -> {}
{"op": "memory"}                                                                                             -> {"peakMegabytes"}
{"op": "fineTune", "weights", "train": [[path, label]], "test": […], "classes", "size", "epochs", "seed"}     -> {"correct": [bool]}
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


def pretrained(model, path):
    """Our bundled file into the network above: both list stem, blocks and head in the same order, so tensors are matched by order and shape."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    ours = [(n, e) for n, e in sorted(((n, e) for n, e in header.items() if n != "__metadata__"), key=lambda item: item[1]["data_offsets"][0])]
    kinds = {kind: [e for n, e in ours if n.endswith(kind) and not n.startswith("_fc")] for kind in ("running_mean", "running_var")}
    convolutions = [e for n, e in ours if n.endswith(".weight") and len(e["shape"]) == 4]
    scales = [e for n, e in ours if n.endswith(".weight") and len(e["shape"]) == 1]
    shifts = [e for n, e in ours if n.endswith(".bias") and not n.startswith("_fc")]

    def put(target, entry):
        start, end = entry["data_offsets"]
        value = torch.frombuffer(bytearray(data[start:end]), dtype=torch.float16).float().reshape(entry["shape"])
        assert value.shape == target.shape, (value.shape, target.shape)
        with torch.no_grad():
            target.copy_(value)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == len(convolutions) and len(norms) == len(scales) == len(shifts), (len(layers), len(convolutions), len(norms), len(scales), len(shifts))
    for layer, entry in zip(layers, convolutions):
        put(layer.weight, entry)
    for i, norm in enumerate(norms):
        put(norm.weight, scales[i])
        put(norm.bias, shifts[i])
        put(norm.running_mean, kinds["running_mean"][i])
        put(norm.running_var, kinds["running_var"][i])


def pictures(rows, size):
    from PIL import Image

    x = torch.empty(len(rows), 3, size, size)
    for i, (path, _) in enumerate(rows):
        picture = Image.open(path).convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
        scale = size / min(picture.size)
        picture = picture.resize([max(size, round(d * scale)) for d in picture.size], Image.BILINEAR)
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
        x[i] = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(size, size, 3).permute(2, 0, 1).float()
    return (x - 127) / 128, torch.tensor([label for _, label in rows])


def fine_tune(weights, train, test, classes, size, epochs, seed):
    """The plain recipe: AdamW one-cycle, peak 5e-4, the new head ten times that, flips and shifts, label smoothing 0.1, frozen batch statistics."""
    torch.manual_seed(seed)
    model = efficientnet_lite0(classes)
    pretrained(model, weights)
    x, y = pictures(train, size)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    head = list(model[-1].parameters())
    groups = [{"params": [p for m in model[:-1] for p in m.parameters()], "lr": 5e-4}, {"params": head, "lr": 5e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    batches = -(-len(train) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [5e-4, 5e-3], total_steps=epochs * batches, cycle_momentum=False)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    reach = round(0.07 * size)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(16):
            batch = x[rows].clone()
            for i in range(len(rows)):
                if torch.rand(()) < 0.5:
                    batch[i] = batch[i].flip(2)
                dx, dy = torch.randint(-reach, reach + 1, (2,)).tolist()
                padded = nn.functional.pad(batch[i : i + 1], (reach,) * 4, mode="replicate")
                batch[i] = padded[0, :, reach + dy : reach + dy + size, reach + dx : reach + dx + size]
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(batch), y[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    x, y = pictures(test, size)
    with torch.inference_mode():
        answers = torch.cat([model(part).argmax(1) for part in x.split(64)])
    return {"correct": (answers == y).tolist()}


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
    elif request["op"] == "fineTune":
        answer = fine_tune(**{k: v for k, v in request.items() if k != "op"})
    elif request["op"] == "memory":
        answer = {"peakMegabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}
    print(json.dumps(answer), flush=True)

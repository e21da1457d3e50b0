"""Golden files for test/engine/trainer.test.ts: five training steps of a small network in PyTorch, float64.

    pip install torch
    python scripts/golden-engine.py

Weights and pictures come from the formula of golden-models.py, which test/models/formula.ts repeats, so that only results are stored.
"""
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

folder = Path(__file__).parent.parent / 'test' / 'golden' / 'engine'
EPSILON = 1e-3
CLASSES = 5
BATCH = 4
SIDE = 12
STEPS = 5

SHAPES = {
    'stem.weight': (16, 3, 3, 3),
    'stem.bias': (16,),
    'depthwise.weight': (16, 1, 3, 3),
    'norm.weight': (16,),
    'norm.bias': (16,),
    'norm.running_mean': (16,),
    'norm.running_var': (16,),
    'pointwise.weight': (16, 16, 1, 1),
    'pointwise.bias': (16,),
    'down.weight': (24, 16, 3, 3),
    'down.bias': (24,),
    'head.weight': (CLASSES, 24),
    'head.bias': (CLASSES,),
}
FROZEN = ('norm.running_mean', 'norm.running_var')


def uniform(name, count):
    """The same as in golden-models.py."""
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


def weight(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if name.endswith('running_var'):
        value = 1 + np.float32(0.5) * u
    elif name.endswith('running_mean') or name.endswith('.bias'):
        value = np.float32(0.1) * u
    elif len(shape) == 1:
        value = np.float32(0.75) + np.float32(0.25) * u
    else:
        value = u * np.float32(np.sqrt(3 / np.prod(shape[1:])))
    return torch.from_numpy(value.astype(np.float64)).reshape(shape)


def loss_of(w, x, target):
    x = F.relu6(F.conv2d(x, w['stem.weight'], w['stem.bias'], padding=1) * 4)  # times 4, so that some of it passes 6
    y = F.conv2d(x, w['depthwise.weight'], padding=1, groups=16)
    y = F.batch_norm(y, w['norm.running_mean'], w['norm.running_var'], w['norm.weight'], w['norm.bias'], False, 0, EPSILON)
    y = F.conv2d(F.relu6(y), w['pointwise.weight'], w['pointwise.bias'])
    x = x + y
    x = F.relu6(F.conv2d(x, w['down.weight'], w['down.bias'], stride=2, padding=1))
    x = F.linear(x.mean((2, 3)), w['head.weight'], w['head.bias'])
    return F.cross_entropy(x, target)


OPTIMISERS = {
    'sgd with momentum': lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    'sgd with nesterov momentum': lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    'plain sgd': lambda p: torch.optim.SGD(p, lr=0.05),
    'adamw': lambda p: torch.optim.AdamW(p, lr=0.003, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
}


def train(make):
    w = {name: weight(name, shape) for name, shape in SHAPES.items()}
    trained = [name for name in w if name not in FROZEN]
    for name in trained:
        w[name].requires_grad_()
    optimiser = make([w[name] for name in trained])
    losses, gradients = [], {}
    for step in range(STEPS):
        x = torch.from_numpy(uniform(f'picture {step}', BATCH * 3 * SIDE * SIDE).astype(np.float64)).reshape(BATCH, 3, SIDE, SIDE)
        target = torch.tensor([(step + 2 * i) % CLASSES for i in range(BATCH)])
        optimiser.zero_grad()
        loss = loss_of(w, x, target)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            gradients = {name: w[name].grad.norm().item() for name in trained}
        optimiser.step()
    after = {name: [w[name].detach().sum().item(), w[name].detach().norm().item()] for name in trained}
    return {'losses': losses, 'gradientNorms': gradients, 'after': after}


folder.mkdir(parents=True, exist_ok=True)
result = {name: train(make) for name, make in OPTIMISERS.items()}
(folder / 'trainer.json').write_text(json.dumps({'torch': torch.__version__.split('+')[0], 'shapes': SHAPES, 'curves': result}, indent=1) + '\n')

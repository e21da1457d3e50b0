"""Loss curves of two dense networks by PyTorch in float64, for test/engine/sequential.test.ts:
python scripts/golden-dense.py > test/golden/engine/dense.json

Weights and rows come from a generator that the test repeats, in the same order. 64 rows in batches of 20 leave a short last one.
"""
import json
import torch
from torch.nn.functional import cross_entropy, mse_loss

torch.set_default_dtype(torch.float64)
state = 7


def random():
    global state
    state = state * 16807 % 2147483647
    return state / 2147483647 - 0.5


def table(rows, columns, scale=1.0):
    return torch.tensor([[random() * scale for _ in range(columns)] for _ in range(rows)])


def curve(matrices, activation, rows, targets, loss_of, make_optimizer):
    """Mean loss over the rows of each of ten epochs, as the weights were when each row was seen."""
    weights = [m.clone().requires_grad_() for m in matrices]
    biases = [torch.zeros(m.shape[1]).requires_grad_() for m in matrices]
    optimizer = make_optimizer(weights + biases)
    losses = []
    for _ in range(10):
        total = 0.0
        for at in range(0, len(rows), 20):
            x, y = rows[at : at + 20], targets[at : at + 20]
            for i, (w, b) in enumerate(zip(weights, biases)):
                x = x @ w + b
                if i < len(weights) - 1:
                    x = activation(x)
            loss = loss_of(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / len(rows))
    return losses


start = [table(10, 64, 0.5), table(64, 64, 0.3), table(64, 1, 0.3)]
rows = table(64, 10)
targets = rows[:, :1] * rows[:, 1:2] * 4 - rows[:, 2:3]
regression = curve(start, torch.relu, rows, targets, mse_loss, lambda p: torch.optim.Adam(p, lr=1e-3))

start = [table(5, 12, 0.8), table(12, 3, 0.8)]
rows = table(64, 5)
targets = torch.nn.functional.one_hot(rows[:, :3].argmax(1), 3).double()
classes = curve(start, torch.tanh, rows, targets, cross_entropy, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True))

print(json.dumps({"adamMse": regression, "sgdCrossEntropy": classes}, indent=2))

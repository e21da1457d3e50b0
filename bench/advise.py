"""
One training on the processor, for bench/advise.ts: prints the seconds of a step and the greatest memory as JSON. Seconds are those of the
processor over its threads, which other work on the machine lengthens less than those of the clock.
"""
import json
import resource
import sys
import time

import torch
from torch import nn

name, batch, size, optimiser, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
torch.set_num_threads(threads)
torch.manual_seed(0)

if name == "transformer":
    hidden, layers, heads, vocabulary = 256, 6, 4, 8000

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(vocabulary, hidden)
            self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, batch_first=True), layers)
            self.out = nn.Linear(hidden, vocabulary)

        def forward(self, x):
            return self.out(self.layers(self.embed(x)))

    model = Model()
    x = torch.randint(0, vocabulary, (batch, size))
    y = torch.randint(0, vocabulary, (batch * size,))
    loss_of = lambda: nn.functional.cross_entropy(model(x).flatten(0, 1), y)
elif name == "dense":
    width = size
    model = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(width, width), nn.ReLU())], nn.Linear(width, 10))
    x, y = torch.randn(batch, width), torch.randint(0, 10, (batch,))
    loss_of = lambda: nn.functional.cross_entropy(model(x), y)
else:
    import torchvision

    model = getattr(torchvision.models, name)(num_classes=1000)
    x, y = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
    loss_of = lambda: nn.functional.cross_entropy(model(x), y)

model.train()
if optimiser == "adam":
    step_of = torch.optim.Adam(model.parameters(), lr=1e-4)
else:
    step_of = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

seconds = []
for _ in range(3):
    began = time.process_time()
    step_of.zero_grad()
    loss_of().backward()
    step_of.step()
    seconds.append((time.process_time() - began) / threads)

print(
    json.dumps(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": min(seconds[1:]),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    )
)

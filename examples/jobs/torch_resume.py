"""Trains a small network, writes a checkpoint after every epoch, and goes on from the newest one.

Stop it at any moment and run it again: it ends with the same weights as if nobody had stopped it.
"""

import os
import pathlib
import signal
import sys

import torch

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
folder = pathlib.Path(os.environ.get("PLINTH_CHECKPOINT_DIR", "checkpoints"))
folder.mkdir(parents=True, exist_ok=True)
checkpoint = folder / "last.pt"
device = "cuda" if torch.cuda.is_available() else "cpu"

torch.manual_seed(0)
x = torch.randn(4096, 10)
y = torch.sin(3 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
model = torch.nn.Sequential(torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
first = 0
if checkpoint.exists():
    state = torch.load(checkpoint, weights_only=True, map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"].cpu())
    first = state["epoch"] + 1
    print(f"goes on with epoch {first}", flush=True)

stopped = False


def stop(number, frame):
    global stopped
    stopped = True


signal.signal(signal.SIGTERM, stop)  # the epoch is finished and kept first; there is time for that

for epoch in range(first, epochs):
    order = torch.randperm(len(x))
    total = 0.0
    for part in order.split(64):
        loss = torch.nn.functional.mse_loss(model(x[part].to(device)), y[part].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(part)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state(), "epoch": epoch}
    torch.save(state, checkpoint.with_suffix(".part"))
    os.replace(checkpoint.with_suffix(".part"), checkpoint)  # the old one or the new one, never half of it
    print(f"epoch {epoch} loss {total / len(x):.6f}", flush=True)
    if stopped:
        sys.exit(143)

outputs = pathlib.Path(os.environ.get("PLINTH_OUTPUT_DIR", "."))
torch.save(model.state_dict(), outputs / "model.pt")
print(f"done on {device}, weights {sum(p.double().abs().sum().item() for p in model.parameters()):.9f}")

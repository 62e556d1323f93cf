"""A linear probe: one layer trained by PyTorch on the features of a network that stays as it is."""

import sys

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import linear_cross_entropy  # or from fastsoftmax.torch

torch.manual_seed(0)
repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images, dtype=torch.float32).repeat(repeats, 1) / 16
labels = torch.tensor(labels).repeat(repeats)

backbone = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU())
with torch.no_grad():
    features = backbone(images)

probe = torch.nn.Linear(256, 10)
optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3)
for epoch in range(20):
    for batch in torch.randperm(len(labels)).split(1024):
        loss = linear_cross_entropy(
            features[batch], probe.weight, labels[batch], linear_bias=probe.bias
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")

with torch.no_grad():
    final_loss = linear_cross_entropy(features, probe.weight, labels, linear_bias=probe.bias).item()
    accuracy = (probe(features).argmax(dim=1) == labels).float().mean().item()
print(f"loss {final_loss:.5f}, accuracy {accuracy:.4f}")

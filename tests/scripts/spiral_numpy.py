"""A softmax classifier trained by gradient descent on the spiral of Stanford's course CS231n."""

import sys

import numpy as np
from scipy.special import softmax  # or from fastsoftmax

N = int(sys.argv[1]) if len(sys.argv) > 1 else 100  # points per class
D, K = 2, 3
rng = np.random.default_rng(0)
X, y = np.zeros((N * K, D)), np.zeros(N * K, dtype=int)
for j in range(K):
    r = np.linspace(0.0, 1, N)
    t = np.linspace(j * 4, (j + 1) * 4, N) + rng.standard_normal(N) * 0.2
    X[N * j : N * (j + 1)] = np.c_[r * np.sin(t), r * np.cos(t)]
    y[N * j : N * (j + 1)] = j

W, b = 0.01 * rng.standard_normal((D, K)), np.zeros((1, K))
step_size, reg = 1.0, 1e-3
for i in range(200):
    scores = X @ W + b
    probs = softmax(scores, axis=1)
    data_loss = -np.log(probs[np.arange(len(y)), y]).mean()
    loss = data_loss + 0.5 * reg * np.sum(W * W)
    if i % 50 == 0:
        print(f"iteration {i}: loss {loss:.6f}")

    dscores = probs
    dscores[np.arange(len(y)), y] -= 1
    dscores /= len(y)
    W -= step_size * (X.T @ dscores + reg * W)
    b -= step_size * dscores.sum(axis=0, keepdims=True)

accuracy = np.mean((X @ W + b).argmax(axis=1) == y)
print(f"training accuracy {accuracy:.2f}")

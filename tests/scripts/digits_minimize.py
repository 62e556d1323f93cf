"""Multinomial logistic regression by scipy.optimize.minimize, on scikit-learn's digits."""

import sys

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax  # or from fastsoftmax
from sklearn.datasets import load_digits

X, y = load_digits(return_X_y=True)
repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1
X, y = np.tile(X / 16, (repeats, 1)), np.tile(y, repeats)
Y = np.eye(10)[y]
C = 1e-3


def negative_log_likelihood(w):
    W = w.reshape(10, 64)
    Z = X @ W.T
    loss = np.mean(logsumexp(Z, axis=1) - Z[np.arange(len(y)), y]) + C * np.sum(W**2)
    gradient = (softmax(Z, axis=1) - Y).T @ X / len(y) + 2 * C * W
    return loss, gradient.ravel()


result = minimize(negative_log_likelihood, np.zeros(640), jac=True, method="L-BFGS-B",
                  options={"gtol": 1e-7, "ftol": 1e-14})  # fmt: skip
W, loss = result.x.reshape(10, 64), result.fun
print(f"{result.nit} iterations, loss {loss:.8f}, accuracy {np.mean((X @ W.T).argmax(1) == y):.4f}")

"""What a kernel makes of logits, as numbers.

Where logits are those of features, the mode says what a tile of them becomes. LOSS: only their loss
is wanted. SOFTMAX, LOG_SOFTMAX, LOGITS, ARGMAX: rows of scores. From GRADIENT on a backward product
follows, of s·(P - Y) for GRADIENT, see `softmax.losses`; of the rows of the Hessian's product with
a direction for PRODUCT, and of those of its diagonal for DIAGONAL, for which the row scales include
T. HESSIAN is the whole of it, for which probabilities are computed first. Where logits lie in
memory, the mode is LOSS, GRADIENT, SOFTMAX, LOG_SOFTMAX or LOGSUMEXP.
"""

LOSS, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, LOGITS, ARGMAX = range(6)
GRADIENT, PRODUCT, DIAGONAL, HESSIAN = range(6, 10)

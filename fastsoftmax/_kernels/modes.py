"""What a kernel makes of logits, as numbers.

Where logits are those of features, the mode says what a tile of them becomes before the backward
product. LOSS: nothing, only the loss is wanted. GRADIENT: s·(P - Y), see `softmax.losses`. PRODUCT:
the rows of the Hessian's product with a direction. DIAGONAL: those of the Hessian's diagonal; for
these two the row scales include T. Where logits lie in memory, the mode is LOSS or GRADIENT, or one
of the last three, which are functions.
"""

LOSS, GRADIENT, PRODUCT, DIAGONAL, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = range(7)

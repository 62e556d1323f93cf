"""What a kernel makes of logits.

Of a tile before the backward product (see `loss`): LOSS: nothing. GRADIENT: s·(P - Y). PRODUCT: the
row of the Hessian's product with a direction; DIAGONAL: that of its diagonal. For the latter two
the row scales are s·T. Of rows in memory: LOSS, GRADIENT, or one of the last three.
"""

LOSS, GRADIENT, PRODUCT, DIAGONAL, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = range(7)

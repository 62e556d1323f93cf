"""What a tile of logits is turned into before the backward product; see `loss`.

LOSS: nothing. GRADIENT: s·(P - Y). PRODUCT: the row of the Hessian's product with a direction;
DIAGONAL: that of its diagonal. For the latter two the row scales are s·T.
"""

LOSS, GRADIENT, PRODUCT, DIAGONAL = 0, 1, 2, 3

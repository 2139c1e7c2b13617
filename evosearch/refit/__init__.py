"""Weights and statistics that fit a compact network, and what they tell of masks.

=====================  ====================================================================
`building`             builder of compact networks: for scoring, for keeps, as a baseline
`patches`              what the weights of layers multiply, and the calls that read it
`moments`              second moments of rows
`norms`                re-estimation of BatchNorm statistics
`compensation`         least-squares update of the weights that stay
`compensated_error`    the error that it leaves, without a forward pass
`gram`                 second moments of layer inputs, and the two-step fitness from them
`folding`              BatchNorm folded into layers, for networks that are only scored
=====================  ====================================================================
"""

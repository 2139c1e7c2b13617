"""The search space: channel groups, masks over them, exact costs, budgets; numpy, no torch.

============= ==============================================================================
`mask`        channel groups, and masks: which of their channels a candidate keeps
`space`       the space: groups, costs of any plan, legality, sampling and repair
`cost`        the cost of one network, and amounts as people read them
`costform`    what a part of a network costs, as a polynomial in the widths of groups
`polynomials` such polynomials, for many plans at once
`resources`   the table of resources: MACs, latency, ...; names, units, how users write them
`budget`      budgets in numbers, and as users ask for them
`knowledge`   measurements on the base network, made once per run for the strategies
`digest`      the digest of a space: of every field
`text`        a search space as TOML, written and read
============= ==============================================================================
"""

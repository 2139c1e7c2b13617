"""The engine of a search: ask, evaluate candidates rung by rung, record, tell.

==============  ========================================================================
`loop`          rounds of ask, evaluate, record and tell, and how a study is replayed
`ladder`        the fitness ladder above the strategy's own rungs, with its races
`measurements`  scores of masks, measured once and remembered
`executor`      a job, the evaluator that does it, and this process as its executor
`parallel`      worker processes and dask clusters as executors
`numbering`     the number of a worker process, by which it takes a GPU of its own
`config`        `[search.evaluator]`: how candidates are built and scored
`evaluator`     candidates built, scored on the search split, and described by knowledge
`probes`        how the loss rises when one group alone is cut, and what a rung costs
==============  ========================================================================
"""

"""Tables, pictures and pages, derived from a run on disk; the package is imported without torch.

`README.md` has the steps to add a column.

============  ======================================================================
`tables`      tables of columns: in a terminal, as JSON, and for the HTML page
`columns`     the columns of networks: size, loss, accuracy, latency, ties
`searches`    a search and its baselines side by side, and what each came to
`front`       the front of a run, as JSON and as a table
`ties`        members of a front compared image by image
`artifacts`   the finished networks of a run
`finals`      networks that were trained side by side, and whether the search's score told
`trust`       how far the rungs of a study can be trusted
`pareto`      all of these together: the view of a run
`views`       what a command shows, as JSON and rendered
`notebook`    the same at a Python prompt, as text, and in a notebook, in HTML
`networks`    one plan, and finished networks, as tables and as JSON
`trials`      the trials of a study as rows for data frames
`compare`     several runs of one space and base network
`latency`     a latency profile, and a front by its measured latency
`plot`        pictures of fronts
`page`        the HTML page of a run
`pagedata`    what that page holds beyond the view's JSON
`inspection`  groups, frozen parts and costs of a search space
`criteria`    the importance criteria; the one module that needs torch
`recipes`     the recipes for training under a budget
`progress`    what is shown while something takes its time
`lines`       the same where there is no terminal
`follow`      a view that refreshes for as long as somebody searches
============  ======================================================================
"""

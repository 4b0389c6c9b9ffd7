"""Plans, executes and explains builds: `pipeline` goes the whole way.

- what to do: `plan` (recipe to jobs), `job` (the plan as data), `static_conflicts` (found without building);
- doing it: `execute` (the scheduler), `workers` (its threads), `context` (what the jobs of a build share),
  `node_job`, `target_job`, `trees` (merging), `outputs` (files written), `cancelling`, `result`;
- doing only what is needed: `keys` (what an output follows from), `sources` (whether local files changed),
  `state` (the last build, per image), `memo` (the last build, whole: for when nothing changed);
- saying what and why: `reasons`, `forecast`; building again: `watch`, and twice to compare: `reproduce`.
"""

"""The experiment program: configuration, the loop over tasks, results, scores and figures."""

"""`tailrace run-local`: one delivery through planner, scheduler and runner in this process."""

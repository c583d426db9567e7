"""One trainer for every stage: optimizers, schedules, objectives, and exact resume."""

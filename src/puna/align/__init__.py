"""Post-training: preferences, rewards and distillation, as objectives for the one trainer."""
